"""What a score says of its data: texts of other recordings, and texts that nobody could write."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from speechssl.runtime.ranks import log_once
from speechssl.scoring.score import RATE_NAMES, Score
from speechssl.text.tokenizer import Tokenizer, single_spaced
from speechssl.text.word_spaces import are_without_word_spaces

# Error rate from which on nothing counts as recognised: a word in fifty is right by chance.
ALL_WRONG = 0.98
# Share of the utterances without a hypothesis from which on a cause is named.
MOST_UNHEARD = 0.5
QUESTION = (
    "are texts and recordings paired? Listen to some of them. If they are, the recogniser knows "
    "nothing of such speech yet"
)
RAW_CONFIDENCES = (
    "the confidences of words are raw, and not scaled to be probabilities: finetune and tune-lm "
    "scale them where dev has words that are recognised right, and others that are not"
)
# Different characters or words that a line of the log names.
NUM_SHOWN = 20


class Unwritable(NamedTuple):
    """What of some texts a recogniser cannot write.

    Attributes:
        kind: "characters" or "words".
        counts: how often each such character or word stands in the texts.
        total: all characters or words of the texts.
    """

    kind: str
    counts: Counter[str]
    total: int

    def line(self) -> str:
        """Name the most frequent ones, and say how many there are."""
        shown = [f"{part} {count}" for part, count in self.counts.most_common(NUM_SHOWN)]
        if len(self.counts) > NUM_SHOWN:
            shown.append("...")

        return (
            f"{self.counts.total()} of {self.total} {self.kind} of the transcripts cannot be "
            f"written ({len(self.counts)} different ones: {', '.join(shown)}): "
            "each counts as an error"
        )


def unwritable_characters(tokenizer: Tokenizer, texts: Iterable[str]) -> Unwritable:
    """Count the characters of normalised texts that a tokenizer has no token for."""
    counts: Counter[str] = Counter()
    total = 0

    for text in map(single_spaced, texts):
        total += len(text)
        unknown = tokenizer.unknown(text)
        counts.update(character for character in text if character in unknown)
    return Unwritable("characters", counts, total)


def unwritable_words(known: Iterable[str], texts: Iterable[str]) -> Unwritable:
    """Count the words of normalised texts that are not among those a search can find."""
    all_known = frozenset(known)
    words = Counter(word for text in texts for word in text.split())
    counts = Counter({word: count for word, count in words.items() if word not in all_known})
    return Unwritable("words", counts, words.total())


class TellingRate(NamedTuple):
    """The error rate that tells most of a score, and its name."""

    name: str
    rate: float


def telling_rate(score: Score) -> TellingRate:
    """Give the rate of words or phones; of characters where no spaces stand between words.

    There a whole sentence is one word, which is right or wrong as a whole.
    """
    references = [utterance.reference for utterance in score.utterances]
    if score.unit == "word" and are_without_word_spaces(references):
        return TellingRate("CER", score.cer)
    return TellingRate(RATE_NAMES[score.unit], score.wer)


def say_unheard(score: Score, of_what: str) -> None:
    """Say in how many utterances with words nothing was recognised.

    Args:
        of_what: whose score it is, for the message.
    """
    said = [utterance for utterance in score.utterances if utterance.reference]
    num_unheard = sum(not utterance.hypothesis for utterance in said)
    if not num_unheard:
        return

    line = f"nothing was recognised in {num_unheard} of {len(said)} utterances of {of_what}"
    if num_unheard >= MOST_UNHEARD * len(said):
        line += ": the recogniser may not be trained far enough for such speech"
    log_once(line)


def ask_if_paired(score: Score, of_what: str) -> None:
    """Ask whether texts and recordings belong together, where all that was heard is wrong.

    Args:
        of_what: whose score it is, for the message.
    """
    name, rate = telling_rate(score)
    num_heard = sum(bool(utterance.hypothesis) for utterance in score.utterances)
    if num_heard and rate >= ALL_WRONG:
        log_once(f"{name} {rate:.0%} of {of_what}, though something was heard: {QUESTION}")
