"""A CTC beam search with an n-gram language model in plain Python.

Source: Hannun et al. 2014 (arXiv 1408.2873) and Collobert et al. 2016 (arXiv 1609.03193), with the
choices of flashlight-text, so that the two engines find the same hypotheses and scores.
"""

import heapq
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.decoding.arpa import is_binary, read_arpa
from speechssl.decoding.hypothesis import BeamConfig, Found
from speechssl.decoding.lexicon import Lexicon, separator, token_name
from speechssl.decoding.ngram import BEGIN, END, NgramModel
from speechssl.errors import ConfigError
from speechssl.text.tokenizers import Tokenizer

# Log-probabilities of some tokens, by id.
_Scores = dict[int, float]


class PlainSearch:
    """Beam search for where flashlight-text has no wheel: slow, and for ARPA files only.

    Two choices of flashlight-text are kept so that results agree. With a language model over
    tokens it adds ``word_score`` for every frame of a separator, not for every separator. With one
    over words, a frame between two words may repeat the separator only.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: Lexicon | None,
        config: BeamConfig,
    ) -> None:
        """Read the language model.

        Args:
            lexicon: spellings of words in tokens; None for a language model over tokens.
        """
        if is_binary(lm):
            raise ConfigError(
                f"{lm} is a KenLM binary: to read it, pip install flashlight-text; "
                "or give an ARPA file"
            )
        self._lm: NgramModel = read_arpa(lm)
        self._config = config
        self._over_tokens = lexicon is None
        self._blank = tokenizer.blank_id
        # Without a separator the unknown token stands for it, which no hypothesis can emit.
        separators = separator(tokenizer)
        self._separator = separators[0] if separators else tokenizer.unk_id

        if lexicon is None:
            lexicon = _tokens_as_words(tokenizer)
        self._root = _prefix_tree(lexicon)

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Found]:
        """Find the ``nbest`` best hypotheses of (T, V) log-probabilities, best first."""
        # Speech begins as if a separator came before it, so that a first one is a repeat.
        root_id = id(self._root)
        nothing_said = _State(words=(), node_id=root_id, token=self._separator, after_blank=False)
        empty_path = _Path(score=0.0, best_score=0.0, node=self._root, ids=())
        beam = _Beam()
        beam.add(nothing_said, empty_path)

        for frame in log_probs:
            num_tried = min(self._config.beam_tokens, len(frame))
            best = torch.topk(frame, num_tried)

            # Plain numbers from here on: reading single elements of a tensor is slow.
            token_ids = best.indices.tolist()
            values = best.values.tolist()
            tokens = dict(zip(token_ids, values, strict=True))

            extended = self._extend(beam, tokens, frame.tolist())
            beam = self._prune(extended)

        ended = self._end_sentences(beam)

        found: list[Found] = []
        for state, path in ended.best(nbest):
            words = () if self._over_tokens else state.words
            found.append(Found(path.ids, words, path.score))
        return found

    def _extend(self, beam: "_Beam", tokens: _Scores, frame: list[float]) -> "_Beam":
        """Extend every hypothesis by one frame.

        Args:
            tokens: log-probabilities of the tokens that are tried, by id.
            frame: (V,) log-probabilities of all tokens.
        """
        # With a lexicon flashlight-text always tries the blank.
        tries_blank = not self._over_tokens or self._blank in tokens
        blank_score = frame[self._blank]

        extended = _Beam()
        for state, path in beam.items():
            self._add_new_tokens(extended, state, path, tokens)
            self._add_repeated_token(extended, state, path, tokens, frame)

            if tries_blank:
                blank_state = state._replace(token=self._blank, after_blank=True)
                extended.add(blank_state, path.plus(blank_score))

        return extended

    def _add_new_tokens(
        self, extended: "_Beam", state: "_State", path: "_Path", tokens: _Scores
    ) -> None:
        """Add the hypotheses that emit another token, and end the words that it completes."""
        # In CTC the same token again is a new one only after a blank.
        children = path.node.children
        repeated = None if state.after_blank else state.token

        for token, log_prob in tokens.items():
            node = children.get(token)
            if node is None or token == repeated:
                continue

            scored = path.plus(log_prob)
            ids = (*path.ids, token)
            longer = scored._replace(ids=ids)

            if node.children:
                inside_word = _State(state.words, id(node), token, after_blank=False)
                inside_path = longer._replace(node=node)
                extended.add(inside_word, inside_path)

            # The language model is asked only where a word is complete.
            for word in node.words:
                words = (*state.words, word)
                after_word = _State(words, id(self._root), token, after_blank=False)

                word_score = self._word_score(word, token, state.words)
                whole_path = longer.plus(word_score)
                extended.add(after_word, whole_path._replace(node=self._root))

    def _add_repeated_token(
        self,
        extended: "_Beam",
        state: "_State",
        path: "_Path",
        tokens: _Scores,
        frame: list[float],
    ) -> None:
        """Add the hypothesis in which the last token lasts for another frame."""
        if self._over_tokens:
            token = state.token
            may_repeat = not state.after_blank and token in tokens
        else:
            between_words = path.node is self._root
            token = self._separator if between_words else state.token
            may_repeat = not state.after_blank or between_words

        if may_repeat:
            added = 0.0
            if self._over_tokens and token == self._separator:
                added = self._config.word_score

            same_state = state._replace(token=token, after_blank=False)
            extended.add(same_state, path.plus(frame[token] + added))

    def _prune(self, beam: "_Beam") -> "_Beam":
        """Keep the best hypotheses: so many, and none too far below the very best."""
        best_score = max(path.score for path in beam.values())
        lowest_score = best_score - self._config.beam_threshold

        kept = _Beam()
        for state, path in beam.best(self._config.beam_size):
            if path.score >= lowest_score:
                kept[state] = path
        return kept

    def _end_sentences(self, beam: "_Beam") -> "_Beam":
        """Add the score of the sentence's end to the hypotheses that end between words."""
        between_words = _Beam()
        for state, path in beam.items():
            if path.node is self._root:
                between_words[state] = path

        # Where none ends between words all stay, for the whole words that they begin with.
        candidates = between_words or beam

        ended = _Beam()
        for state, path in candidates.items():
            sentence = (BEGIN, *state.words)
            log10_prob = self._lm.log10_prob(END, sentence)
            end_score = self._config.lm_weight * log10_prob

            # States that differ only in their last frame are merged now: nothing follows.
            end_state = state._replace(token=self._separator, after_blank=False)
            ended.add(end_state, path.plus(end_score))
        return ended

    def _word_score(self, word: str, token: int, before: tuple[str, ...]) -> float:
        """Score a word after others; a separator counts as a word where tokens are words."""
        context = (BEGIN, *before)
        log10_prob = self._lm.log10_prob(word, context)
        score = self._config.lm_weight * log10_prob

        if not self._over_tokens or token == self._separator:
            score += self._config.word_score
        return score


