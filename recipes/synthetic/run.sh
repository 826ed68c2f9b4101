#!/usr/bin/env bash
# The whole pipeline on synthetic speech, to a table of word error rates. Needs no data; takes minutes on 2 cores.
#
#     bash recipes/synthetic/run.sh --exp exp/synthetic [--stage N --stop-stage M]
#
# A recogniser from scratch names units in the unlabelled part; an encoder that starts from its weights learns them and is
# fine-tuned; in a second round that recogniser names them, better. "Fine-tuned as often" has the same updates on the same
# labels, and no pretraining between: the two rows differ by what pretraining gives. The voices and sentences of the test
# set occur nowhere else.

. "$(dirname "$0")/../common.sh"
recipe=$(dirname "$0")
option seed 0 "of corpus, weights and order"
option jobs 2 "processes for making and preparing audio"
option rounds 2 "of pretraining, each on units of the recogniser before it"
option pretrain_steps 600 "updates of each"
option between_steps 300 "updates of fine-tuning between two rounds"
option finetune_steps 500 "updates of fine-tuning from random weights, and of the last one"
option unlabelled_minutes 90 "minutes without labels"
option minutes 5 "labelled minutes"
parse_options "$@"
whole rounds
corpus=$exp/corpus
# So few updates are too few for changed inputs and two outputs a frame to pay (docs/experiments/020).
tuned=("$exp/labelled" --preset tiny --set "train.seed=$seed"
    --set ctc.tokens_per_frame=1 --set ctc.augment.tempo=0 --set ctc.augment.mel_masks=0)

# again ROUND INIT RUN: fine-tune once more; the mel axis is stretched, for other voices (docs/experiments/024).
again() {
    local steps=$between_steps
    if (($1 == rounds)); then steps=$finetune_steps; fi
    speechssl finetune "${tuned[@]}" --set "train.steps=$steps" --set optim.lr=7e-4 \
        --set ctc.augment.mel_stretch=0.15 --init-from "$2" --run "$3" >&2
}

if stage 1 "make the corpus"; then
    python "$recipe/prepare.py" "$corpus" --seed "$seed" --jobs "$jobs" \
        --unlabelled-minutes "$unlabelled_minutes" --labelled-minutes "$minutes" >&2
fi

if stage 2 "prepare the stores"; then
    speechssl prepare "$corpus/unlabelled" "$exp/unlabelled" --jobs "$jobs" >&2
    speechssl prepare "$corpus/labelled" "$exp/labelled" --jobs "$jobs" >&2
fi

if stage 3 "train on the labelled part, from random weights"; then
    first=("${tuned[@]}" --set "train.steps=$finetune_steps" --init-from none)
    speechssl finetune "${first[@]}" --run "$exp/scratch" >&2
    speechssl finetune "${first[@]}" --freeze-encoder --run "$exp/frozen" >&2
fi

if stage 4 "pretrain on the unlabelled part, on units of what a recogniser hears, and fine-tune"; then
    before=$exp/scratch
    for ((round = 1; round <= rounds; round++)); do
        speechssl pretrain "$exp/unlabelled" --preset tiny --init-from "$before" --run "$exp/pretrained-$round" \
            --set task=hidden_units --set "hidden_units.teacher=$before" --set mask.prob=0.5 --set batch.seconds=20 \
            --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
        again "$round" "$exp/pretrained-$round" "$exp/finetuned-$round"
        before=$exp/finetuned-$round
    done
fi

if stage 5 "fine-tune as often, without pretraining"; then
    before=$exp/scratch
    for ((round = 1; round <= rounds; round++)); do
        again "$round" "$before" "$exp/again-$round"
        before=$exp/again-$round
    done
fi

systems=("$exp/finetuned-$rounds" "$exp/again-$rounds" "$exp/scratch")

if stage 6 "a language model of the labelled part's transcripts, its weights found on dev"; then
    speechssl lm "$exp/scratch/texts.txt" --out "$exp/lm.arpa" >&2
    if python -c "import flashlight.lib.text" 2>/dev/null; then
        each speechssl tune-lm {} "$exp/lm.arpa" "$exp/labelled"
    else
        log "without flashlight-text this takes an hour: greedy decoding only"
    fi
fi

if stage 7 "measure on unseen voices"; then
    systems+=("$exp/frozen")
    each speechssl evaluate {} "$exp/labelled" --split test --out {}/test
fi

if stage 8 "tables"; then
    rows=("pretrained + fine-tuned=$exp/finetuned-$rounds/test" "fine-tuned as often=$exp/again-$rounds/test"
        "from scratch=$exp/scratch/test")
    speechssl compare "${rows[@]}" "frozen random encoder=$exp/frozen/test"
    compare_tuned "${rows[@]}"
fi
