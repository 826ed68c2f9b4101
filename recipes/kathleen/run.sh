#!/usr/bin/env bash
# Real speech: a recogniser of few transcripts names units in the rest, an encoder learns them and starts again; at last
# it writes down what it hears in the rest and learns from that too.
#
#     bash recipes/kathleen/run.sh --data FOLDER [--exp exp/kathleen] [--stage N --stop-stage M]
#
# FOLDER holds kathleen/ with metadata.csv (file_name, transcription, speaker, split): rhasspy's recordings of one speaker,
# CC0, 1620 files, split so that no sentence is on two sides. Pretraining hears the audio of its train split; the systems
# are trained on transcripts of the chosen minutes alone, the language model on those of the train split. What pretraining
# gives is the row "pretrained" beside "longer from scratch": one schedule of as many labelled updates as all its rounds.
# Both are self-trained alike, with the help of a language model of their labelled minutes and of no other text. With
# --lexicon LEXICON, such as CMUdict, the last stages train a GMM-HMM on the same minutes; --text FILE gives it a language
# model of general text too.

. "$(dirname "$0")/../speaker.sh"
option lexicon "" "pronunciations: a lexicon such as CMUdict, or espeak-ng:LANGUAGE"
option preset tiny "preset of all systems"
option few_steps 3200 "updates from random weights on the small subset, and of the frozen encoder's head"
option all_steps 6400 "the same on all labels"
option rounds 2 "of pretraining, each on units of the recogniser before it"
option pretrain_steps 3000 "updates of each, 20 seconds each"
option again_steps 1600 "updates of fine-tuning after each"
option self_steps 3200 "updates of self-training, on the labelled minutes and on what was heard in the rest"
parse_options "$@"
whole rounds few_steps all_steps again_steps
store=$exp/store

# systems NAME STEPS [OPTION...]: all with the same labels.
systems() {
    local runs=$exp/$1 before=$exp/$1/scratch round
    local common=("$store" --preset "$preset" --set "train.seed=$seed" "${@:3}")
    speechssl finetune "${common[@]}" --set "train.steps=$2" --init-from none --run "$runs/scratch" >&2
    speechssl finetune "${common[@]}" --set "train.steps=$2" --init-from none --freeze-encoder --run "$runs/frozen" >&2
    speechssl finetune "${common[@]}" --set "train.steps=$(($2 + rounds * again_steps))" --init-from none \
        --run "$runs/longer" >&2
    for ((round = 1; round <= rounds; round++)); do
        speechssl pretrain "$store" --split train --preset "$preset" --init-from "$before" \
            --run "$runs/pretrained-$round" \
            --set task=hidden_units --set "hidden_units.teacher=$before" --set mask.prob=0.5 --set batch.seconds=20 \
            --set "train.seed=$seed" --set "train.steps=$pretrain_steps" >&2
        speechssl finetune "${common[@]}" --set "train.steps=$again_steps" --set optim.lr=7e-4 \
            --init-from "$runs/pretrained-$round" --run "$runs/finetuned-$round" >&2
        before=$runs/finetuned-$round
    done
}

if stage 1 "prepare the store"; then
    prepare_store kathleen
fi

if stage 2 "train on $few_minutes minutes of labels"; then
    systems few "$few_steps" --minutes "$few_minutes"
fi

if stage 3 "train on all labels"; then
    systems all "$all_steps"
fi

if stage 4 "learn from what is heard in the audio without labels"; then
    for system in "finetuned-$rounds" longer; do
        run=$exp/few/$system
        speechssl lm "$run/texts.txt" --out "$run/texts.arpa" >&2
        rm -rf "$run/teacher"
        cp -r "$run/model" "$run/teacher"
        rm -rf "$run/teacher/lm"  # stage 5's, which knows what is to be labelled
        speechssl tune-lm "$run/teacher" "$run/texts.arpa" "$store" >&2
        speechssl label "$run/teacher" "$store" --out "$run/labels.jsonl" >&2
        speechssl finetune "$store" --preset "$preset" --minutes "$few_minutes" --set "train.seed=$seed" \
            --set "train.steps=$self_steps" --set optim.lr=7e-4 --init-from "$run" --labels "$run/labels.jsonl" \
            --run "$run-self" >&2
    done
fi

few=$exp/few all=$exp/all
runs=("$few/finetuned-$rounds-self" "$few/longer-self")
for name in few all; do runs+=("$exp/$name/finetuned-$rounds" "$exp/$name/longer"); done

if stage 5 "a language model of the train split's transcripts, its weights found on dev"; then
    speechssl lm "$store" --out "$exp/lm.arpa" >&2
    for run in "${runs[@]}"; do
        rm -rf "$run/model/lm"
        speechssl tune-lm "$run" "$exp/lm.arpa" "$store" >&2
    done
fi

if stage 6 "measure on the test split"; then
    for run in "${runs[@]}" "$exp"/{few,all}/{scratch,frozen}; do
        speechssl evaluate "$run" "$store" --split test --out "$run/test" >&2
    done
fi

if stage 7 "tables"; then
    self=("pretrained, self-trained=$few/finetuned-$rounds-self/test" "longer, self-trained=$few/longer-self/test")
    for home in "$few" "$all"; do
        if [[ $home == "$all" ]]; then self=(); echo "all labels:"; else echo "$few_minutes minutes of labels:"; fi
        trained=("pretrained + fine-tuned=$home/finetuned-$rounds/test" "longer from scratch=$home/longer/test")
        speechssl compare ${self[@]+"${self[@]}"} "${trained[@]}" "from scratch=$home/scratch/test" \
            "frozen random encoder=$home/frozen/test"
        compare_tuned ${self[@]+"${self[@]}"} "${trained[@]}"
    done
fi

if stage 8 "language models, and a lexicon of their words"; then
    text_and_lexicon
fi

if stage 9 "a GMM-HMM of the same minutes"; then
    peer kathleen
fi

if stage 10 "tables by language model"; then
    compare_all
fi