@dataclass
class _Node:
    """A place in the prefix tree of the lexicon: next tokens, and the words that end here."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


class _State(NamedTuple):
    """What the future of a hypothesis depends on; hypotheses of one state are merged.

    Attributes:
        words: words that have ended.
        node_id: ``id`` of the place in the lexicon.
        token: last token that was emitted, or the blank.
        after_blank: whether the last frame was a blank.
    """

    words: tuple[str, ...]
    node_id: int
    token: int
    after_blank: bool


class _Path(NamedTuple):
    """The paths that lead to a state.

    Attributes:
        score: of all paths together, ln of a sum of probabilities.
        best_score: of the best path alone.
        node: place in the lexicon.
        ids: tokens of the best path.
    """

    score: float
    best_score: float
    node: _Node
    ids: tuple[int, ...]

    def plus(self, value: float) -> "_Path":
        """Add to the scores."""
        score = self.score + value
        best_score = self.best_score + value
        return self._replace(score=score, best_score=best_score)


class _Beam(dict[_State, _Path]):
    """The hypotheses after a frame."""

    def add(self, state: _State, path: _Path) -> None:
        """Add paths to a state: probabilities are summed, the tokens are those of the better."""
        other = self.get(state)
        if other is None:
            self[state] = path
            return

        # Of two equally good paths the first one stays, so results do not depend on chance.
        better = path if path.best_score > other.best_score else other
        score = np.logaddexp(other.score, path.score)
        self[state] = better._replace(score=float(score))

    def best(self, count: int) -> list[tuple[_State, _Path]]:
        """List the hypotheses of the highest scores, best first."""
        return heapq.nlargest(count, self.items(), key=_score_of)


def _score_of(hypothesis: tuple[_State, _Path]) -> float:
    """Take the score by which hypotheses are ranked."""
    _, path = hypothesis
    return path.score


def _tokens_as_words(tokenizer: Tokenizer) -> Lexicon:
    """Make a lexicon in which every token but the blank is a word."""
    lexicon: Lexicon = {}
    for token_id in range(tokenizer.size):
        if token_id != tokenizer.blank_id:
            text = tokenizer.texts[token_id]
            name = token_name(text)
            lexicon[name] = (token_id,)
    return lexicon


def _prefix_tree(lexicon: Lexicon) -> _Node:
    """Arrange spellings so that words with the same beginning share it."""
    root = _Node()
    for word, ids in lexicon.items():
        node = root
        for token_id in ids:
            node = node.children.setdefault(token_id, _Node())

        # Several words may have one spelling.
        node.words.append(word)
    return root
