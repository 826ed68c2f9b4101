"""CTC beam search with an n-gram language model over words or over tokens."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from speechssl.decoding.flashlight_search import FlashlightSearch
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.decoding.hypothesis import BeamConfig, Found, Hypothesis, Search
from speechssl.decoding.lexicon import Lexicon, separator
from speechssl.decoding.plain_search import PlainSearch
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.text.tokenizers import Tokenizer

Backend = Literal["flashlight", "plain"]

# Log-probability of what cannot be: finite, so that sums of it are still numbers.
_IMPOSSIBLE = -1e4

_NOTHING = Hypothesis(text="", score=0.0, ids=())


class BeamSearch:
    """Beam search for the texts that a recogniser and a language model together find most likely.

    A language model over words allows only words of the lexicon, and needs a recogniser with a
    token for the space between them. A frame that is surely a space is added behind the last frame,
    so that the last word need not find its space in the audio.

    A recogniser that is unsure emits the blank, its most frequent token, and then leaves the
    language model little to choose from. Therefore ``prior_scale`` times ``log_prior`` is
    subtracted from the log-probabilities of every frame first (Miao et al. 2015, arXiv 1507.08240,
    section 3.3, who subtract all of it).

    Source: Collobert et al. 2016 (arXiv 1609.03193), section 2.3, and Hannun et al. 2014 (arXiv
    1408.2873), as flashlight-text implements them: hypotheses that agree in their words, their
    place in the lexicon and their last token are merged, and their probabilities are added.

    Raises:
        ConfigError: the language model is over other words or tokens than the recogniser can spell,
            or flashlight-text is needed and not installed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: Lexicon | None,
        config: BeamConfig,
        backend: Backend | None = None,
        log_prior: Tensor | None = None,
    ) -> None:
        """Choose the engine and read the language model.

        Args:
            lm: ARPA file, or KenLM binary for flashlight.
            lexicon: spellings of words in tokens; None for a language model over tokens.
            backend: None = flashlight if installed.
            log_prior: (V,) ln of each token's share of all frames, for ``prior_scale``.
                None = equal shares.
        """
        self.tokenizer = tokenizer
        self.config = config
        self.lexicon = lexicon
        self._separator = separator(tokenizer)
        self._scaled_prior = 0.0 if log_prior is None else config.prior_scale * log_prior

        if lexicon is not None and not self._separator:
            # Between two words flashlight-text lets no token but the separator last for several
            # frames.
            raise ConfigError(
                "a language model over words needs a recogniser with a token for the space; this "
                "one's are pieces of words: estimate one over its tokens "
                "(speechssl lm --tokens-of MODEL)"
            )

        backend = backend or _installed_backend()
        self._search: Search
        if backend == "flashlight":
            self._search = FlashlightSearch(tokenizer, lm, lexicon, config)
        else:
            self._search = PlainSearch(tokenizer, lm, lexicon, config)

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
        num_frames = len(log_probs)
        if num_frames == 0:
            return [_NOTHING]

        # Several token sequences may spell one text: the best of them comes first and stays.
        by_text: dict[str, Hypothesis] = {}
        for found in self._search(self._prepared(log_probs), nbest):
            ids = self._spoken_ids(found)

            # The search had one frame more than the audio, in which ``align`` must find the tokens.
            if min_ctc_frames(ids) <= num_frames:
                text = self.tokenizer.decode(ids)
                by_text.setdefault(text, Hypothesis(text, found.score, ids))

        return list(by_text.values()) or [_NOTHING]

    def _prepared(self, log_probs: Tensor) -> Tensor:
        """Subtract the prior, rule out the unknown token, add a frame for the last separator."""
        frames = log_probs - self._scaled_prior
        frames[:, self.tokenizer.unk_id] = _IMPOSSIBLE  # nobody can read it

        if self.lexicon is not None:
            last = torch.full((1, frames.shape[1]), _IMPOSSIBLE)
            last[0, self._separator[0]] = 0.0
            frames = torch.cat([frames, last])

        return frames.contiguous()

    def _spoken_ids(self, found: Found) -> tuple[int, ...]:
        """Take the tokens of a hypothesis, without those that only the search needs.

        These are the unknown token, and separators at either end or behind another.
        """
        ids = found.ids
        if self.lexicon is not None:
            # Whole words only: the best hypothesis may end in the middle of one.
            ids = tuple(i for word in found.words for i in self.lexicon[word])

        kept: list[int] = []
        for i in ids:
            is_separator = i in self._separator
            is_first = not kept
            if i == self.tokenizer.unk_id:
                continue
            if is_separator and (is_first or kept[-1] == i):
                continue
            kept.append(i)

        if kept and kept[-1] in self._separator:
            kept.pop()
        return tuple(kept)


@cache
def _installed_backend() -> Backend:
    """Choose the fast engine if it is installed; log once if it is not."""
    if find_spec("flashlight"):
        return "flashlight"

    log(
        "flashlight-text is not installed, so Python searches with the language model: "
        "many times slower"
    )
    return "plain"
