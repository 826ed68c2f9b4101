"""CTC beam search with an n-gram language model over words or over tokens: flashlight's, or a plain one of ours."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from speechssl.config import Settings, as_table, build
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.decoding.ngram import BEGIN, END, SPECIAL, UNKNOWN, NgramModel, is_binary, read_arpa
from speechssl.errors import CheckpointError, ConfigError
from speechssl.runtime.log import log, quiet_stderr
from speechssl.storage.checkpoint import load_folder, save_folder, stored_folder
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import SentencePieceTokenizer, Tokenizer

LM_FOLDER = "lm"  # in a model folder
LOG_PRIOR = "log_prior"  # among its tensors
MAX_LOST = 0.1  # share of a language model's words that the recogniser may be unable to say
_IMPOSSIBLE = -1e4  # finite: sums of it are still numbers


class BeamConfig(Settings):
    """How hypotheses are weighed and how many are kept."""

    unit: Literal["words", "tokens"] = Field("words", description="of the language model")
    lm_weight: float = Field(1.0, ge=0, description="of log10 probabilities, beside natural logarithms of CTC's")
    word_score: float = Field(0.0, description="added for each word")
    prior_scale: float = Field(0.0, ge=0, le=1, description="share of the log of each token's frequency taken away")
    beam_size: int = Field(100, ge=1, description="hypotheses kept after each frame")
    beam_threshold: float = Field(25.0, gt=0, description="hypotheses that far below the best are dropped")
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


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Token ids of each word that can be spelled, with the space behind it where that is a token."""
    space = separator(tokenizer)
    found = {}
    for word in words:
        if word not in SPECIAL and not tokenizer.has_unknown(word):
            ids = tokenizer.encode(word)
            if ids and tokenizer.unk_id not in ids:
                found[word] = (*ids, *space)
    return found


