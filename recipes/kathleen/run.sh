#!/usr/bin/env bash
# Real speech: a recogniser of few transcripts teaches an encoder what it hears in the rest, and starts again from there.
#
#     bash recipes/kathleen/run.sh --data FOLDER [--exp exp/kathleen] [--stage N --stop-stage M]
#
# FOLDER holds kathleen/ with metadata.csv; its transcripts beyond the chosen minutes are not read in the first round.
# Pretraining hears the train split alone. Three systems get the same labels and fine-tuning: pretrained, scratch, frozen.

. "$(dirname "$0")/../common.sh"
option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option pretrain_steps 2700 "updates of pretraining, 20 seconds each"
option few_minutes 10 "labelled minutes of the small subset"
option few_steps 3200 "updates of each fine-tuning on the small subset"
option all_steps 6400 "updates of each fine-tuning on all labels"
parse_options "$@"
store=$exp/store

# three_systems NAME STEPS [OPTION...]: with the same labels and the same number of updates.
three_systems() {
    local runs=$exp/$1 common=("$store" --preset tiny --set "train.seed=$seed" --set "train.steps=$2" "${@:3}")
    speechssl finetune "${common[@]}" --init-from none --run "$runs/scratch" >&2
    speechssl finetune "${common[@]}" --init-from none --freeze-encoder --run "$runs/frozen" >&2
    # What it hears, grouped into units, is what an encoder learns that starts from its weights (docs/log.md 22).
    speechssl pretrain "$store" --split train --init-from "$runs/scratch" --run "$runs/pretrained" \
        --set task=units --set "units.teacher=$runs/scratch" --set mask.prob=0.5 --set batch.seconds=20 \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
    speechssl finetune "${common[@]}" --init-from "$runs/pretrained" --run "$runs/finetuned" >&2
}

if stage 1 "prepare the store"; then
    speechssl prepare "$data/kathleen" "$store" --jobs "$jobs" >&2
fi

if stage 2 "$few_minutes minutes of labels: from scratch, frozen, pretrained"; then
    three_systems few "$few_steps" --minutes "$few_minutes"
fi

if stage 3 "the same with all labels"; then
    three_systems all "$all_steps"
fi

if stage 4 "measure on the test split"; then
    for name in few all; do
        for system in finetuned scratch frozen; do
            speechssl evaluate "$exp/$name/$system" "$store" --split test --out "$exp/$name/$system/test" >&2
        done
    done
fi

if stage 5 "tables"; then
    for name in few all; do
        if [[ $name == few ]]; then echo "$few_minutes minutes of labels:"; else echo "all labels:"; fi
        speechssl compare "pretrained + fine-tuned=$exp/$name/finetuned/test" "from scratch=$exp/$name/scratch/test" \
            "frozen random encoder=$exp/$name/frozen/test"
    done
fi
