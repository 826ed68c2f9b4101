"""What a normaliser keeps of the characters and words of CLDR's largest languages.

    python tools/cldr_words.py /usr/share/unicode/cldr/common basic-2

The folder is that of the Debian package unicode-cldr-core. It prints the exemplar characters that
do not stay as they are, and the words that are cut or vanish: names of languages, territories,
months and days.
"""

import re
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from speechssl.text.normalise import NORMALISERS, normalise

NUM_LANGUAGES = 100
WORD_PATHS = (
    "localeDisplayNames/languages/language",
    "localeDisplayNames/territories/territory",
    "dates/calendars/calendar[@type='gregorian']/months/monthContext/monthWidth/month",
    "dates/calendars/calendar[@type='gregorian']/days/dayContext/dayWidth/day",
)
AROUND_WORDS = "()[],.;!?–-—،、（）"
# A word with one of these is two words, a number or an abbreviation.
INSIDE_OTHERS = re.compile(r"[-‐–—./,()&（）；;・＝॰\u200b\d]")


def main() -> None:
    folder = Path(sys.argv[1])
    name = sys.argv[2]
    languages = largest_languages(folder)

    changed: list[str] = []
    cut: list[str] = []
    num_characters = 0
    num_words = 0

    for language in languages:
        tree = ElementTree.parse(folder / "main" / f"{language}.xml").getroot()  # noqa: S314
        tagged = f"{name}:{language}"
        normaliser = tagged if tagged in NORMALISERS else name

        for character in sorted(exemplar_characters(tree)):
            num_characters += 1
            if not is_kept(character, normaliser):
                changed.append(f"{language} {character!a}")

        for word in sorted(words(tree)):
            num_words += 1
            if len(normalise(word, normaliser).split()) != 1:
                cut.append(f"{language} {word}")

    print(f"{name}: {len(languages)} languages")
    print(f"{len(changed)} of {num_characters} characters do not stay: {', '.join(changed)}")
    print(f"{len(cut)} of {num_words} words are cut or vanish: {', '.join(cut)}")


def largest_languages(folder: Path) -> list[str]:
    """Languages with the most speakers that CLDR has data of."""
    data = ElementTree.parse(folder / "supplemental" / "supplementalData.xml")  # noqa: S314
    speakers: Counter[str] = Counter()
    for territory in data.iter("territory"):
        for group in territory.findall("languagePopulation"):
            share = float(group.get("populationPercent", 0)) / 100
            speakers[group.get("type", "")] += share * float(territory.get("population", 0))

    known = {path.stem for path in (folder / "main").glob("*.xml")}
    return [language for language, _ in speakers.most_common() if language in known][:NUM_LANGUAGES]


def exemplar_characters(tree: ElementTree.Element) -> set[str]:
    """Characters and clusters of the main set, which is a class of regular expressions."""
    found: set[str] = set()
    for entry in tree.iter("exemplarCharacters"):
        if entry.get("type") is not None or not entry.text:
            continue

        text = re.sub(
            r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), entry.text.strip()[1:-1]
        )
        for item in re.findall(r"\{[^}]*\}|\\?\S-\\?\S|\\?\S", text):
            if item.startswith("{"):
                found.add(item[1:-1])
            elif "-" in item[1:]:
                first, last = item.replace("\\", "").split("-", 1)
                found.update(map(chr, range(ord(first), ord(last) + 1)))
            else:
                found.add(item[-1])
    return found


def is_kept(character: str, normaliser: str) -> bool:
    """Whether a character stays between two letters of its kind, apostrophes as apostrophes."""
    letter = "\u0d15" if unicodedata.category(character[0])[0] == "M" else "a"
    word = f"{letter}{character}{letter}"
    expected = unicodedata.normalize("NFC", word).translate(dict.fromkeys(map(ord, "’‘ʼ"), "'"))
    return normalise(word, normaliser) == expected


def words(tree: ElementTree.Element) -> set[str]:
    """Single words among the names of a language's file."""
    found: set[str] = set()
    for path in WORD_PATHS:
        for entry in tree.findall(path):
            for word in (entry.text or "").split():
                bare = word.strip(AROUND_WORDS)
                if bare and not INSIDE_OTHERS.search(bare):
                    found.add(bare)
    return found


if __name__ == "__main__":
    main()
