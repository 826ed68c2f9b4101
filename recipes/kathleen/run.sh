#!/usr/bin/env bash
# Real speech: pretrain on all recordings without their test splits, fine-tune on one speaker's transcripts.
#
#     bash recipes/kathleen/run.sh --data FOLDER [--exp exp/kathleen] [--stage N --stop-stage M]
#
# FOLDER holds kathleen/, speechocean/, digits/ (each with metadata.csv), librispeech/, coffee_commands/ and wake_words/.
# Transcripts are used of kathleen only; of the others, and of its train split, pretraining hears the audio alone.

. "$(dirname "$0")/../common.sh"
option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option min_chunk 1 "shortest chunk of unlabelled audio, seconds: many recordings hold a single word"
option pretrain_steps 3600 "updates of pretraining"
option few_minutes 10 "labelled minutes of the small subset"
option few_steps 1600 "updates of each fine-tuning on the small subset"
option all_steps 3000 "updates of each fine-tuning on all labels"
parse_options "$@"
corpora=(kathleen speechocean digits librispeech coffee_commands wake_words)
stores=("${corpora[@]/#/$exp/stores/}")

if stage 1 "prepare the stores"; then
    for corpus in "${corpora[@]}"; do
        log "$corpus"
        speechssl prepare "$data/$corpus" "$exp/stores/$corpus" --min-chunk "$min_chunk" --jobs "$jobs" >&2
    done
fi

if stage 2 "pretrain on every train split"; then
    speechssl pretrain "${stores[@]}" --preset tiny --run "$exp/pretrained" --split train \
        --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
fi

# fine_tune NAME STEPS [OPTION...]: the three systems with the same labels and the same number of updates.
fine_tune() {
    local name=$1 steps=$2
    shift 2
    local common=("$exp/stores/kathleen" --preset tiny --set "train.seed=$seed" --set "train.steps=$steps" "$@")
    speechssl finetune "${common[@]}" --init-from "$exp/pretrained" --run "$exp/$name/finetuned" >&2
    speechssl finetune "${common[@]}" --init-from none --run "$exp/$name/scratch" >&2
    speechssl finetune "${common[@]}" --init-from none --freeze-encoder --run "$exp/$name/frozen" >&2
}

if stage 3 "train three recognisers on $few_minutes minutes"; then
    fine_tune few "$few_steps" --minutes "$few_minutes"
fi

if stage 4 "train three recognisers on all labels"; then
    fine_tune all "$all_steps"
fi

if stage 5 "measure on the test split"; then
    for name in few all; do
        for system in finetuned scratch frozen; do
            speechssl evaluate "$exp/$name/$system" "$exp/stores/kathleen" --split test \
                --out "$exp/$name/$system/test" >&2
        done
    done
fi

if stage 6 "tables"; then
    for name in few all; do
        if [[ $name == few ]]; then echo "$few_minutes minutes of labels:"; else echo "all labels:"; fi
        speechssl compare "pretrained + fine-tuned=$exp/$name/finetuned/test" "from scratch=$exp/$name/scratch/test" \
            "frozen random encoder=$exp/$name/frozen/test"
    done
fi
