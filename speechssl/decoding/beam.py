"""Beam search with an n-gram language model over words or over tokens."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import Tensor

from speechssl.decoding.flashlight_search import FlashlightSearch
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.decoding.hypothesis import BeamConfig, Decoded, Found, Hypothesis, TokenSearch
from speechssl.decoding.lexicon import separator
from speechssl.decoding.plain_search import PlainSearch
from speechssl.decoding.word_model import WordModel
from speechssl.runtime.log import log
from speechssl.text.tokenizer import Tokenizer

Backend = Literal["flashlight", "plain"]

# Log-probability of what cannot be: finite, so that sums of it are still numbers.
_IMPOSSIBLE = -1e4

_NOTHING = Hypothesis(text="", score=0.0, decoded=Decoded(()))


class BeamSearch:
    """Beam search for the texts that a recogniser and a language model together find most likely.

    A language model over words allows only words of its lexicon, and is searched by
    ``lexicon_search``. One over tokens allows all texts. Its search is that of Collobert et al.
    2016 (arXiv 1609.03193), section 2.3, and Hannun et al. 2014 (arXiv 1408.2873), as
    flashlight-text implements it: hypotheses that agree in their tokens are merged, and their
    probabilities are added.

    A recogniser that is unsure emits the blank, its most frequent token, and then leaves the
    language model little to choose from. Therefore ``prior_scale`` times ``log_prior`` is
    subtracted from the log-probabilities of every frame first (Miao et al. 2015, arXiv 1507.08240,
    section 3.3, who subtract all of it).

    Raises:
        ConfigError: the language model cannot be read, or flashlight-text is needed and not
            installed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path | WordModel,
        config: BeamConfig,
        backend: Backend | None = None,
        log_prior: Tensor | None = None,
    ) -> None:
        """Choose the engine.

        Args:
            lm: over words, a ``WordModel``; over tokens, an ARPA file, or a KenLM binary for
                flashlight.
            backend: for tokens; None = flashlight if installed.
            log_prior: (V,) ln of each token's share of all frames, for ``prior_scale``.
                None = equal shares.
        """
        self.tokenizer = tokenizer
        self.config = config
        self._lm = lm
        self._backend = backend
        self._log_prior = log_prior
        self._scaled_prior = 0.0 if log_prior is None else config.prior_scale * log_prior

        self._search: Callable[[Tensor, int], list[Hypothesis]]
        if isinstance(lm, Path):
            engine = _token_search(tokenizer, lm, config, backend)
            self._search = _TextSearch(tokenizer, engine)
        else:
            # It loads numba, for which greedy decoding need not wait.
            from speechssl.decoding.lexicon_search import LexiconSearch

            self._search = LexiconSearch(tokenizer, lm, config)

    def with_lm_weight(self, lm_weight: float) -> "BeamSearch":
        """Give the same search with another weight of the language model."""
        config = self.config.model_copy(update={"lm_weight": lm_weight})
        return BeamSearch(self.tokenizer, self._lm, config, self._backend, self._log_prior)

    def __call__(
        self, log_probs: Tensor, num_frames: Tensor, nbest: int = 1
    ) -> list[list[Hypothesis]]:
        """Find the ``nbest`` best texts of each utterance, best first and each text once.

        Args:
            log_probs: (B, T, V).
            num_frames: (B,) valid frames.
        """
        rows = log_probs.float().cpu()
        lengths = num_frames.tolist()
        return [
            self._hypotheses(row[:length], nbest) for row, length in zip(rows, lengths, strict=True)
        ]

    def _hypotheses(self, log_probs: Tensor, nbest: int) -> list[Hypothesis]:
        """Search one utterance, of (T, V) log-probabilities."""
        if len(log_probs) == 0:
            return [_NOTHING]

        frames = log_probs - self._scaled_prior
        frames[:, self.tokenizer.unk_id] = _IMPOSSIBLE  # nobody can read it
        return self._search(frames.contiguous(), nbest) or [_NOTHING]


class _TextSearch:
    """Search over tokens, and the texts that they spell."""

    def __init__(self, tokenizer: Tokenizer, engine: TokenSearch) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        self._separator = separator(tokenizer)

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Hypothesis]:
        """Find the ``nbest`` best of (T, V) log-probabilities, best first and each text once."""
        # Several token sequences may spell one text: the best of them comes first and stays.
        by_text: dict[str, Hypothesis] = {}
        for found in self._engine(log_probs, nbest):
            ids = self._spoken_ids(found)

            # ``align`` must find the tokens.
            if min_ctc_frames(ids) <= len(log_probs):
                text = self._tokenizer.decode(ids)
                by_text.setdefault(text, Hypothesis(text, found.score, Decoded(ids)))

        return list(by_text.values())

    def _spoken_ids(self, found: Found) -> tuple[int, ...]:
        """Take the tokens of a hypothesis, without those that only the search needs.

        These are the unknown token, and separators at either end or behind another.
        """
        kept: list[int] = []
        for i in found.ids:
            is_separator = i in self._separator
            is_first = not kept
            if i == self._tokenizer.unk_id:
                continue
            if is_separator and (is_first or kept[-1] == i):
                continue
            kept.append(i)

        if kept and kept[-1] in self._separator:
            kept.pop()
        return tuple(kept)


def _token_search(
    tokenizer: Tokenizer, lm: Path, config: BeamConfig, backend: Backend | None
) -> TokenSearch:
    """Make the engine for a language model over tokens."""
    if (backend or _installed_backend()) == "flashlight":
        return FlashlightSearch(tokenizer, lm, config)
    return PlainSearch(tokenizer, lm, config)


@cache
def _installed_backend() -> Backend:
    """Choose the fast engine if it is installed; log once if it is not."""
    if find_spec("flashlight"):
        return "flashlight"

    log(
        "ufal-flashlight-text is not installed, so Python searches with the language model over "
        "tokens: many times slower"
    )
    return "plain"
