#!/usr/bin/env bash
# phonetisaurus 0.3.0 (its programs align, estimate-ngram, arpa2wfst and g2pfst, on a lexicon in X-SAMPA)
#
# X-SAMPA writes IPA in ASCII: "}:" is the long vowel of Swedish "hus", and "|\" a dental click. In the lexicon of this
# script each letter has one phone, and only the phone of the letter u differs from run to run. For the new word "budabug":
#
#     u is "u"     ->  b u d a b u g
#     u is "}:"    ->  b d a b g         the vowel is gone; on stderr "Symbol: 'u' not found", as if the letter were new
#     u is "}"     ->  b d a b g         the same
#     u is "|\"    ->  b \ d a b \ g
#
# All programs exit with 0. Between them they write pairs such as "u}u", where "}" and "|" have meanings of their own, and a
# phone may hold these characters. So a whole lexicon comes back with phones that no recogniser knows, or with fewer of them.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet phonetisaurus==0.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import platform
import subprocess
from itertools import product
from pathlib import Path

import phonetisaurus

PLACE = Path(phonetisaurus.__file__).parent
MACHINE = platform.machine()
EXPECTED = {
    "u": "b u d a b u g",
    "}:": "b d a b g",
    "}": "b d a b g",
    "|\\": "b \\ d a b \\ g",
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"LD_LIBRARY_PATH": str(PLACE / "lib" / MACHINE), "LC_ALL": "C.UTF-8"}
    command = [str(PLACE / "bin" / MACHINE / program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


words = ["".join(letters) for length in (2, 3, 4) for letters in product("abdgu", repeat=length)]
failed = False
for phone, expected in EXPECTED.items():
    entries = [f"{word}\t{' '.join(phone if one == 'u' else one for one in word)}\n" for word in words]
    Path("lexicon").write_text("".join(entries))
    Path("new").write_text("budabug\n")

    run("phonetisaurus-align", "--input=lexicon", "--ofile=pairs", "--seq1_del=false")
    run("estimate-ngram", "-o", "3", "-t", "pairs", "-wl", "arpa")
    run("phonetisaurus-arpa2wfst", "--lm=arpa", "--ofile=model")
    guessed = run("phonetisaurus-g2pfst", "--model=model", "--wordlist=new")

    said = guessed.stdout.strip().split("\t")[2]
    strange = "not found" in guessed.stderr
    print(f"u is {phone!r}: {said}" + ("  (stderr: a symbol was not found)" if strange else ""))
    failed |= said != expected or strange != phone.startswith("}")

print("changed" if failed else "as described")
raise SystemExit(failed)
PYTHON
