#!/usr/bin/env bash
# The whole pipeline on synthetic speech, to a table of word error rates. Needs no data; takes minutes on 2 cores.
#
#     bash recipes/synthetic/run.sh --exp exp/synthetic [--stage N --stop-stage M]
#
# A first recogniser learns from 5 labelled minutes. With a language model it writes down the speech without labels, and a
# second one learns from both. Beside them an encoder is pretrained on the speech without labels and fine-tuned with as
# many labelled updates as the first recogniser had: those two differ by what pretraining gives.
#
# The voices and sentences of the test set occur nowhere else. The text of the language model has none of these sentences,
# and comes from the same small grammar.

. "$(dirname "$0")/../common.sh"
recipe=$(dirname "$0")
option seed 0 "of corpus, weights and order"
option jobs 2 "processes for making and preparing audio"
option minutes 5 "labelled minutes"
option unlabelled_minutes 30 "minutes without labels"
option sentences 20000 "of general text, for the language model"
option steps 600 "updates of each recogniser"
option pretrain_steps 300 "updates of pretraining"
parse_options "$@"
corpus=$exp/corpus
tuned=("$exp/labelled" --preset minutes --tokenizer "phones:$exp/lexicon.txt"
    --set "train.seed=$seed" --set "train.steps=$steps")

# Each of two trainings beside each other has one core.
first_and_second() {
    OMP_NUM_THREADS=1 speechssl finetune "${tuned[@]}" --init-from none \
        --unlabelled "$exp/unlabelled" --lm "$exp/text.arpa" --run "$exp/second"
}

pretrained() {
    OMP_NUM_THREADS=1 speechssl pretrain "$exp/unlabelled" --preset minutes --run "$exp/encoder" \
        --set task=hidden_units --set batch.seconds=30 --set "train.seed=$seed" --set "train.steps=$pretrain_steps"
    OMP_NUM_THREADS=1 speechssl finetune "${tuned[@]}" --init-from "$exp/encoder" --run "$exp/pretrained"
    OMP_NUM_THREADS=1 speechssl tune-lm "$exp/pretrained" "$exp/text.arpa" "$exp/labelled"
}

if stage 1 "make the corpus"; then
    python "$recipe/prepare.py" "$corpus" --seed "$seed" --jobs "$jobs" \
        --unlabelled-minutes "$unlabelled_minutes" --labelled-minutes "$minutes" --sentences "$sentences" >&2
fi

if stage 2 "prepare the stores"; then
    speechssl prepare "$corpus/unlabelled" "$exp/unlabelled" --jobs "$jobs" >&2
    speechssl prepare "$corpus/labelled" "$exp/labelled" --jobs "$jobs" >&2
fi

if stage 3 "a language model of general text, and how espeak-ng says its words"; then
    speechssl lm "$corpus/text.txt" --out "$exp/text.arpa" --force >&2
    speechssl lexicon make "$corpus/text.txt" --from espeak-ng:en-us --out "$exp/lexicon.txt" --force >&2
fi

if stage 4 "train a first and a second recogniser; beside them, pretrain and fine-tune"; then
    pretrained >"$exp/pretrained.log" 2>&1 &
    first_and_second >&2
    wait $! || { cat "$exp/pretrained.log" >&2; exit 1; }
    cat "$exp/pretrained.log" >&2
fi

systems=("$exp/second" "$exp/second-first" "$exp/pretrained")

if stage 5 "measure on unseen voices"; then
    each speechssl evaluate {} "$exp/labelled" --split test --out {}/test --force
fi

if stage 6 "tables"; then
    first=("5 labelled minutes=$exp/second-first/test/lm")
    echo "self-training:"
    speechssl compare "5 labelled minutes + what it heard=$exp/second/test/lm" "${first[@]}"
    echo "pretraining, beside the same labelled updates without it:"
    speechssl compare "pretrained + 5 labelled minutes=$exp/pretrained/test/lm" "${first[@]}"
fi

if stage 7 "transcribe a sentence of some test voices"; then
    while IFS=, read -r file text; do
        echo "said:  $text"
        echo "heard: $(speechssl transcribe "$exp/second" "$corpus/labelled/$file")"
    done < <(awk -F, '$4 == "test" && !seen[$3]++ && n++ < 4 { print $1 "," $2 }' "$corpus/labelled/metadata.csv")
fi
