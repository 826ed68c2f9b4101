#!/usr/bin/env bash
# Real speech in German: one speaker, ten labelled minutes and all of them.
#
#     bash recipes/kerstin/run.sh --data FOLDER --text FILE [--exp exp/kerstin] [--stage N --stop-stage M]
#
# FOLDER holds kerstin/ with metadata.csv (file_name, transcription, speaker, split): rhasspy's recordings of one speaker,
# CC0, 1374 files, split so that no sentence is on two sides. FILE has general text, a sentence a line.

. "$(dirname "$0")/../speaker.sh"
option lexicon espeak-ng:de "pronunciations: a lexicon, or espeak-ng:LANGUAGE"
parse_options "$@"

if stage 1 "prepare the store"; then
    prepare_store kerstin
fi

if stage 2 "language models, and a lexicon of their words"; then
    text_and_lexicon
fi

if stage 3 "a GMM-HMM of the same minutes"; then
    peer kerstin
fi

if stage 4 "tables"; then
    compare_all
fi
