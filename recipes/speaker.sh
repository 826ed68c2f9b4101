# One speaker, few labels: what the recipes kathleen and kerstin share. Source it in place of common.sh.
#
#     . "$(dirname "$0")/../speaker.sh"
#     option lexicon espeak-ng:de "pronunciations: a lexicon, or espeak-ng:LANGUAGE"
#     parse_options "$@"
#     if stage 1 "prepare the store"; then prepare_store kathleen; fi
#
# Each system is trained twice: "few" learns from the transcripts of --few-minutes, "all" from all of the train split's.
# Each is measured with two language models: "general" knows --text alone, "own" the transcripts of the train split
# alone. "few" of text_and_lexicon knows the transcripts of the few minutes alone, and is there for self-training.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
tools=$(dirname "${BASH_SOURCE[0]}")/../tools

option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option few_minutes 10 "labelled minutes of the small subset"
option text "" "general text, a sentence a line, .xz too; without it there is no general language model"
option peer_few_senones 100 "tied states of the GMM-HMM of the small subset"
option peer_all_senones 500 "tied states of the GMM-HMM of all labels"
option peer_gaussians 8 "densities of each state"

# labels_of few|all: set the array labels to the options of finetune that choose these minutes.
labels_of() {
    labels=(--set "train.seed=$seed")
    if [[ $1 == few ]]; then labels+=(--minutes "$few_minutes"); fi
}

# language_models: set the array lms to the names of the language models that systems are measured with.
language_models() {
    lms=(own)
    if [[ -e $exp/general.arpa ]]; then lms=(general own); fi
}

# prepare_store NAME: the recordings in the folder NAME of the corpus.
prepare_store() {
    speechssl prepare "$data/$1" "$exp/store" --jobs "$jobs" >&2
}

# text_and_lexicon: the language models, the lexicon of their words, and the digest of each file.
text_and_lexicon() {
    local texts=("$exp/store")
    if [[ -n $text ]]; then
        speechssl lm "$text" --order 3 --min-count 2 --out "$exp/general.arpa" >&2
        texts+=("$exp/general.arpa")
    else
        log "no --text: no general language model"
    fi
    speechssl lm "$exp/store" --order 3 --out "$exp/own.arpa" >&2
    python "$tools/chosen_texts.py" "$exp/store" --minutes "$few_minutes" --seed "$seed" >"$exp/few.txt"
    speechssl lm "$exp/few.txt" --order 3 --out "$exp/few.arpa" >&2

    sha256sum "$exp"/*.arpa

    if [[ -n $lexicon ]]; then
        speechssl lexicon make "${texts[@]}" --split train --from "$lexicon" --out "$exp/lexicon.txt" >&2
        sha256sum "$exp/lexicon.txt"
    else
        log "no --lexicon: no system of phones"
    fi
}

# Our own systems' stages belong here: functions that train NAME of few and all into $exp/NAME/few and $exp/NAME/all,
# and measure them on test into $exp/NAME/few/general and so on, as peer does below.

# peer NAME: a GMM-HMM of the same minutes, lexicon and language models, for the recordings in the folder NAME.
peer() {
    local audio=$data/$1 amount lm minutes senones
    if [[ ! -e $exp/lexicon.txt ]]; then
        log "no GMM-HMM without a lexicon"
        return
    fi
    if ! python "$tools/sphinx_peer.py" check; then
        log "no GMM-HMM here"
        return
    fi

    language_models
    for amount in few all; do
        minutes=() senones=$peer_all_senones
        if [[ $amount == few ]]; then minutes=(--minutes "$few_minutes") senones=$peer_few_senones; fi
        if [[ ! -e $exp/peer/$amount/peer.json ]]; then
            rm -rf "$exp/peer/$amount"
            python "$tools/sphinx_peer.py" train "$exp/store" "$exp/peer/$amount" --audio "$audio" \
                --lexicon "$exp/lexicon.txt" ${minutes[@]+"${minutes[@]}"} --seed "$seed" \
                --senones "$senones" --gaussians "$peer_gaussians" >&2
        fi
        for lm in "${lms[@]}"; do
            python "$tools/sphinx_peer.py" evaluate "$exp/peer/$amount" "$exp/store" "$exp/peer/$amount/$lm" \
                --audio "$audio" --lm "$exp/$lm.arpa" >&2
        done
    done
}

# compare_all: for each amount of labels and each language model a table of the systems that were measured so.
compare_all() {
    local amount lm system rows
    language_models
    for amount in few all; do
        for lm in "${lms[@]}"; do
            rows=()
            for system in "$exp"/*/"$amount/$lm"; do
                if [[ -e $system/score.json ]]; then
                    rows+=("$(basename "$(dirname "$(dirname "$system")")")=$system")
                fi
            done
            echo "$amount labels, language model $lm:"
            if ((${#rows[@]})); then speechssl compare "${rows[@]}"; else echo "no system was measured"; fi
        done
    done
}
