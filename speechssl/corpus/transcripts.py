"""What is no transcript: texts that say nothing, and placeholders; and marks within others."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from speechssl.corpus.manifest import Manifest, Record
from speechssl.text.marks import Marks, named
from speechssl.text.normalise import normalise

# Texts that stand for no transcript where many rows share them, as basic-1 gives them.
_PLACEHOLDER = re.compile(
    "n ?a|nan|nil|none|null|missing|empty|unknown|todo|tb[da]|placeholder"
    "|((no|not) )?(text|transcript|transcription|transcribed)|untranscribed"
)

# Shares of the transcripts, and numbers of them, from which on a text is one that many rows share:
# the smaller ones for what is known as a placeholder.
_SHARE_OF_PLACEHOLDER = 0.05
_LEAST_PLACEHOLDERS = 2
_SHARE_OF_OTHERS = 0.1
_LEAST_OTHERS = 3

# In a corpus of commands or digits, every text is shared. A text may only be a placeholder where
# the other texts mostly occur this often at most.
_FEW = 2

# Letters that a sentence of a script without spaces and without upper case has at least.
_SENTENCE_LETTERS = 4


def says_nothing(text: str | None) -> bool:
    """Whether a transcript is missing, or has no letter and no digit."""
    return text is None or not any(character.isalnum() for character in text)


def is_sentence(words: Iterable[str]) -> bool:
    """Whether these are two words, or one as long as a sentence of a script without spaces."""
    with_letters = words_with_letters(words)
    if len(with_letters) >= 2:
        return True

    letters = [letter for letter in "".join(with_letters) if letter.isalpha()]
    num_without_case = sum(letter.lower() == letter.upper() for letter in letters)
    return num_without_case >= _SENTENCE_LETTERS


def words_with_letters(words: Iterable[str]) -> list[str]:
    """Leave out what is no word: numbers and punctuation."""
    return [word for word in words if any(map(str.isalpha, word))]


def clean_transcripts(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """Take the transcripts away that are none, and the marks of noises out of the others.

    A record whose text is taken away is audio without a transcript.

    Returns:
        the manifest, and lines that say what was done and what to look at.
    """
    marks = Marks()
    nothing: Counter[str] = Counter()

    records: list[Record] = []
    for record in manifest.records:
        text = record.text
        if text is not None:
            text = marks.without_noises(text)
            if says_nothing(text):
                nothing[record.text or ""] += 1
                text = None
        records.append(record if text == record.text else replace(record, text=text))

    placeholders, shared = _shared_texts(record.text for record in records)
    num_labelled = sum(record.text is not None for record in records)
    records = [_without_text_of(record, placeholders) for record in records]
    num_without = sum(record.text is None for record in records)

    lines: list[str] = []
    if nothing:
        lines.append(f"{nothing.total()} transcripts say nothing: {named(nothing)}")
    if placeholders:
        lines.append(
            f"{placeholders.total()} of {num_labelled} transcripts are placeholders: "
            f"{named(placeholders)}"
        )
    if num_without and num_without < len(records):
        lines.append(
            f"{num_without} of {len(records)} recordings or parts are audio without a transcript"
        )
    if shared:
        lines.append(
            f"of {num_labelled} transcripts many are equal: {named(shared)}; if such a text "
            "stands for no transcript, leave it empty"
        )
    lines += marks.lines("transcripts")
    return replace(manifest, records=tuple(records)), lines


def _shared_texts(texts: Iterable[str | None]) -> tuple[Counter[str], Counter[str]]:
    """Find the texts that many rows share where most do not, as basic-1 gives them.

    Returns:
        those that are placeholders, and others, with how often they occur.
    """
    counts = Counter(normalise(text, "basic-1") for text in texts if text is not None)
    num_texts = counts.total()

    placeholders: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for text, count in counts.items():
        if _is_placeholder(text):
            if count >= max(_LEAST_PLACEHOLDERS, _SHARE_OF_PLACEHOLDER * num_texts):
                placeholders[text] = count
        elif count >= max(_LEAST_OTHERS, _SHARE_OF_OTHERS * num_texts):
            shared[text] = count

    rest = counts - placeholders - shared
    num_rare = sum(count for count in rest.values() if count <= _FEW)
    if not rest or 2 * num_rare < rest.total():
        return Counter(), Counter()
    return placeholders, shared


def _is_placeholder(text: str) -> bool:
    """Whether a text may stand for no transcript: a lone letter, or a word such as "none"."""
    # In other scripts than the Latin one without accents, a letter may well be a word.
    is_lone_letter = len(text) == 1 and text.isascii() and text.isalpha()
    return is_lone_letter or bool(_PLACEHOLDER.fullmatch(text))


def _without_text_of(record: Record, placeholders: Collection[str]) -> Record:
    if record.text is None or not placeholders:
        return record
    if normalise(record.text, "basic-1") in placeholders:
        return replace(record, text=None)
    return record
