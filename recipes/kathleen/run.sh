#!/usr/bin/env bash
# Real speech: a recogniser of few transcripts names units in the rest, an encoder learns them and starts again.
#
#     bash recipes/kathleen/run.sh --data FOLDER [--exp exp/kathleen] [--stage N --stop-stage M]
#
# FOLDER holds kathleen/ with metadata.csv. Pretraining hears the audio of its train split; in stage 2 transcripts are
# read of the chosen minutes and of dev alone. What pretraining gives is the row "pretrained" beside "twice": both start from the recogniser
# from scratch and get the same labels and updates, the one with pretraining between, the other without.

. "$(dirname "$0")/../common.sh"
option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option pretrain_steps 3000 "updates of pretraining, 20 seconds each"
option few_minutes 10 "labelled minutes of the small subset"
option few_steps 3200 "updates from random weights on the small subset, and of the frozen encoder's head"
option all_steps 6400 "the same on all labels"
option again_steps 1600 "updates of the second fine-tuning"
parse_options "$@"
store=$exp/store

# systems NAME STEPS [OPTION...]: all with the same labels.
systems() {
    local runs=$exp/$1 first=("--set" "train.steps=$2") again=("--set" "train.steps=$again_steps" "--set" optim.lr=7e-4)
    local common=("$store" --preset tiny --set "train.seed=$seed" "${@:3}")
    speechssl finetune "${common[@]}" "${first[@]}" --init-from none --run "$runs/scratch" >&2
    speechssl finetune "${common[@]}" "${first[@]}" --init-from none --freeze-encoder --run "$runs/frozen" >&2
    speechssl finetune "${common[@]}" "${again[@]}" --init-from "$runs/scratch" --run "$runs/twice" >&2
    speechssl pretrain "$store" --split train --init-from "$runs/scratch" --run "$runs/pretrained" \
        --set task=units --set "units.teacher=$runs/scratch" --set mask.prob=0.5 --set batch.seconds=20 \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
    speechssl finetune "${common[@]}" "${again[@]}" --init-from "$runs/pretrained" --run "$runs/finetuned" >&2
}

if stage 1 "prepare the store"; then
    speechssl prepare "$data/kathleen" "$store" --jobs "$jobs" >&2
fi

if stage 2 "train on $few_minutes minutes of labels"; then
    systems few "$few_steps" --minutes "$few_minutes"
fi

if stage 3 "train on all labels"; then
    systems all "$all_steps"
fi

if stage 4 "measure on the test split"; then
    for name in few all; do
        for system in finetuned twice scratch frozen; do
            speechssl evaluate "$exp/$name/$system" "$store" --split test --out "$exp/$name/$system/test" >&2
        done
    done
fi

if stage 5 "tables"; then
    for name in few all; do
        if [[ $name == few ]]; then echo "$few_minutes minutes of labels:"; else echo "all labels:"; fi
        speechssl compare "pretrained + fine-tuned=$exp/$name/finetuned/test" \
            "fine-tuned twice=$exp/$name/twice/test" "from scratch=$exp/$name/scratch/test" \
            "frozen random encoder=$exp/$name/frozen/test"
    done
fi
