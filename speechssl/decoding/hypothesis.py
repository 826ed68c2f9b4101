"""Settings of a beam search, its results, and the interface of its engines."""

from typing import Literal, NamedTuple, Protocol

from pydantic import Field
from torch import Tensor

from speechssl.config import Settings


class BeamConfig(Settings):
    """How hypotheses are scored and how many of them are kept."""

    unit: Literal["words", "tokens"] = Field("words", description="of the language model")
    lm_weight: float = Field(
        1.0, ge=0, description="of the model's log10 probabilities, beside CTC's natural logarithms"
    )
    word_score: float = Field(0.0, description="added for each word")
    prior_scale: float = Field(
        0.0, ge=0, le=1, description="share of the log of each token's frequency taken away"
    )
    unknown_words: bool = Field(
        False, description="say words that the model lacks, at the price of <unk>"
    )
    beam_size: int = Field(100, ge=1, description="hypotheses kept after each frame")
    beam_threshold: float = Field(
        25.0, gt=0, description="hypotheses that far below the best are dropped"
    )
    beam_tokens: int = Field(
        20, ge=1, description="best tokens of each frame that are tried; over tokens only"
    )
    confidence_slope: float = Field(1.0, ge=0, description="of words, see calibration.Scaling")
    confidence_offset: float = Field(0.0, description="of words, see calibration.Scaling")


class SpokenWord(NamedTuple):
    """A word of a hypothesis, with the number of its tokens, the space behind it included."""

    text: str
    num_tokens: int


class Decoded(NamedTuple):
    """What was said in an utterance.

    Attributes:
        ids: tokens as CTC emits them, without blanks; a repeated token counts twice.
        words: their tokens are ``ids``; None where the texts of the tokens tell the words.
    """

    ids: tuple[int, ...]
    words: tuple[SpokenWord, ...] | None = None


class Hypothesis(NamedTuple):
    """A text that may have been spoken.

    Attributes:
        text: the words, or what the tokens spell.
        score: ln probability of CTC, less the scaled prior, plus the weighted scores of the
            language model and of the words. Over words, it is the probability of the best path
            alone; over tokens, of all paths.
        decoded: its tokens, and its words if the language model is over words with spaces between.
    """

    text: str
    score: float
    decoded: Decoded


class Found(NamedTuple):
    """A hypothesis over tokens as an engine finds it, before it becomes text.

    Attributes:
        ids: tokens after collapsing, without blanks.
        score: as in ``Hypothesis``.
    """

    ids: tuple[int, ...]
    score: float


class TokenSearch(Protocol):
    """An engine for a language model over tokens: the search itself, over one utterance."""

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Found]:
        """Find the ``nbest`` best hypotheses of (T, V) log-probabilities, best first."""