def separator(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The id of the token that separates words, if one does; SentencePiece's pieces begin words themselves."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return ()
    return tuple(i for i, text in enumerate(tokenizer.texts[2:], 2) if text == " ")[:1]


def token_name(text: str) -> str:
    """A token as a word of a language model over tokens: what is a space in it becomes ``|``."""
    return text.replace(" ", "|")


def known_words(tokenizer: Tokenizer, normaliser: str, words: Sequence[str]) -> list[str]:
    """The words of a language model that the recogniser can say; how many it cannot is logged.

    Raises:
        ConfigError: these are more than ``MAX_LOST`` of them, or as many are not normalised as transcripts are.
    """
    spelled = spellings(tokenizer, words)
    for problem, found in (
        ("have characters that the recogniser does not", [w for w in words if w not in spelled]),
        (f"are not as {normaliser} leaves them", [w for w in words if normalise(w, normaliser) != w]),
    ):
        if len(found) > MAX_LOST * len(words):
            raise ConfigError(
                f"{len(found)} of the {len(words)} words of the language model {problem}, {found[0]!r} for one: "
                f"estimate it from text like the transcripts (speechssl lm --normaliser {normaliser})"
            )
    if len(spelled) < len(words):
        log(f"{len(words) - len(spelled)} of {len(words)} words have characters that the recogniser does not: left out")
    return list(spelled)


def is_over_tokens(tokenizer: Tokenizer, words: Iterable[str]) -> bool:
    """Whether a language model with these words is one over the recogniser's tokens, the space among them.

    Without the space, single letters are words too, such as digits.
    """
    names = {token_name(text) for text in tokenizer.texts}
    return set(words) <= names and all(token_name(tokenizer.texts[i]) in words for i in separator(tokenizer))


def save_lm(
    model: Path,
    lm: Path,
    words: Sequence[str] | None,
    config: BeamConfig,
    about: Mapping[str, Any],
    log_prior: Tensor | None = None,
) -> None:
    """Put a language model, its words and its weights into a model folder, where ``load_lm`` finds them."""
    name = "lm.bin" if is_binary(lm) else "lm.arpa"
    files = {name: lm.read_bytes()}
    if words is not None:
        files["words.txt"] = "".join(f"{word}\n" for word in words).encode()
    record = {"kind": "lm", "file": name, "beam": as_table(config), "about": dict(about)}
    save_folder(model / LM_FOLDER, {} if log_prior is None else {LOG_PRIOR: log_prior}, record, files)


def load_lm(model: Path, tokenizer: Tokenizer) -> "BeamSearch | None":
    """The beam search of a model folder, or None if it has no language model.

    Raises:
        CheckpointError: damaged.
        ConfigError: it is a KenLM binary file and flashlight-text is not installed.
    """
    folder = stored_folder(model / LM_FOLDER)
    if not folder.exists():
        return None
    tensors, record = load_folder(folder)
    if record["file"] not in record["files"]:  # checked just now; any other may lie outside the folder
        raise CheckpointError(f"{folder} names the language model {record['file']!r}, which is not a file of it")
    config, path = build(BeamConfig, record["beam"]), folder / record["file"]
    prior = tensors.get(LOG_PRIOR)
    if (prior is None and config.prior_scale) or (prior is not None and prior.shape != (tokenizer.size,)):
        raise CheckpointError(f"{folder} does not hold {LOG_PRIOR} of the {tokenizer.size} tokens of its recogniser")
    if config.unit == "tokens":
        return BeamSearch(tokenizer, path, None, config, log_prior=prior)
    words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return BeamSearch(tokenizer, path, spellings(tokenizer, words), config, log_prior=prior)


class _Search(Protocol):
    def __call__(self, log_probs: Tensor, nbest: int) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        """Token ids as collapsed, words (none without a lexicon) and score, best first, of (T, V) log-probabilities."""


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
        self._search: _Search = (_Flashlight if backend == "flashlight" else _Plain)(tokenizer, lm, lexicon, config)

    def __call__(self, log_probs: Tensor, num_frames: Tensor, nbest: int = 1) -> list[list[Hypothesis]]:
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
                if self.lexicon is not None:  # whole words: the best hypothesis may end in the middle of one
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
            if i != self.tokenizer.unk_id and not (i in self._separator and (not kept or kept[-1] == i)):
                kept.append(i)
        return tuple(kept[:-1] if kept and kept[-1] in self._separator else kept)


@contextmanager
def _named(lm: Path) -> Iterator[None]:
    """KenLM's errors as ours."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(f"{lm} cannot be read as a language model: {' '.join(str(error).split())}") from error


class _Flashlight:
    """torchaudio's decoder, on flashlight-text, which has KenLM inside: ARPA files and KenLM's binary ones."""

    def __init__(
        self, tokenizer: Tokenizer, lm: Path, lexicon: dict[str, tuple[int, ...]] | None, config: BeamConfig
    ) -> None:
        from torchaudio.models.decoder import ctc_decoder

        between = separator(tokenizer) or (tokenizer.unk_id,)
        # With a lexicon, names of our own: a token may be any character, also one that a file of them could not hold.
        texts = [token_name(text) for text in tokenizer.texts]
        names = texts if lexicon is None else [f"t{i}" for i in range(tokenizer.size)]
        with TemporaryDirectory() as folder:
            path = Path(folder, "list.txt")
            if lexicon is None:  # the order that the language model's words have; torchaudio would leave it to chance
                lines = [f"{name}\n" for name in names]
            else:
                lines = [f"{word}\t{' '.join(names[i] for i in ids)}\n" for word, ids in lexicon.items()]
                lines.append(f"{UNKNOWN}\t{names[tokenizer.unk_id]}\n")  # it must be there; nothing spells it
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

    def __call__(self, log_probs: Tensor, nbest: int) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        self._decoder.nbest = nbest
        (found,) = self._decoder(log_probs[None])
        return [(tuple(h.tokens.tolist()), tuple(h.words), h.score) for h in found]


@dataclass
class _Node:
    """A place in the lexicon: what may follow, and the words that end here."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


class _State(NamedTuple):
    """Hypotheses that share this are one: what has been said, the place in the lexicon, the last token."""

    said: tuple[str, ...]
    node: int  # id() of the place
    token: int
    after_blank: bool


class _Kept(NamedTuple):
    """``score`` adds up all ways to a state; ``ids`` are those of the best one, which has ``best`` alone."""

    score: float
    best: float
    node: _Node
    ids: tuple[int, ...]

    def plus(self, value: float) -> "_Kept":
        return self._replace(score=self.score + value, best=self.best + value)


@cache
def _installed() -> Literal["flashlight", "plain"]:
    """The search that there is; told once if it is the slow one."""
    if find_spec("flashlight"):
        return "flashlight"
    log("flashlight-text is not installed, so Python searches with the language model: many times slower")
    return "plain"


class _Beam(dict[_State, _Kept]):
    """States and the best way to each."""

    def add(self, state: _State, kept: _Kept) -> None:
        if (other := self.get(state)) is not None:
            score = float(np.logaddexp(other.score, kept.score))
            kept = max(other, kept, key=lambda k: k.best)._replace(score=score)
        self[state] = kept


class _Plain:
    """The same search in Python, for where flashlight-text has no wheel: slow, ARPA files only.

    flashlight's ways are kept so that results agree: it adds ``word_score`` for every frame of a separator when the
    model is over tokens, and between words a frame may repeat the separator only.
    """

    def __init__(
        self, tokenizer: Tokenizer, lm: Path, lexicon: dict[str, tuple[int, ...]] | None, config: BeamConfig
    ) -> None:
        if is_binary(lm):
            raise ConfigError(f"{lm} is a KenLM binary: to read it, pip install flashlight-text; or give an ARPA file")
        self._lm: NgramModel = read_arpa(lm)
        self._config, self._blank, self._free = config, tokenizer.blank_id, lexicon is None
        self._separator = (separator(tokenizer) or (tokenizer.unk_id,))[0]
        self._root = _Node()
        names = {token_name(t): (i,) for i, t in enumerate(tokenizer.texts) if i != self._blank}
        for word, ids in (names if lexicon is None else lexicon).items():
            node = self._root
            for i in ids:
                node = node.children.setdefault(i, _Node())
            node.words.append(word)

    def __call__(self, log_probs: Tensor, nbest: int) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        beam = _Beam({_State((), id(self._root), self._separator, False): _Kept(0.0, 0.0, self._root, ())})
        for frame in log_probs:
            best = torch.topk(frame, min(self._config.beam_tokens, len(frame)))
            beam = self._step(beam, dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)), frame.tolist())
        ended = _Beam()
        whole = {s: k for s, k in beam.items() if k.node is self._root} or beam
        for state, kept in whole.items():
            end = self._config.lm_weight * self._lm.log10_prob(END, (BEGIN, *state.said))
            ended.add(state._replace(token=self._separator, after_blank=False), kept.plus(end))
        ranked = heapq.nlargest(nbest, ended.items(), key=lambda item: item[1].score)
        return [(kept.ids, () if self._free else state.said, kept.score) for state, kept in ranked]

    def _step(self, beam: _Beam, tokens: dict[int, float], frame: list[float]) -> _Beam:
        found = _Beam()
        for state, kept in beam.items():
            at_root = kept.node is self._root
            for token, value in tokens.items():
                child = kept.node.children.get(token)
                if child is None or (token == state.token and not state.after_blank):
                    continue
                eaten = kept.plus(value)._replace(ids=(*kept.ids, token))
                if child.children:
                    found.add(_State(state.said, id(child), token, False), eaten._replace(node=child))
                for word in child.words:
                    ended = eaten.plus(self._word(word, token, state.said))._replace(node=self._root)
                    found.add(_State((*state.said, word), id(self._root), token, False), ended)
            stay = self._separator if at_root and not self._free else state.token
            if (not state.after_blank and stay in tokens) if self._free else (not state.after_blank or at_root):
                again = self._config.word_score if self._free and stay == self._separator else 0.0
                found.add(state._replace(token=stay, after_blank=False), kept.plus(frame[stay] + again))
            if not self._free or self._blank in tokens:
                found.add(state._replace(token=self._blank, after_blank=True), kept.plus(frame[self._blank]))
        floor = max(kept.score for kept in found.values()) - self._config.beam_threshold
        best = heapq.nlargest(self._config.beam_size, found.items(), key=lambda item: item[1].score)
        return _Beam({state: kept for state, kept in best if kept.score >= floor})

    def _word(self, word: str, token: int, said: tuple[str, ...]) -> float:
        score = self._config.lm_weight * self._lm.log10_prob(word, (BEGIN, *said))
        return score + (self._config.word_score if not self._free or token == self._separator else 0.0)
