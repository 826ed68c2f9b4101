"""What a beam search is set to and what it returns."""

from typing import Literal, NamedTuple, Protocol

from pydantic import Field
from torch import Tensor

from speechssl.config import Settings


class BeamConfig(Settings):
    """How hypotheses are weighed and how many are kept."""

    unit: Literal["words", "tokens"] = Field("words", description="of the language model")
    lm_weight: float = Field(
        1.0, ge=0, description="of log10 probabilities, beside natural logarithms of CTC's"
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
    confidence_slope: float = Field(1.0, ge=0, description="of words, see score.Scaling")
    confidence_offset: float = Field(0.0, description="of words, see score.Scaling")


class Hypothesis(NamedTuple):
    """What may have been said, and its score: CTC's ln probability over the prior's, language model and words weighted.

    ``ids``: the tokens of ``text``, as CTC emits them: without blanks, repeats meant.
    """

    text: str
    score: float
    ids: tuple[int, ...]


class Search(Protocol):
    def __call__(
        self, log_probs: Tensor, nbest: int
    ) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        """Token ids as collapsed, words (none without a lexicon) and score, best first, of (T, V) log-probabilities."""
