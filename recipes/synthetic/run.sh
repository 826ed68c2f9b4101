#!/usr/bin/env bash
# The whole pipeline on synthetic speech, to a table of word error rates. Needs no data; takes minutes on 2 cores.
#
#     bash recipes/synthetic/run.sh --exp exp/synthetic [--stage N --stop-stage M]
#
# A recogniser from scratch names units in the unlabelled part; an encoder that starts from its weights learns them and is
# fine-tuned. "Fine-tuned twice" has the same updates on the same labels, and no pretraining between: the two rows differ
# by what pretraining gives. The voices and sentences of the test set occur nowhere else.

. "$(dirname "$0")/../common.sh"
recipe=$(dirname "$0")
option seed 0 "of corpus, weights and order"
option jobs 2 "processes for making and preparing audio"
option pretrain_steps 800 "updates of pretraining"
option finetune_steps 500 "updates of each fine-tuning"
option unlabelled_minutes 90 "minutes without labels"
option minutes 5 "labelled minutes"
parse_options "$@"
corpus=$exp/corpus
# So few updates are too few for changed inputs and two outputs a frame to pay (docs/log.md 20).
tuned=("$exp/labelled" --preset tiny --set "train.seed=$seed" --set "train.steps=$finetune_steps"
    --set ctc.tokens_per_frame=1 --set ctc.augment.tempo=0 --set ctc.augment.mel_masks=0)
again=(--set optim.lr=7e-4 --set ctc.augment.mel_stretch=0.15)  # other voices: docs/log.md 24

if stage 1 "make the corpus"; then
    python "$recipe/prepare.py" "$corpus" --seed "$seed" --jobs "$jobs" \
        --unlabelled-minutes "$unlabelled_minutes" --labelled-minutes "$minutes" >&2
fi

if stage 2 "prepare the stores"; then
    speechssl prepare "$corpus/unlabelled" "$exp/unlabelled" --jobs "$jobs" >&2
    speechssl prepare "$corpus/labelled" "$exp/labelled" --jobs "$jobs" >&2
fi

if stage 3 "train on the labelled part, from random weights"; then
    speechssl finetune "${tuned[@]}" --init-from none --run "$exp/scratch" >&2
    speechssl finetune "${tuned[@]}" --init-from none --freeze-encoder --run "$exp/frozen" >&2
fi

if stage 4 "pretrain on the unlabelled part, on units of what the recogniser from scratch hears"; then
    speechssl pretrain "$exp/unlabelled" --preset tiny --init-from "$exp/scratch" --run "$exp/pretrained" \
        --set task=units --set "units.teacher=$exp/scratch" --set mask.prob=0.5 --set batch.seconds=20 \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
fi

if stage 5 "fine-tune once more, with pretraining and without"; then
    speechssl finetune "${tuned[@]}" "${again[@]}" --init-from "$exp/pretrained" --run "$exp/finetuned" >&2
    speechssl finetune "${tuned[@]}" "${again[@]}" --init-from "$exp/scratch" --run "$exp/twice" >&2
fi

if stage 6 "measure on unseen voices"; then
    for system in finetuned twice scratch frozen; do
        speechssl evaluate "$exp/$system" "$exp/labelled" --split test --out "$exp/$system/test" >&2
    done
fi

if stage 7 "table"; then
    speechssl compare "pretrained + fine-tuned=$exp/finetuned/test" "fine-tuned twice=$exp/twice/test" \
        "from scratch=$exp/scratch/test" "frozen random encoder=$exp/frozen/test"
fi
