"""A CTC beam search with an n-gram language model in plain Python.

Source: Hannun et al. 2014 (arXiv 1408.2873) and Collobert et al. 2016 (arXiv 1609.03193), with the
choices of flashlight-text, so that the two engines find the same hypotheses and scores.
"""

import heapq
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.decoding.arpa import is_binary
from speechssl.decoding.hypothesis import BeamConfig, Found
from speechssl.decoding.lexicon import separator, token_names
from speechssl.decoding.ngram import BEGIN, END, NgramModel
from speechssl.decoding.token_ngrams import read_token_ngrams
from speechssl.errors import ConfigError
from speechssl.text.tokenizer import Tokenizer

# Log-probabilities of some tokens, by id.
_Scores = dict[int, float]


class PlainSearch:
    """Beam search for where flashlight-text has no wheel: slow, and for ARPA files only.

    One choice of flashlight-text is kept so that results agree: it adds ``word_score`` for every
    frame of a separator, not for every separator.
    """

    def __init__(self, tokenizer: Tokenizer, lm: Path, config: BeamConfig) -> None:
        """Read the language model, which is over tokens."""
        if is_binary(lm):
            raise ConfigError(
                f"{lm} is a KenLM binary: to read it, pip install ufal-flashlight-text; "
                "or give an ARPA file"
            )
        self._lm: NgramModel = read_token_ngrams(lm)
        self._config = config
        self._blank = tokenizer.blank_id
        # Without a separator the unknown token stands for it, which no hypothesis can emit.
        separators = separator(tokenizer)
        self._separator = separators[0] if separators else tokenizer.unk_id

        # The language model knows the tokens by these names.
        self._names = token_names(tokenizer)

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Found]:
        """Find the ``nbest`` best hypotheses of (T, V) log-probabilities, best first."""
        # Speech begins as if a separator came before it, so that a first one is a repeat.
        nothing_said = _State(ids=(), token=self._separator, after_blank=False)
        beam = _Beam()
        beam.add(nothing_said, 0.0)

        for frame in log_probs:
            num_tried = min(self._config.beam_tokens, len(frame))
            best = torch.topk(frame, num_tried)

            # Plain numbers from here on: reading single elements of a tensor is slow.
            token_ids = best.indices.tolist()
            values = best.values.tolist()
            tokens = dict(zip(token_ids, values, strict=True))

            extended = self._extend(beam, tokens)
            beam = self._prune(extended)

        ended = self._end_sentences(beam)
        return [Found(state.ids, score) for state, score in ended.best(nbest)]

    def _extend(self, beam: "_Beam", tokens: _Scores) -> "_Beam":
        """Extend every hypothesis by one frame.

        Args:
            tokens: log-probabilities of the tokens that are tried, by id.
        """
        extended = _Beam()
        for state, score in beam.items():
            self._add_new_tokens(extended, state, score, tokens)
            self._add_repeated_token(extended, state, score, tokens)

            if self._blank in tokens:
                blank_state = state._replace(token=self._blank, after_blank=True)
                extended.add(blank_state, score + tokens[self._blank])

        return extended

    def _add_new_tokens(
        self, extended: "_Beam", state: "_State", score: float, tokens: _Scores
    ) -> None:
        """Add the hypotheses that emit another token."""
        # In CTC the same token again is a new one only after a blank.
        repeated = None if state.after_blank else state.token

        for token, log_prob in tokens.items():
            if token in (self._blank, repeated):
                continue

            ids = (*state.ids, token)
            longer = _State(ids, token, after_blank=False)
            token_score = self._token_score(token, state.ids)
            extended.add(longer, score + log_prob + token_score)

    def _add_repeated_token(
        self, extended: "_Beam", state: "_State", score: float, tokens: _Scores
    ) -> None:
        """Add the hypothesis in which the last token lasts for another frame."""
        if state.after_blank or state.token not in tokens:
            return

        added = self._config.word_score if state.token == self._separator else 0.0
        extended.add(state, score + tokens[state.token] + added)

    def _prune(self, beam: "_Beam") -> "_Beam":
        """Keep the best hypotheses: so many, and none too far below the very best."""
        best_score = max(beam.values())
        lowest_score = best_score - self._config.beam_threshold

        kept = _Beam()
        for state, score in beam.best(self._config.beam_size):
            if score >= lowest_score:
                kept[state] = score
        return kept

    def _end_sentences(self, beam: "_Beam") -> "_Beam":
        """Add the score of the sentence's end."""
        ended = _Beam()
        for state, score in beam.items():
            end_score = self._lm_score(END, state.ids)

            # States that differ only in their last frame are merged now: nothing follows.
            end_state = state._replace(token=self._separator, after_blank=False)
            ended.add(end_state, score + end_score)
        return ended

    def _token_score(self, token: int, before: tuple[int, ...]) -> float:
        """Score a token after others; a separator counts as a word."""
        score = self._lm_score(self._names[token], before)
        if token == self._separator:
            score += self._config.word_score
        return score

    def _lm_score(self, name: str, before: tuple[int, ...]) -> float:
        """Weigh the log10 probability of a token after others."""
        recent = before[-self._lm.order :]
        context = [self._names[token] for token in recent]
        if len(recent) == len(before):
            context.insert(0, BEGIN)
        return self._config.lm_weight * self._lm.log10_prob(name, context)


class _State(NamedTuple):
    """What the future of a hypothesis depends on; hypotheses of one state are merged.

    Attributes:
        ids: tokens after collapsing.
        token: of the last frame, or the blank.
        after_blank: whether the last frame was a blank.
    """

    ids: tuple[int, ...]
    token: int
    after_blank: bool


class _Beam(dict[_State, float]):
    """The hypotheses after a frame: ln of the summed probabilities of all paths to each state."""

    def add(self, state: _State, score: float) -> None:
        """Add paths to a state."""
        other = self.get(state)
        if other is not None:
            score = float(np.logaddexp(other, score))
        self[state] = score

    def best(self, count: int) -> list[tuple[_State, float]]:
        """List the hypotheses of the highest scores, best first."""
        return heapq.nlargest(count, self.items(), key=itemgetter(1))
