"""Viterbi search over words, in plain Python: every spelling for itself, and nothing is dropped."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

# Gives the weighted score of a word (None: the end) after the words before it, the last of them
# as many as matter.
WordScore = Callable[[str | None, tuple[str, ...]], float]
Spellings = Mapping[str, Sequence[tuple[tuple[int, ...], float]]]


def lexicon_search(
    log_probs: np.ndarray,
    spellings: Spellings,
    word_score: WordScore,
    num_context: int,
    separator: int | None = None,
    blank: int = 0,
) -> tuple[tuple[str, ...], float]:
    """Find the words of the best path through (T, V) log-probabilities, and its score.

    Args:
        spellings: token ids of each word, and what is added for them.
        num_context: words that the score of a word depends on.
        separator: stands between words, any number of times, and may at both ends.
    """
    # The place in an utterance: what is being said, the place of the next token in it, and the
    # token of the last frame. Between words, nothing is being said.
    nowhere: tuple[tuple[int, ...], str] = ((), "")
    start = ((), nowhere, 0, blank)
    best = _Best()
    best.add(start, 0.0, ())

    for frame in log_probs.tolist():
        following = _Best()
        add = following.add

        for (context, saying, place, last), (score, words) in best.items():
            ids, _ = saying
            add((context, saying, place, last), score + frame[last], words)
            add((context, saying, place, blank), score + frame[blank], words)

            if place < len(ids):
                token = ids[place]
                if token != last:
                    add((context, saying, place + 1, token), score + frame[token], words)
                continue

            # Whatever was said is whole now: a separator, or the next word, can begin.
            if separator is not None and last != separator:
                add((context, nowhere, 0, separator), score + frame[separator], words)
            needs_separator = separator is not None and bool(ids)
            if needs_separator:
                continue

            for word, ways in spellings.items():
                gained = word_score(word, context)
                longer = (*words, word)
                next_context = longer[len(longer) - min(len(longer), num_context) :]
                for own_ids, added in ways:
                    token = own_ids[0]
                    if token != last:
                        state = (next_context, (own_ids, word), 1, token)
                        add(state, score + frame[token] + gained + added, longer)

        best = following

    ended = [
        (score + word_score(None, context), words)
        for (context, (ids, _), place, _), (score, words) in best.items()
        if place == len(ids)
    ]
    score, words = max(ended)
    return words, score


class _Best(dict[tuple, tuple[float, tuple[str, ...]]]):
    """The best score of each state, and the words that led to it."""

    def add(self, state: tuple, score: float, words: tuple[str, ...]) -> None:
        if score > self.get(state, (-np.inf,))[0]:
            self[state] = (score, words)


def path_score(log_probs: np.ndarray, tokens: Sequence[int], blank: int = 0) -> float:
    """Give the score of the best alignment of tokens with (T, V) log-probabilities."""
    states = [blank]
    for token in tokens:
        states += [token, blank]

    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    for frame in log_probs[1:]:
        before = score
        score = before.copy()
        score[1:] = np.maximum(score[1:], before[:-1])
        for place, (first, second) in enumerate(pairwise(states[1::2])):
            if first != second:
                score[2 * place + 3] = max(score[2 * place + 3], before[2 * place + 1])
        score += frame[states]
    return float(score[-2:].max())
