#!/usr/bin/env bash
# ufal-flashlight-text 0.0.7.1 (LexiconDecoder, CTC, no language model)
#
# A lexicon without a separator between words: the word "w" is spelled "p q". Four frames are sure of one path each.
#
#     path p p q blank  ->  score 0: the first token may last for two frames
#     path p p q q      ->  score -20: the last token of a word may not. By CTC's rule both paths say "p q",
#                           and the second should have score 0 as well.
#
# A recogniser whose last sounds are long loses whole words by this, and gets no message. With a separator at the end of
# each spelling the separator takes the place of the last token, and may last.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ufal-flashlight-text==0.0.7.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from flashlight.lib.text.decoder import (
    CriterionType,
    LexiconDecoder,
    LexiconDecoderOptions,
    SmearingMode,
    Trie,
    ZeroLM,
)

BLANK, P, Q, SEPARATOR = 0, 1, 2, 3  # no spelling holds the separator
SURE = -20.0  # natural logarithm of the probability of every token but the one of the path

lm = ZeroLM()
start = lm.start(False)
trie = Trie(4, BLANK)
trie.insert([P, Q], 0, 0.0)
trie.smear(SmearingMode.MAX)
options = LexiconDecoderOptions(
    beam_size=100,
    beam_size_token=4,
    beam_threshold=1000.0,
    lm_weight=0.0,
    word_score=0.0,
    unk_score=float("-inf"),
    sil_score=0.0,
    log_add=False,
    criterion_type=CriterionType.CTC,
)
decoder = LexiconDecoder(options, trie, lm, SEPARATOR, BLANK, 1, [], False)


def best_score(path: list[int]) -> float:
    frames = np.full((len(path), 4), SURE, dtype=np.float32)
    frames[range(len(path)), path] = 0.0
    results = decoder.decode(frames.ctypes.data, len(path), 4)
    with_the_word = [result for result in results if 0 in list(result.words)]
    return with_the_word[0].score


first_lasts = best_score([P, P, Q, BLANK])
last_lasts = best_score([P, P, Q, Q])
print(f"first token lasts: {first_lasts:g}; last token lasts: {last_lasts:g}")
assert first_lasts == 0.0, first_lasts
assert last_lasts == SURE, last_lasts
PYTHON
echo "as described"
