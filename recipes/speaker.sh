# One speaker, few labels: all stages of the recipes kathleen and kerstin. Source it in place of common.sh.
#
#     . "$(dirname "$0")/../speaker.sh"
#     option lexicon espeak-ng:de "pronunciations: a lexicon, or espeak-ng:LANGUAGE"
#     option voices de "of espeak-ng, which read --text"
#     parse_options "$@"
#     speaker_stages kerstin
#
# "few" systems learn from the transcripts of --few-minutes, "all" systems from all of the train split's:
#
#   few/heard-first   phones, from random weights
#   few/heard         the same, and then the rest of the audio, without its transcripts
#   few/longer        phones, with as many labelled updates as few/heard has in both of its trainings
#   few/pretrained    phones, from an encoder that was pretrained on the audio of the train split
#   few/letters       letters in place of phones
#   few/made          phones, from an encoder that learned from espeak-ng's voices, which read --text: no other system has
#                     anything of these
#   all/phones        phones, from random weights
#
# Language models: "general", a 4-gram, knows --text alone; "own", a 3-gram, all transcripts of the train split; "few" those
# of the few minutes. Words of theirs that the lexicon lacks get guessed pronunciations. Each system is measured with
# "general" (without --text: with "own"), and the two of phones from random weights with the transcripts' too. "open-general",
# "open-own" and "open-few" are the same language models, but words that they lack may be said too, at the price of an unknown
# word: those of --words, and of --lexicon where it is a file. A GMM-HMM has the same minutes and language models, but of
# "general" a 3-gram: pocketsphinx uses no longer n-grams.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
tools=$(dirname "${BASH_SOURCE[0]}")/../tools
synthetic=$(dirname "${BASH_SOURCE[0]}")/synthetic

option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option few_minutes 10 "labelled minutes of the small subset"
option text "" "general text, a sentence a line, .xz too; without it there is no general language model"
option words "" "a file of words that may be recognised besides those of the texts, one a line"
option preset minutes "preset of all systems"
option few_steps "" "updates of each training on the small subset; empty = those of the preset"
option all_steps 3600 "updates on all labels"
option pretrain_steps 2500 "updates of pretraining"
option made_minutes 150 "minutes that espeak-ng's voices read"
option made_steps 1500 "updates on what they read"
option peer_few_senones 100 "tied states of the GMM-HMM of the small subset"
option peer_all_senones 500 "tied states of the GMM-HMM of all labels"
option peer_gaussians 8 "densities of each state"

# speaker_stages NAME: all of it, for the recordings in the folder NAME of the corpus.
speaker_stages() {
    if [[ -z $lexicon ]]; then wrong_usage "--lexicon is needed: a pronunciation lexicon such as CMUdict"; fi
    whole all_steps pretrain_steps made_steps
    if [[ -n $few_steps ]]; then whole few_steps; fi
    local phones=phones:$exp/lexicon.txt

    if stage 1 "prepare the store"; then
        speechssl prepare "$data/$1" "$exp/store" --jobs "$jobs" >&2
    fi
    if stage 2 "language models, and a lexicon of their words"; then
        text_and_lexicon
    fi
    if stage 3 "train on $few_minutes minutes of labels"; then
        train_few
    fi
    if stage 4 "train on all labels"; then
        finetune all phones "$all_steps" none "$phones"
    fi
    if stage 5 "find the language models' weights on dev, and measure on test"; then
        measure_all
    fi
    if stage 6 "a GMM-HMM of the same minutes"; then
        peer "$1"
    fi
    if stage 7 "tables"; then
        compare_all
    fi
}

# lms_of few|all: set the array lms to the language models that these systems are measured with, all with the first one, and
# the array open to those for which there are words that they lack.
lms_of() {
    lms=(own)
    if [[ $1 == few ]]; then lms+=(few); fi
    if [[ -e $exp/general.arpa ]]; then lms=(general "${lms[@]}"); fi
    open=()
    if [[ -e $exp/words.txt ]]; then open=("${lms[@]/#/open-}"); fi
}

