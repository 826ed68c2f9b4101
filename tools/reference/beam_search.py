"""CTC prefix beam search in float64 numpy, one prefix after the other, without a language model."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelling = tuple[int, ...]


def prefix_beam_search(log_probs: Array, beam: int) -> list[tuple[Labelling, float]]:
    """The ``beam`` most probable labellings (blank 0) with their log-probabilities, the best first.

    Of a prefix two numbers are kept: the probability of its paths that end in a blank, and of those that end in its
    last token. Only after a blank can the same token come again as a new one.

    Args:
        log_probs: (T, V).
        beam: prefixes kept after each frame. Paths that leave the beam are lost: a narrow one gives lower bounds.
    """
    kept: dict[Labelling, tuple[float, float]] = {(): (0.0, -np.inf)}
    for frame in log_probs:
        in_blank: dict[Labelling, float] = defaultdict(lambda: -np.inf)
        in_token: dict[Labelling, float] = defaultdict(lambda: -np.inf)
        for prefix, (after_blank, after_token) in kept.items():
            both = np.logaddexp(after_blank, after_token)
            in_blank[prefix] = np.logaddexp(in_blank[prefix], both + frame[0])
            for token in range(1, len(frame)):
                longer = (*prefix, token)
                if prefix and prefix[-1] == token:
                    in_token[prefix] = np.logaddexp(in_token[prefix], after_token + frame[token])
                    in_token[longer] = np.logaddexp(in_token[longer], after_blank + frame[token])
                else:
                    in_token[longer] = np.logaddexp(in_token[longer], both + frame[token])
        whole = {
            p: float(np.logaddexp(in_blank[p], in_token[p]))
            for p in in_blank.keys() | in_token.keys()
        }
        possible = [p for p, score in whole.items() if score > -np.inf]
        # Equal ones in alphabetical order, so that nothing depends on the order of a set.
        best = sorted(possible, key=lambda p: (-whole[p], p))[:beam]
        kept = {p: (in_blank[p], in_token[p]) for p in best}
    scores = {p: float(np.logaddexp(*pair)) for p, pair in kept.items()}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
