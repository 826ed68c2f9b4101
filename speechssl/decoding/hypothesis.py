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
    beam_size: int = Field(100, ge=1, description="hypotheses kept after each frame")
    beam_threshold: float = Field(
        25.0, gt=0, description="hypotheses that far below the best are dropped"
    )
    beam_tokens: int = Field(20, ge=1, description="best tokens of each frame that are tried")
    confidence_slope: float = Field(1.0, ge=0, description="of words, see calibration.Scaling")
    confidence_offset: float = Field(0.0, description="of words, see calibration.Scaling")


class Hypothesis(NamedTuple):
    """A text that may have been spoken.

    Attributes:
        text: what the tokens spell.
        score: ln probability of CTC, less the scaled prior, plus the weighted scores of the
            language model and of the words.
        ids: tokens of ``text`` as CTC emits them, without blanks; a repeated token counts twice.
    """

    text: str
    score: float
    ids: tuple[int, ...]


class Found(NamedTuple):
    """A hypothesis as an engine finds it, before it becomes text.

    Attributes:
        ids: tokens after collapsing, without blanks.
        words: words of the lexicon; empty without a lexicon.
        score: as in ``Hypothesis``.
    """

    ids: tuple[int, ...]
    words: tuple[str, ...]
    score: float


class Search(Protocol):
    """An engine: the search itself, over one utterance."""

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Found]:
        """Find the ``nbest`` best hypotheses of (T, V) log-probabilities, best first."""
