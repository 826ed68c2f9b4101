#!/usr/bin/env bash
# pocketsphinx 5.1.1 (Decoder with an ARPA file of order 4, US English model of the wheel)
#
# espeak-ng says "go two two two two". "two" and "too" sound alike, so the language model alone decides between them.
#
#     3-gram file, "two" likely    ->  go two two two two
#     3-gram file, "too" likely    ->  go too too too too
#     4-gram file: by its 3-grams "two" is likely, by its 4-grams "too"   ->  go two two two two
#
# So the decoder reads a file of order 4 without a word and uses none of its 4-grams, though NGramModel.prob, which reads
# the same file, does. What it uses are the 3-grams of the file. In a Kneser-Ney model of order 4 these are estimates for
# backing off, and worse than a 3-gram model's own: whoever compares decoders with one 4-gram measures another model here.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pocketsphinx==5.1.1 espeakng-loader==0.2.4 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import ctypes
from itertools import product

import espeakng_loader
import numpy as np
from pocketsphinx import Decoder, NGramModel

WORDS = ["two", "too", "go"]
USUAL = -0.6  # log10 of what every n-gram has that no example is about
SYNCHRONOUS = 2  # espeak-ng gives samples while it speaks


def speak(text: str) -> bytes:
    """16 kHz int16 samples of a synthetic voice, which has 22,050 a second."""
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    espeak.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    pieces = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count, _events):
        if count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    espeak.espeak_SetSynthCallback(collect)
    espeak.espeak_SetVoiceByName(b"en-us")
    encoded = text.encode()
    espeak.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, 1, None, None)

    spoken = np.concatenate(pieces).astype(float)
    places = np.arange(0, len(spoken) - 1, 22050 / 16000)
    resampled = np.interp(places, np.arange(len(spoken)), spoken)
    pause = np.zeros(3200)
    return np.concatenate([pause, resampled, pause]).astype("<i2").tobytes()


def write_arpa(path: str, last_of_3: dict[str, float], last_of_4: dict[str, float] | None) -> None:
    """A model in which the last word of an n-gram alone decides its probability."""
    by_order = {1: {}, 2: {}, 3: last_of_3}
    if last_of_4 is not None:
        by_order[4] = last_of_4
    highest = max(by_order)

    sections = []
    counts = []
    for order, last in by_order.items():
        if order == 1:
            ngrams = [(word,) for word in ["<s>", *WORDS, "</s>"]]
        else:
            middle = [WORDS] * (order - 2)
            ngrams = list(product(["<s>", *WORDS], *middle, [*WORDS, "</s>"]))
        counts.append(f"ngram {order}={len(ngrams)}")

        lines = [f"\\{order}-grams:"]
        for ngram in ngrams:
            log_prob = -99 if ngram == ("<s>",) else last.get(ngram[-1], USUAL)
            has_backoff = order < highest and ngram[-1] != "</s>"
            lines.append(f"{log_prob}\t{' '.join(ngram)}" + ("\t-0.3" if has_backoff else ""))
        sections.append("\n".join(lines))

    text = "\n".join(["\\data\\", *counts]) + "\n\n" + "\n\n".join(sections) + "\n\n\\end\\\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def recognised(lm: str) -> str:
    decoder = Decoder(lm=lm, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(AUDIO, full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr


AUDIO = speak("go two two two two")
two, too = {"two": -0.1, "too": -3.0}, {"two": -3.0, "too": -0.1}
write_arpa("two-3.arpa", two, None)
write_arpa("too-3.arpa", too, None)
write_arpa("too-4.arpa", two, too)

heard = {name: recognised(f"{name}.arpa") for name in ("two-3", "too-3", "too-4")}
# The words of an n-gram, the last one first.
model = NGramModel.readfile("too-4.arpa")
knows_4_grams = model.prob(["too", "two", "two", "go"]) > model.prob(["two", "two", "two", "go"])
print(f"{heard}; NGramModel prefers too: {knows_4_grams}")

expected = {"two-3": "go two two two two", "too-3": "go too too too too", "too-4": "go two two two two"}
if heard != expected or not knows_4_grams:
    raise SystemExit("this has changed")
print("as described")
PYTHON
