#!/usr/bin/env bash
# Real speech in German: one speaker, ten labelled minutes and all of them.
#
#     bash recipes/kerstin/run.sh --data FOLDER --text FILE [--words FILE] [--exp exp/kerstin] [--stage N --stop-stage M]
#
# FOLDER holds kerstin/ with metadata.csv (file_name, transcription, speaker, split): rhasspy's recordings of one speaker,
# CC0, 1374 files, split so that no sentence is on two sides. --text takes a file of general text, a sentence a line. The
# lexicon comes from espeak-ng (the extra espeak). --words takes a word list such as Debian's wngerman, since many of her words
# are not in old books. ../speaker.sh says what is trained and measured.

. "$(dirname "$0")/../speaker.sh"
option lexicon espeak-ng:de "pronunciations: a lexicon, or espeak-ng:LANGUAGE"
option voices de "of espeak-ng, which read --text"
parse_options "$@"

speaker_stages kerstin
