"""Where there is sound in which no word was recognised: speech may have been lost in it."""

from collections.abc import Iterable, Sequence

from speechssl.transcription.transcript import Word

# From and until, seconds from the start of the file.
Stretch = tuple[float, float]

# Less sound than this between two words is told nowhere, seconds. Times of words end 50 to 180 ms
# early, and a breath or a hesitation is shorter.
LEAST_SOUND_S = 1.0


def sound_without_words(sounds: Sequence[Stretch], words: Iterable[Word]) -> list[Stretch]:
    """Find the sounds before, between and after words that last for a second or longer.

    Args:
        sounds: what is no silence, in order and disjoint.
        words: in order of time.

    Returns:
        (start, end) of each, from its first sound to its last, in order and disjoint.
    """
    found = []
    gap_from = 0.0
    gaps = []
    for word in words:
        gaps.append((gap_from, word.start))
        gap_from = word.end
    gaps.append((gap_from, float("inf")))

    for gap_from, gap_until in gaps:
        inside = [
            (max(start, gap_from), min(end, gap_until))
            for start, end in sounds
            if end > gap_from and start < gap_until
        ]
        if sum(end - start for start, end in inside) >= LEAST_SOUND_S:
            found.append((inside[0][0], inside[-1][1]))
    return found