# text_and_lexicon: the language models, the lexicon of their words, and the digest of each file.
text_and_lexicon() {
    local texts=("$exp/store") more=()
    if [[ -n $words ]]; then more=("$words"); fi
    if [[ -n $text ]]; then
        speechssl lm "$text" --order 4 --out "$exp/general.arpa" --force >&2
        speechssl lm "$text" --order 3 --out "$exp/general-3.arpa" --force >&2
        texts+=("$exp/general.arpa")
    else
        log "no --text: no general language model"
    fi
    speechssl lm "$exp/store" --order 3 --out "$exp/own.arpa" --force >&2
    python "$tools/chosen_texts.py" "$exp/store" --minutes "$few_minutes" --seed "$seed" >"$exp/few.txt"
    speechssl lm "$exp/few.txt" --order 3 --out "$exp/few.arpa" --force >&2

    lexicon_of lexicon.txt "${texts[@]}" ${more[@]+"${more[@]}"}
    if [[ -n $words || $lexicon != espeak-ng:* ]]; then
        # Without the words of --text, for the language models that do not know it.
        lexicon_of lexicon-own.txt "$exp/store" ${more[@]+"${more[@]}"}
        grep -v "^;;;" "$exp/lexicon-own.txt" | cut -f 1 | uniq >"$exp/words.txt"
    fi

    sha256sum "$exp"/*.arpa "$exp/lexicon.txt"
}

# lexicon_of NAME TEXT...: how the words of these are said.
lexicon_of() {
    local out=(--split train --out "$exp/$1" --force)
    if [[ $lexicon == espeak-ng:* ]]; then
        speechssl lexicon make "${@:2}" --from "$lexicon" "${out[@]}" >&2
    else
        speechssl lexicon extend "$lexicon" "${@:2}" --most 2 "${out[@]}" >&2
    fi
}

# finetune few|all NAME STEPS INIT TOKENIZER [OPTION...]: train the system NAME. Without STEPS the preset has them.
finetune() {
    local some=()
    if [[ $1 == few ]]; then some=(--minutes "$few_minutes"); fi
    if [[ -n $3 ]]; then some+=(--set "train.steps=$3"); fi
    speechssl finetune "$exp/store" --preset "$preset" ${some[@]+"${some[@]}"} --set "train.seed=$seed" \
        --run "$exp/$1/$2" --init-from "$4" --tokenizer "$5" "${@:6}" >&2
}

# train_few: all systems of the few minutes.
train_few() {
    local lm=$exp/general.arpa
    # "own" knows the transcripts of the audio that is to be heard.
    if [[ ! -e $lm ]]; then lm=$exp/few.arpa; fi

    # The preset "minutes" does 1,650 updates in each.
    local longer_steps=3300
    if [[ -n $few_steps ]]; then longer_steps=$((2 * few_steps)); fi

    finetune few heard "$few_steps" none "$phones" --unlabelled "$exp/store" --lm "$lm"
    finetune few longer "$longer_steps" none "$phones"
    speechssl pretrain "$exp/store" --split train --preset "$preset" --run "$exp/encoder" \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
    finetune few pretrained "$few_steps" "$exp/encoder" "$phones"
    finetune few letters "$few_steps" none chars
    if [[ -z $text ]]; then
        log "no --text: nothing that made voices could read"
    elif ! python -c "import espeakng_loader" 2>/dev/null; then
        log "no made voices here: pip install 'speechssl[espeak]'"
    else
        train_made
    fi
}

# train_made: the system that starts from made voices.
train_made() {
    local names
    read -ra names <<<"$voices"
    python "$synthetic/read_text.py" "$text" "$exp/voices" --voices "${names[@]}" \
        --minutes "$made_minutes" --seed "$seed" --jobs "$jobs" >&2
    speechssl prepare "$exp/voices/labelled" "$exp/voices-store" --jobs "$jobs" >&2
    speechssl finetune "$exp/voices-store" --preset "$preset" --run "$exp/voices-model" --init-from none \
        --tokenizer "$phones" --criterion ctc --set "train.seed=$seed" --set "train.steps=$made_steps" >&2
    finetune few made "$few_steps" "$exp/voices-model" "$phones"
}

# measure SYSTEM LM...: on test, with each of these language models in a copy of the model folder.
measure() {
    local run=$exp/$1 lm unknown
    for lm in "${@:2}"; do
        unknown=()
        if [[ $lm == open-* ]]; then unknown=(--unknown-words); fi
        # The recogniser's lexicon has the words of --text too.
        if [[ $lm == open-own || $lm == open-few ]]; then unknown+=(--words "$exp/words.txt"); fi
        rm -rf "$run/with-$lm" "$run/$lm"
        cp -r "$run/model" "$run/with-$lm"
        rm -rf "$run/with-$lm/lm"  # the one that helped to hear the audio
        speechssl tune-lm "$run/with-$lm" "$exp/${lm#open-}.arpa" "$exp/store" ${unknown[@]+"${unknown[@]}"} >&2
        speechssl evaluate "$run/with-$lm" "$exp/store" --split test --out "$run/$lm" >&2
    done
}

# measure_all: every system that was trained.
measure_all() {
    local system
    lms_of few
    if [[ -e $exp/few/heard-first ]]; then measure few/heard-first "${lms[@]}" ${open[@]+"${open[@]}"}; fi
    if [[ -e $exp/few/heard ]]; then measure few/heard "${lms[0]}" ${open[0]+"${open[0]}"}; fi
    for system in longer pretrained letters made; do
        if [[ -e $exp/few/$system ]]; then measure "few/$system" "${lms[0]}"; fi
    done
    lms_of all
    if [[ -e $exp/all/phones ]]; then measure all/phones "${lms[@]}" ${open[@]+"${open[@]}"}; fi
}

# peer NAME: a GMM-HMM of the same minutes, lexicon and language models, for the recordings in the folder NAME.
peer() {
    local audio=$data/$1 amount lm arpa minutes senones
    if ! python "$tools/sphinx_peer.py" check; then
        log "no GMM-HMM here"
        return
    fi

    for amount in few all; do
        minutes=() senones=$peer_all_senones
        if [[ $amount == few ]]; then minutes=(--minutes "$few_minutes") senones=$peer_few_senones; fi
        if [[ ! -e $exp/$amount/peer/peer.json ]]; then
            rm -rf "$exp/$amount/peer"
            python "$tools/sphinx_peer.py" train "$exp/store" "$exp/$amount/peer" --audio "$audio" \
                --lexicon "$exp/lexicon.txt" ${minutes[@]+"${minutes[@]}"} --seed "$seed" \
                --senones "$senones" --gaussians "$peer_gaussians" >&2
        fi
        lms_of "$amount"
        for lm in "${lms[@]}"; do
            arpa=$exp/$lm.arpa
            if [[ $lm == general ]]; then arpa=$exp/general-3.arpa; fi
            python "$tools/sphinx_peer.py" evaluate "$exp/$amount/peer" "$exp/store" "$exp/$amount/peer/$lm" \
                --audio "$audio" --lm "$arpa" >&2
        done
    done
}

# compare_all: for each amount of labels and each language model a table of the systems that were measured so.
compare_all() {
    local amount title lm system measured rows
    for amount in few all; do
        title="all labels"
        if [[ $amount == few ]]; then title="$few_minutes minutes of labels"; fi
        lms_of "$amount"
        for lm in "${lms[@]}"; do
            rows=()
            for system in "phones=heard-first/$lm" "phones, other words too=heard-first/open-$lm" \
                "phones and unlabelled audio=heard/$lm" "the same, other words too=heard/open-$lm" \
                "phones, as many updates=longer/$lm" \
                "phones, pretrained=pretrained/$lm" "letters=letters/$lm" "phones, from made voices=made/$lm" \
                "phones=phones/$lm" "phones, other words too=phones/open-$lm" "GMM-HMM=peer/$lm"; do
                measured=$exp/$amount/${system#*=}
                # What evaluate says of the language model stands beside greedy decoding.
                if [[ -e $measured/lm ]]; then measured=$measured/lm; fi
                if [[ -e $measured/score.json ]]; then rows+=("${system%%=*}=$measured"); fi
            done
            echo "$title, language model $lm:"
            if ((${#rows[@]})); then speechssl compare "${rows[@]}"; else echo "no system was measured"; fi
        done
    done
}
