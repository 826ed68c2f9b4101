"""CTC beam search with an n-gram language model over words or over tokens: flashlight's, or a plain one of ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor

from speechssl.decoding.greedy import min_ctc_frames
from speechssl.decoding.hypothesis import BeamConfig, Hypothesis, Search
from speechssl.decoding.lexicon import separator, token_name
from speechssl.decoding.ngram import UNKNOWN
from speechssl.decoding.plain_search import PlainSearch
from speechssl.errors import ConfigError
from speechssl.runtime.log import log, quiet_stderr
from speechssl.text.tokenizers import Tokenizer

_IMPOSSIBLE = -1e4  # finite: sums of it are still numbers


class BeamSearch:
    """Text of log-probabilities under a recogniser and a language model.

    Words come from the lexicon alone if the model is over words, which takes a token for the space between them. A
    frame in which words end is put behind the last one, so that no spelling has to find its space in the audio.

    Source: Collobert et al. 2016 (arXiv 1609.03193), section 2.3, and Hannun et al. 2014 (arXiv 1408.2873), as
    flashlight-text does it: hypotheses alike in what was said, place in the lexicon and last token are one, and their
    probabilities are added. A recogniser that is unsure says the blank, the most frequent token, and the language model
    then has little to choose from: with ``prior_scale`` that much of ``log_prior`` is taken from every frame's
    log-probabilities first (Miao et al. 2015, arXiv 1507.08240, section 3.3, who take all of it).

    Raises:
        ConfigError: the language model is over other words or tokens than the recogniser can spell, or flashlight-text
            is needed and not installed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: dict[str, tuple[int, ...]] | None,
        config: BeamConfig,
        backend: Literal["flashlight", "plain"] | None = None,
        log_prior: Tensor | None = None,
    ) -> None:
        """Read the language model.

        Args:
            lexicon: spellings of words; None = a model over tokens.
            backend: None = flashlight if installed.
            log_prior: (V,) ln of how much of all frames each token has, for ``prior_scale``; None = all have as much.
        """
        self.tokenizer, self.config, self.lexicon = tokenizer, config, lexicon
        self._taken = 0.0 if log_prior is None else config.prior_scale * log_prior
        self._separator = separator(tokenizer)
        if lexicon is not None and not self._separator:
            # flashlight lets no token but the separator last for several frames between two words.
            raise ConfigError(
                "a language model over words needs a recogniser with a token for the space; this one's are pieces of "
                "words: estimate one over its tokens (speechssl lm --tokens-of MODEL)"
            )
        backend = backend or _installed()
        self._search: Search = (_Flashlight if backend == "flashlight" else PlainSearch)(
            tokenizer, lm, lexicon, config
        )

    def __call__(
        self, log_probs: Tensor, num_frames: Tensor, nbest: int = 1
    ) -> list[list[Hypothesis]]:
        """The ``nbest`` best texts of each utterance, best first; of equal texts the first one.

        Args:
            log_probs: (B, T, V).
            num_frames: (B,) valid frames.
        """
        found = []
        for row, count in zip(log_probs.float().cpu(), num_frames.tolist(), strict=True):
            frames = row[:count] - self._taken
            frames[:, self.tokenizer.unk_id] = _IMPOSSIBLE  # what nobody can read
            if self.lexicon is not None:
                last = torch.full((1, frames.shape[1]), _IMPOSSIBLE)
                last[0, self._separator[0]] = 0.0
                frames = torch.cat([frames, last])
            best: dict[str, Hypothesis] = {}
            for ids, words, score in self._search(frames.contiguous(), nbest) if count else []:
                if (
                    self.lexicon is not None
                ):  # whole words: the best hypothesis may end in the middle of one
                    ids = tuple(i for word in words for i in self.lexicon[word])
                said = self._trimmed(ids)
                if min_ctc_frames(said) <= count:
                    text = self.tokenizer.decode(said)
                    best.setdefault(text, Hypothesis(text, score, said))
            found.append([*best.values()] or [Hypothesis("", 0.0, ())])
        return found

    def _trimmed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Without what only the search puts there: separators at the ends or in a row, the token of unknown letters."""
        kept: list[int] = []
        for i in ids:
            if i != self.tokenizer.unk_id and not (
                i in self._separator and (not kept or kept[-1] == i)
            ):
                kept.append(i)
        return tuple(kept[:-1] if kept and kept[-1] in self._separator else kept)


@contextmanager
def _named(lm: Path) -> Iterator[None]:
    """KenLM's errors as ours."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(
            f"{lm} cannot be read as a language model: {' '.join(str(error).split())}"
        ) from error


class _Flashlight:
    """torchaudio's decoder, on flashlight-text, which has KenLM inside: ARPA files and KenLM's binary ones."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: dict[str, tuple[int, ...]] | None,
        config: BeamConfig,
    ) -> None:
        from torchaudio.models.decoder import ctc_decoder

        between = separator(tokenizer) or (tokenizer.unk_id,)
        # With a lexicon, names of our own: a token may be any character, also one that a file of them could not hold.
        texts = [token_name(text) for text in tokenizer.texts]
        names = texts if lexicon is None else [f"t{i}" for i in range(tokenizer.size)]
        with TemporaryDirectory() as folder:
            path = Path(folder, "list.txt")
            if (
                lexicon is None
            ):  # the order that the language model's words have; torchaudio would leave it to chance
                lines = [f"{name}\n" for name in names]
            else:
                lines = [
                    f"{word}\t{' '.join(names[i] for i in ids)}\n" for word, ids in lexicon.items()
                ]
                lines.append(
                    f"{UNKNOWN}\t{names[tokenizer.unk_id]}\n"
                )  # it must be there; nothing spells it
            path.write_text("".join(lines), encoding="utf-8")
            with quiet_stderr(), _named(lm):
                self._decoder = ctc_decoder(
                    lexicon=None if lexicon is None else str(path),
                    tokens=names,
                    lm=str(lm),
                    lm_dict=str(path) if lexicon is None else None,
                    beam_size=config.beam_size,
                    beam_size_token=min(config.beam_tokens, tokenizer.size),
                    beam_threshold=config.beam_threshold,
                    lm_weight=config.lm_weight,
                    word_score=config.word_score if lexicon is not None else 0.0,
                    sil_score=config.word_score if lexicon is None else 0.0,
                    log_add=True,
                    blank_token=names[tokenizer.blank_id],
                    sil_token=names[between[0]],
                    unk_word=UNKNOWN,
                )

    def __call__(
        self, log_probs: Tensor, nbest: int
    ) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        self._decoder.nbest = nbest
        (found,) = self._decoder(log_probs[None])
        return [(tuple(h.tokens.tolist()), tuple(h.words), h.score) for h in found]


@cache
def _installed() -> Literal["flashlight", "plain"]:
    """The search that there is; told once if it is the slow one."""
    if find_spec("flashlight"):
        return "flashlight"
    log(
        "flashlight-text is not installed, so Python searches with the language model: many times slower"
    )
    return "plain"
