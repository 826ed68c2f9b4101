# Options, log lines and stages for the recipes: source it, declare the options, parse the arguments.
#
#     . "$(dirname "$0")/../common.sh"
#     option preset tiny "preset of pretraining"
#     parse_options "$@"
#     if stage 1 "make the corpus"; then
#         speechssl prepare "$data" "$exp/store"
#     fi
#
# `option NAME DEFAULT HELP` makes `--name VALUE` set the variable NAME. Only declared options can be set, and a value is
# only ever data: nothing here evaluates it. Common to all recipes are --data, --exp, --stage and --stop-stage.
# Runs on bash 3.2 and newer.

set -euo pipefail

# Threads that wait for each other sleep instead of spinning: beside another program, spinning threads
# take its core and lose theirs. The speechssl command does the same; this is for the rest of a recipe.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

option_names=()
option_helps=()

# option NAME DEFAULT HELP: declare an option and give its variable the default.
option() {
    option_names+=("$1")
    option_helps+=("$3 (default: $2)")
    printf -v "$1" '%s' "$2"
}

option stage 1 "first stage to run"
option stop_stage 99 "last stage to run"
option data data "folder of the corpus"
option exp exp "folder of stores, runs and results"

# log TEXT...: a line with the time to standard error; standard output is for results.
log() {
    printf '%s %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$*" >&2
}

# usage: the known options, one a line.
usage() {
    local i
    echo "options of $0:"
    for i in "${!option_names[@]}"; do
        printf '  --%-20s %s\n' "${option_names[i]//_/-}" "${option_helps[i]}"
    done
}

# wrong_usage TEXT: say what is wrong and what is allowed; exit 2.
wrong_usage() {
    { echo "$0: $1"; usage; } >&2
    exit 2
}

# is_option NAME: whether NAME was declared.
is_option() {
    local known
    for known in "${option_names[@]}"; do
        if [[ $known == "$1" ]]; then return 0; fi
    done
    return 1
}

# parse_options ARGUMENT...: set the variables of the options given; `--help` lists them and exits.
parse_options() {
    local name_
    while (($#)); do
        if [[ $1 == --help ]]; then usage; exit 0; fi
        name_=${1#--}
        name_=${name_//-/_}
        if [[ $1 != --* ]] || ! is_option "$name_"; then wrong_usage "unknown option '$1'"; fi
        if (($# < 2)); then wrong_usage "option '$1' needs a value"; fi
        printf -v "$name_" '%s' "$2"
        shift 2
    done
    # Arithmetic would run a command hidden in "a[\$(command)]": only digits may reach it.
    for name_ in stage stop_stage; do
        if [[ ! ${!name_} =~ ^[0-9]{1,4}$ ]]; then
            wrong_usage "option '--${name_//_/-}' takes a whole number, not '${!name_}'"
        fi
    done
}

# whole NAME...: see that these options are whole numbers of at least 1; after parse_options, before arithmetic.
whole() {
    local name_
    for name_ in "$@"; do
        if [[ ! ${!name_} =~ ^[1-9][0-9]{0,8}$ ]]; then
            wrong_usage "option '--${name_//_/-}' takes a whole number above 0, not '${!name_}'"
        fi
    done
}

# stage NUMBER TEXT: true, and logged, if this stage is among those asked for. Use it with `if`: after
# `stage 3 ... && { ... }` at the end of a recipe, a stage not asked for would look like a failure.
stage() {
    if ((10#$stage > $1 || 10#$stop_stage < $1)); then return 1; fi
    log "stage $1: $2"
}

# compare_tuned NAME=FOLDER...: the rows whose recogniser has a language model, which tune-lm keeps where it helps.
compare_tuned() {
    local row tuned=()
    for row in "$@"; do
        if [[ -e ${row#*=}/lm ]]; then tuned+=("$row/lm"); fi
    done
    if ((${#tuned[@]})); then
        echo "with a language model:"
        speechssl compare "${tuned[@]}"
    fi
}

# each COMMAND...: for each of the array systems, {} its folder, all at once, each with one thread; what they say comes
# one after another.
each() {
    local system process processes=() failed=0
    for system in "${systems[@]}"; do
        OMP_NUM_THREADS=1 "${@//\{\}/$system}" >"$system.log" 2>&1 &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process" || failed=$?; done
    for system in "${systems[@]}"; do
        log "${system##*/}:"
        cat "$system.log" >&2
    done
    return "$failed"
}
