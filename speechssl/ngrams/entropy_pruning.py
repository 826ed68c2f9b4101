"""Leaving out the n-grams that a model hardly needs (relative entropy, Stolcke 1998)."""

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.ngram import BEGIN, END, SPECIAL
from speechssl.ngrams.arpa_text import Floats
from speechssl.ngrams.table import NgramTable, TableOrder, left_over, renormalise

_BEGIN_ID = SPECIAL.index(BEGIN)
_END_ID = SPECIAL.index(END)


def prune_by_entropy(table: NgramTable, threshold: float) -> int:
    """Leave out each n-gram that raises the perplexity by a share below ``threshold`` alone.

    The table is changed in place. Unigrams stay, and so does what longer n-grams that stay have at
    their beginning or at their end.

    Returns:
        How many n-grams are left out.

    Source: Stolcke 1998, "Entropy-based pruning of backoff language models" (arXiv cs/0006025),
    section 3. We differ: an n-gram at the end of a longer one stays, too, so that backing off finds
    what it found.
    """
    num_pruned = 0
    joint = _joint_log10_probs(table)

    for length in range(len(table.orders), 1, -1):
        order = table.orders[length - 1]
        rise = _perplexity_rise(table, length, joint[length - 2])
        is_kept = rise >= threshold

        if length < len(table.orders):
            longer = table.orders[length]
            is_kept[longer.context] = True
            is_kept[longer.suffix] = True
            _renumber(longer, is_kept)

        num_pruned += int((~is_kept).sum())
        table.orders[length - 1] = _selected(order, is_kept)
        renormalise(table.orders, length - 1)

    return num_pruned


def _joint_log10_probs(table: NgramTable) -> list[Floats]:
    """Give the log10 probability of all words of each n-gram, by length.

    A sentence begins as often as one ends, so ``<s>`` has the probability of ``</s>``.
    """
    joint: list[Floats] = []
    for order in table.orders:
        values = order.log10_prob.copy()
        if joint:
            values += joint[-1][order.context]
        else:
            words = order.ids[:, 0]
            values[words == _BEGIN_ID] = values[words == _END_ID]
        joint.append(values)
    return joint


def _perplexity_rise(table: NgramTable, length: int, log10_context: Floats) -> Floats:
    """By what share of itself the perplexity rises if one n-gram alone is left out.

    With the backoff weights a before and b after, q(w) = p(w | h without its first word), and B
    what all n-grams after h leave over, the relative entropy between the models is

        D = - p(h) (p(w | h) (ln q(w) + ln b - ln p(w | h)) + B (ln b - ln a))

    and the rise is exp(D) - 1.
    """
    order = table.orders[length - 1]
    shorter = table.orders[length - 2]

    prob = 10**order.log10_prob
    shorter_prob = 10 ** shorter.log10_prob[order.suffix]
    left, left_by_shorter = left_over(table.orders, length - 1)
    own_left = left[order.context]
    own_left_by_shorter = left_by_shorter[order.context]

    # Where nothing is left over, there is no weight before, and B times its logarithm is 0.
    tiny = np.finfo(np.float64).tiny
    before = np.maximum(own_left, tiny) / np.maximum(own_left_by_shorter, tiny)
    after = (own_left + prob) / np.maximum(own_left_by_shorter + shorter_prob, tiny)

    own_change = prob * (np.log(shorter_prob) + np.log(after) - np.log(prob))
    others_change = own_left * (np.log(after) - np.log(before))
    context_prob = 10 ** log10_context[order.context]
    rise: Floats = np.expm1(-context_prob * (own_change + others_change))
    return rise


def _renumber(longer: TableOrder, is_kept: NDArray[np.bool_]) -> None:
    """Give the parts of longer n-grams their new ids."""
    new_ids = np.cumsum(is_kept) - 1
    longer.context = new_ids[longer.context]
    longer.suffix = new_ids[longer.suffix]


def _selected(order: TableOrder, is_kept: NDArray[np.bool_]) -> TableOrder:
    return TableOrder(
        order.ids[is_kept],
        order.context[is_kept],
        order.suffix[is_kept],
        order.log10_prob[is_kept],
        order.log10_backoff[is_kept],
    )
