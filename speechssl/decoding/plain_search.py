"""A CTC beam search with an n-gram language model in plain Python."""

import heapq
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.decoding.arpa import is_binary, read_arpa
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import separator, token_name
from speechssl.decoding.ngram import BEGIN, END, NgramModel
from speechssl.errors import ConfigError
from speechssl.text.tokenizers import Tokenizer


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


class _Beam(dict[_State, _Kept]):
    """States and the best way to each."""

    def add(self, state: _State, kept: _Kept) -> None:
        if (other := self.get(state)) is not None:
            score = float(np.logaddexp(other.score, kept.score))
            kept = max(other, kept, key=lambda k: k.best)._replace(score=score)
        self[state] = kept


class PlainSearch:
    """The same search in Python, for where flashlight-text has no wheel: slow, ARPA files only.

    flashlight's ways are kept so that results agree: it adds ``word_score`` for every frame of a separator when the
    model is over tokens, and between words a frame may repeat the separator only.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: dict[str, tuple[int, ...]] | None,
        config: BeamConfig,
    ) -> None:
        if is_binary(lm):
            raise ConfigError(
                f"{lm} is a KenLM binary: to read it, pip install flashlight-text; or give an ARPA file"
            )
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

    def __call__(
        self, log_probs: Tensor, nbest: int
    ) -> list[tuple[tuple[int, ...], tuple[str, ...], float]]:
        beam = _Beam(
            {_State((), id(self._root), self._separator, False): _Kept(0.0, 0.0, self._root, ())}
        )
        for frame in log_probs:
            best = torch.topk(frame, min(self._config.beam_tokens, len(frame)))
            beam = self._step(
                beam,
                dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
                frame.tolist(),
            )
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
                    found.add(
                        _State(state.said, id(child), token, False), eaten._replace(node=child)
                    )
                for word in child.words:
                    ended = eaten.plus(self._word(word, token, state.said))._replace(
                        node=self._root
                    )
                    found.add(_State((*state.said, word), id(self._root), token, False), ended)
            stay = self._separator if at_root and not self._free else state.token
            if (
                (not state.after_blank and stay in tokens)
                if self._free
                else (not state.after_blank or at_root)
            ):
                again = self._config.word_score if self._free and stay == self._separator else 0.0
                found.add(
                    state._replace(token=stay, after_blank=False), kept.plus(frame[stay] + again)
                )
            if not self._free or self._blank in tokens:
                found.add(
                    state._replace(token=self._blank, after_blank=True),
                    kept.plus(frame[self._blank]),
                )
        floor = max(kept.score for kept in found.values()) - self._config.beam_threshold
        best = heapq.nlargest(self._config.beam_size, found.items(), key=lambda item: item[1].score)
        return _Beam({state: kept for state, kept in best if kept.score >= floor})

    def _word(self, word: str, token: int, said: tuple[str, ...]) -> float:
        score = self._config.lm_weight * self._lm.log10_prob(word, (BEGIN, *said))
        return score + (
            self._config.word_score if not self._free or token == self._separator else 0.0
        )
