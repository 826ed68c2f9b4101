#!/usr/bin/env bash
# Strings of spoken digits by a speaker that no training heard: few labels, with pretraining and without.
#
#     bash recipes/digits/run.sh --data FOLDER [--exp exp/digits] [--stage N --stop-stage M]
#
# FOLDER holds digits/ with metadata.csv (file_name, transcription, speaker, split): the Free Spoken Digit Dataset, CC BY-SA
# 4.0, 6 speakers, of whom one is dev and one is test. Pretraining hears the strings of the training speakers, and starts
# from the recogniser from scratch, which names the units. "Fine-tuned twice" has the same labelled updates and no
# pretraining.

. "$(dirname "$0")/../common.sh"
recipe=$(dirname "$0")
option seed 0 "of strings, weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option minutes 5 "labelled minutes"
option steps 1000 "updates from random weights, and of the frozen encoder's head"
option pretrain_steps 800 "updates of pretraining"
option again_steps 500 "updates of the second fine-tuning"
option preset tiny "preset of all systems"
parse_options "$@"
tuned=("$exp/store" --preset "$preset" --minutes "$minutes" --set "train.seed=$seed")
first=(--set "train.steps=$steps")
again=(--set "train.steps=$again_steps" --set optim.lr=7e-4)

if stage 1 "join digits to strings"; then
    python "$recipe/prepare.py" "$data/digits" "$exp/strings" --seed "$seed" >&2
fi

if stage 2 "prepare the store"; then
    speechssl prepare "$exp/strings" "$exp/store" --jobs "$jobs" >&2
fi

if stage 3 "train on $minutes minutes"; then
    speechssl finetune "${tuned[@]}" "${first[@]}" --init-from none --run "$exp/scratch" >&2
    speechssl finetune "${tuned[@]}" "${first[@]}" --init-from none --freeze-encoder --run "$exp/frozen" >&2
fi

if stage 4 "pretrain, and fine-tune again with it and without"; then
    speechssl pretrain "$exp/store" --split train --preset "$preset" --init-from "$exp/scratch" --run "$exp/pretrained" \
        --set task=hidden_units --set "hidden_units.teacher=$exp/scratch" --set mask.prob=0.5 --set batch.seconds=20 \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
    speechssl finetune "${tuned[@]}" "${again[@]}" --init-from "$exp/pretrained" --run "$exp/finetuned" >&2
    speechssl finetune "${tuned[@]}" "${again[@]}" --init-from "$exp/scratch" --run "$exp/twice" >&2
fi

if stage 5 "measure on the unseen speaker"; then
    for system in finetuned twice scratch frozen; do
        speechssl evaluate "$exp/$system" "$exp/store" --split test --out "$exp/$system/test" >&2
    done
fi

if stage 6 "table"; then
    speechssl compare "pretrained + fine-tuned=$exp/finetuned/test" "fine-tuned twice=$exp/twice/test" \
        "from scratch=$exp/scratch/test" "frozen random encoder=$exp/frozen/test"
fi
