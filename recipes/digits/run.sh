#!/usr/bin/env bash
# Strings of spoken digits by a speaker that no training heard: few labels, three systems.
#
#     bash recipes/digits/run.sh --data FOLDER [--pretrained RUN] [--exp exp/digits] [--stage N --stop-stage M]
#
# FOLDER is that of recipes/kathleen. The encoder is the one that recipe pretrained (--pretrained), which heard the train
# split of these digits one by one and without labels.

. "$(dirname "$0")/../common.sh"
recipe=$(dirname "$0")
option pretrained exp/kathleen/pretrained "run folder of pretraining"
option seed 0 "of strings, weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option minutes 5 "labelled minutes"
option steps 1600 "updates of each fine-tuning"
option preset tiny "preset of all three systems"
parse_options "$@"
tuned=("$exp/store" --preset "$preset" --minutes "$minutes" --set "train.seed=$seed" --set "train.steps=$steps")

if stage 1 "join digits to strings"; then
    python "$recipe/prepare.py" "$data/digits" "$exp/strings" --seed "$seed" >&2
fi

if stage 2 "prepare the store"; then
    speechssl prepare "$exp/strings" "$exp/store" --jobs "$jobs" >&2
fi

if stage 3 "train three recognisers on $minutes minutes"; then
    speechssl finetune "${tuned[@]}" --init-from "$pretrained" --run "$exp/finetuned" >&2
    speechssl finetune "${tuned[@]}" --init-from none --run "$exp/scratch" >&2
    speechssl finetune "${tuned[@]}" --init-from none --freeze-encoder --run "$exp/frozen" >&2
fi

if stage 4 "measure on the unseen speaker"; then
    for system in finetuned scratch frozen; do
        speechssl evaluate "$exp/$system" "$exp/store" --split test --out "$exp/$system/test" >&2
    done
fi

if stage 5 "table"; then
    speechssl compare "pretrained + fine-tuned=$exp/finetuned/test" "from scratch=$exp/scratch/test" \
        "frozen random encoder=$exp/frozen/test"
fi
