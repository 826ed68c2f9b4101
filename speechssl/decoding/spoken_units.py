"""What a transcript gives times for: words, or characters where no spaces stand between words."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from speechssl.decoding.align import TokenSpan, WordSpan, align, find_words, word_groups
from speechssl.decoding.hypothesis import Decoded
from speechssl.scoring.calibration import Scaling
from speechssl.text.grapheme_clusters import belongs_to
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.unicode_words import is_unspaced
from speechssl.text.words_or_characters import goes_on


class SpokenUnit(NamedTuple):
    """A word, or a character, over frames ``start`` up to, not including, ``end``.

    ``probability`` is that of a ``WordSpan``. ``follows`` is True where no space stands before it,
    as between characters of Chinese.
    """

    text: str
    start: int
    end: int
    probability: float
    follows: bool


def joined(words: Iterable[WordSpan | SpokenUnit]) -> str:
    """Write words as a text, with spaces only where there are any."""
    text = ""
    for word in words:
        space = " " if text and not word.follows else ""
        text += space + word.text
    return text


class _Character(NamedTuple):
    """A character as it is seen, marks included, over frames of the tokens that it is of."""

    text: str
    start: int
    end: int
    tokens: tuple[TokenSpan, ...]


def find_units(
    log_probs: Tensor, decoded: Decoded, tokenizer: Tokenizer, scaling: Scaling
) -> list[SpokenUnit]:
    """Find where the words of a hypothesis were spoken; in scripts without spaces, the characters.

    Characters are grapheme clusters: a letter with its marks. Punctuation stays with the character
    beside it. Letters of other scripts between them stay together as words. A recogniser that has
    no space writes characters only. A token of several characters gives each an equal share of its
    frames, and its own probability.

    Args:
        log_probs: (T, V) normalised, of one utterance.
    """
    if decoded.words is not None:
        words = find_words(log_probs, decoded, tokenizer, scaling)
        return [SpokenUnit(*word, follows=False) for word in words]

    spans = align(log_probs, decoded.ids, tokenizer.blank_id)
    has_space = any(" " in text for text in tokenizer.texts)

    units: list[SpokenUnit] = []
    for group in word_groups(spans, tokenizer):
        characters = _characters(group, tokenizer)
        for place, unit in enumerate(_units(characters, has_space)):
            follows = place > 0
            if not units:
                # What was said before ended without a space, if there is no space to write.
                follows = not has_space or is_unspaced(unit[0].text[0])
            units.append(_span(unit, follows, scaling))

    return units


def _characters(group: Sequence[TokenSpan], tokenizer: Tokenizer) -> list[_Character]:
    """Part the tokens of a word into characters, and join those that are seen as one."""
    found: list[_Character] = []
    for span in group:
        text = tokenizer.texts[span.token].strip()
        num_frames = span.end - span.start

        for place, character in enumerate(text):
            start = span.start + place * num_frames // len(text)
            end = span.start + (place + 1) * num_frames // len(text)
            one = _Character(character, start, max(end, start + 1), (span,))

            if found and belongs_to(found[-1].text, character):
                before = found[-1]
                tokens = before.tokens if span in before.tokens else (*before.tokens, span)
                one = _Character(before.text + character, before.start, one.end, tokens)
                found[-1] = one
            else:
                found.append(one)

    return found


def _units(characters: Sequence[_Character], has_space: bool) -> list[list[_Character]]:
    """Keep letters of scripts with spaces together, where the recogniser has a space."""
    units: list[list[_Character]] = []
    for character in characters:
        if units and goes_on(units[-1][-1].text, character.text, has_space):
            units[-1].append(character)
        else:
            units.append([character])

    return units


def _span(unit: Sequence[_Character], follows: bool, scaling: Scaling) -> SpokenUnit:
    text = "".join(character.text for character in unit)
    tokens = dict.fromkeys(token for character in unit for token in character.tokens)
    probability = scaling(math.prod(token.probability for token in tokens))
    return SpokenUnit(text, unit[0].start, unit[-1].end, probability, follows)
