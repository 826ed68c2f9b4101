#!/usr/bin/env bash
# LibriSpeech: pretrain on the 960 hours, fine-tune on train-clean-100 or a part of it, measure on the four test sets.
#
#     bash recipes/librispeech/run.sh --data LibriSpeech [--exp exp/librispeech] [--preset base] [--minutes 60]
#
# FOLDER is the extracted tree: train-clean-100/, train-clean-360/, train-other-500/, dev-clean/, test-clean/, ...
# What is missing of it is left out and said so; train-clean-100 and dev-clean must be there.

. "$(dirname "$0")/../common.sh"
option seed 0 "of weights, order and the choice of labelled minutes"
option jobs 2 "processes for preparing audio"
option preset small "tiny, small, base or large"
option features "" "what the preset's encoder reads: logmel or waveform; empty = waveform of base and large, else logmel"
option pretrain_steps "" "updates of pretraining; empty = the preset's"
option finetune_steps "" "updates of fine-tuning; empty = the preset's"
option minutes "" "labelled minutes to use; empty = all of train-clean-100"
parse_options "$@"
if [[ -z $features ]]; then
    case $preset in base | large) features=waveform ;; *) features=logmel ;; esac
fi
common=(--preset "$preset" --set "train.seed=$seed")
present=()
for part in train-clean-100 train-clean-360 train-other-500; do
    if [[ -d $data/$part ]]; then present+=("$part"); else log "$part is not in $data: left out"; fi
done
tests=()
for part in dev-clean dev-other test-clean test-other; do
    if [[ -d $data/$part ]]; then tests+=("$part"); else log "$part is not in $data: left out"; fi
done
for part in train-clean-100 dev-clean; do
    if [[ ! -d $data/$part ]]; then wrong_usage "--data $data has no $part"; fi
done

if stage 1 "prepare a store of each part"; then
    for part in "${present[@]}" "${tests[@]}"; do
        speechssl prepare "$data/$part" "$exp/stores/$part" --features "$features" --jobs "$jobs" >&2
    done
fi

if stage 2 "pretrain on ${present[*]}"; then
    stores=()
    for part in "${present[@]}"; do stores+=("$exp/stores/$part"); done
    speechssl pretrain "${stores[@]}" "${common[@]}" --run "$exp/pretrained" \
        ${pretrain_steps:+--set "train.steps=$pretrain_steps"} >&2
fi

# Labels come from train-clean-100 alone; dev-clean chooses the model.
if stage 3 "fine-tune on train-clean-100"; then
    speechssl finetune "$exp/stores/train-clean-100" "$exp/stores/dev-clean" "${common[@]}" \
        --init-from "$exp/pretrained" --run "$exp/finetuned" \
        ${minutes:+--minutes "$minutes"} ${finetune_steps:+--set "train.steps=$finetune_steps"} >&2
fi

if stage 4 "measure"; then
    for part in "${tests[@]}"; do
        speechssl evaluate "$exp/finetuned" "$exp/stores/$part" --split "${part%%-*}" --out "$exp/scores/$part" >&2
    done
    scores=()
    for part in "${tests[@]}"; do scores+=("$exp/scores/$part"); done
    speechssl compare "${scores[@]}"
fi
