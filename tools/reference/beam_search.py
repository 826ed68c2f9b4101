"""CTC prefix beam search in float64 numpy, prefix after prefix, without a language model."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelling = tuple[int, ...]


def prefix_beam_search(log_probs: Array, beam: int) -> list[tuple[Labelling, float]]:
    """Find the ``beam`` most probable labellings (blank 0) with their log-probabilities.

    Two numbers are kept of a prefix: the probability of its paths that end in a blank, and of those
    that end in its last token. Only after a blank can the same token come again as a new one.

    Args:
        log_probs: (T, V).
        beam: prefixes kept after each frame. Paths that leave the beam are lost, so a narrow beam
            gives lower bounds.

    Returns:
        Labellings with scores, best first.
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

        kept = {}
        for prefix in _best(in_blank, in_token, beam):
            kept[prefix] = (in_blank[prefix], in_token[prefix])

    scores = {prefix: float(np.logaddexp(*pair)) for prefix, pair in kept.items()}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _best(
    in_blank: dict[Labelling, float], in_token: dict[Labelling, float], beam: int
) -> list[Labelling]:
    """Rank prefixes by the probability of all their paths; impossible ones are left out."""
    scores: dict[Labelling, float] = {}
    for prefix in in_blank.keys() | in_token.keys():
        score = float(np.logaddexp(in_blank[prefix], in_token[prefix]))
        if score > -np.inf:
            scores[prefix] = score

    # Equal ones in alphabetical order, so that nothing depends on the order of a set.
    return sorted(scores, key=lambda prefix: (-scores[prefix], prefix))[:beam]
