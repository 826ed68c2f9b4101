"""The compiled part of the search for words: looking up n-grams, and the loop over frames.

All compiled code is in this file. numba keeps what it compiled beside the file, and compiles again
when this file changes; it would not notice a change of another file that is compiled into it.

Scores are float64 natural logarithms. Shapes: T frames, V tokens, N nodes of the tree.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.ngram_table import NgramArrays
from speechssl.decoding.prefix_tree import TreeArrays

# ln probability of an unknown word under a model without <unk>, as KenLM has it.
_WITHOUT_UNKNOWN = -100.0 * np.log(10.0)

# Hypotheses that a frame may have before the worst of them are dropped, as a multiple of the beam.
_ROOM = 8
# Words that are remembered before those that no hypothesis needs are forgotten.
_FIRST_LINKS = 1 << 16

# Places in ``_Beam.limits``.
_BEST = 0
_LOWEST = 1
_THRESHOLD = 2


class Weights(NamedTuple):
    """How scores are weighted, and how many hypotheses are kept.

    Attributes:
        lm: of the ln probabilities of n-grams and spellings.
        word: added for each word.
        beam_size: hypotheses kept after each frame.
        threshold: hypotheses that far below the best are dropped.
    """

    lm: float
    word: float
    beam_size: int
    threshold: float


class Results(NamedTuple):
    """The hypotheses after the last frame, and the words behind them.

    Attributes:
        score: (F,) of each hypothesis.
        link: (F,) its last word but ``spelling``: a place in the arrays below; -1 for none.
        spelling: (F,) spelling that it ends with, -1 for none.
        previous: (M,) the word before each word, likewise.
        spelling_of: (M,) spelling of each word.
        are_whole: whether these hypotheses end behind a word; else none does, and these were in
            the middle of one, which is left out.
    """

    score: NDArray[np.float64]
    link: NDArray[np.int64]
    spelling: NDArray[np.int64]
    previous: NDArray[np.int64]
    spelling_of: NDArray[np.int64]
    are_whole: bool


class _Beam(NamedTuple):
    """Hypotheses of one frame, of which no two have the same future, and a hash table of them.

    Attributes:
        score: of the best path so far.
        context: node of the language model.
        place: twice the node of the tree, and 1 more if the last frame was a blank.
        link: last word that has ended.
        spelling: spelling that ended in this frame, -1 for none; it is no link yet.
        slot: where the hash table has each hypothesis.
        slots: hypothesis of each slot, -1 if it is free.
        size: (1,) number of hypotheses.
        limits: best score, score that a hypothesis needs, and how far it may be below the best.
    """

    score: NDArray[np.float64]
    context: NDArray[np.int32]
    place: NDArray[np.int32]
    link: NDArray[np.int64]
    spelling: NDArray[np.int64]
    slot: NDArray[np.int64]
    slots: NDArray[np.int64]
    size: NDArray[np.int64]
    limits: NDArray[np.float64]


@numba.njit(cache=True)
def score_word(ngrams: NgramArrays, context: int, word: int) -> tuple[float, int]:
    """Give the ln probability of a word after a context, and the context of the next word.

    A word of id -1 is one that a model without ``<unk>`` does not have.
    """
    score = 0.0
    while True:
        if context == 0:
            # Below the empty context stand all words, in the order of their ids.
            found = 1 + word if word >= 0 else -1
        else:
            found = _find_child(ngrams, context, word)

        if found >= 0:
            has_longer = ngrams.first_child[found] < ngrams.first_child[found + 1]
            matters = has_longer or ngrams.backoff[found] != 0
            next_context = found if matters else ngrams.shorter[found]
            return score + ngrams.log_prob[found], next_context

        if context == 0:
            return score + _WITHOUT_UNKNOWN, 0
        score += ngrams.backoff[context]
        context = ngrams.shorter[context]


@numba.njit(cache=True)
def _find_child(ngrams: NgramArrays, context: int, word: int) -> int:
    """Find the n-gram that is a context and a word more, or give -1."""
    low = ngrams.first_child[context]
    end = ngrams.first_child[context + 1]
    high = end
    while low < high:
        middle = (low + high) // 2
        if ngrams.word[middle] < word:
            low = middle + 1
        else:
            high = middle

    return low if low < end and ngrams.word[low] == word else -1


@numba.njit(cache=True)
def search(
    log_probs: NDArray[np.float32],
    blank: int,
    tree: TreeArrays,
    ngrams: NgramArrays,
    begin: int,
    end: int,
    weights: Weights,
) -> Results:
    """Find the most probable words of (T, V) log-probabilities.

    Args:
        blank: token of CTC that stands for nothing.
        begin, end: ids of ``<s>`` and ``</s>`` in the language model.
    """
    beam = _new_beam(weights.beam_size)
    following = _new_beam(weights.beam_size)
    previous = np.empty(_FIRST_LINKS, np.int64)
    spelling_of = np.empty(_FIRST_LINKS, np.int64)
    num_links = 0

    # Speech begins between words, as if behind a blank. Nothing predicts <s>; it is context only.
    _, start = score_word(ngrams, 0, begin)
    _add(beam, weights.beam_size, 0.0, start, 1, -1, -1)

    for frame in log_probs:
        _set_limits(following, beam, frame, blank, tree, weights.threshold)
        for i in range(beam.size[0]):
            _extend(beam, i, following, frame, blank, tree, ngrams, weights)
        _prune(following, weights.beam_size)
        _empty(beam)
        beam, following = following, beam

        if num_links + weights.beam_size > len(previous):
            num_links = _forget_links(beam, previous, spelling_of, num_links)
            if 2 * num_links + 2 * weights.beam_size > len(previous):
                previous = _twice_as_long(previous, weights.beam_size)
                spelling_of = _twice_as_long(spelling_of, weights.beam_size)

        # Only the hypotheses that are kept need their words remembered.
        for i in range(beam.size[0]):
            if beam.spelling[i] >= 0:
                previous[num_links] = beam.link[i]
                spelling_of[num_links] = beam.spelling[i]
                beam.link[i] = num_links
                beam.spelling[i] = -1
                num_links += 1

    return _finish(beam, tree, ngrams, end, weights, previous[:num_links], spelling_of[:num_links])


@numba.njit(cache=True)
def _extend(
    beam: _Beam,
    i: int,
    following: _Beam,
    frame: NDArray[np.float32],
    blank: int,
    tree: TreeArrays,
    ngrams: NgramArrays,
    weights: Weights,
) -> None:
    """Add all that hypothesis ``i`` can become in the next frame."""
    size = weights.beam_size
    score = beam.score[i]
    context = beam.context[i]
    link = beam.link[i]

    node = beam.place[i] // 2
    after_blank = beam.place[i] % 2 == 1
    separator = tree.token[0]
    has_separator = separator >= 0
    is_between_words = node == 0

    token = tree.token[node]
    first = tree.first_child[node]
    last = tree.first_child[node + 1]

    # The token lasts, or the blank. A word without a separator is left with its last token, so a
    # blank behind it stands between words, where the tree goes no further.
    blank_score = score + frame[blank]
    if after_blank:
        _add(following, size, blank_score, context, 2 * node + 1, link, -1)
        if is_between_words and has_separator:
            _add(following, size, score + frame[separator], context, 0, link, -1)
    else:
        _add(following, size, score + frame[token], context, 2 * node, link, -1)
        if is_between_words or has_separator or first < last:
            _add(following, size, blank_score, context, 2 * node + 1, link, -1)

    # The next token of a word. In CTC the same token again is a new one only after a blank.
    repeated = -1 if after_blank else token
    here = score - weights.lm * tree.ahead[node]
    for child in range(first, last):
        if tree.token[child] != repeated:
            child_score = here + weights.lm * tree.ahead[child] + frame[tree.token[child]]
            _add(following, size, child_score, context, 2 * child, link, -1)

    if after_blank and not has_separator:
        return

    # A word ends. The guess of what lay ahead gives way to the probability of the word itself.
    for spelling in range(tree.first_spelling[node], tree.first_spelling[node + 1]):
        lm_score, next_context = score_word(ngrams, context, tree.word_id[spelling])
        lm_score += tree.log_prob[spelling]
        ended = here + weights.lm * lm_score + weights.word

        if has_separator:
            _add(following, size, ended + frame[separator], next_context, 0, link, spelling)
            continue

        _add(following, size, ended + frame[blank], next_context, 1, link, spelling)
        for child in range(tree.first_child[0], tree.first_child[1]):
            if tree.token[child] != repeated:
                child_score = ended + weights.lm * tree.ahead[child] + frame[tree.token[child]]
                _add(following, size, child_score, next_context, 2 * child, link, spelling)


@numba.njit(cache=True)
def _finish(
    beam: _Beam,
    tree: TreeArrays,
    ngrams: NgramArrays,
    end: int,
    weights: Weights,
    previous: NDArray[np.int64],
    spelling_of: NDArray[np.int64],
) -> Results:
    """End the sentence behind the last frame."""
    count = beam.size[0]
    most = count
    for i in range(count):
        node = beam.place[i] // 2
        most += tree.first_spelling[node + 1] - tree.first_spelling[node]

    score = np.empty(most, np.float64)
    link = np.empty(most, np.int64)
    spelling = np.full(most, -1, np.int64)
    found = 0

    for i in range(count):
        node = beam.place[i] // 2
        after_blank = beam.place[i] % 2 == 1
        context = beam.context[i]

        if node == 0:
            end_score, _ = score_word(ngrams, context, end)
            score[found] = beam.score[i] + weights.lm * end_score
            link[found] = beam.link[i]
            found += 1
        elif not after_blank or tree.token[0] >= 0:
            here = beam.score[i] - weights.lm * tree.ahead[node]
            for last in range(tree.first_spelling[node], tree.first_spelling[node + 1]):
                word_score, next_context = score_word(ngrams, context, tree.word_id[last])
                end_score, _ = score_word(ngrams, next_context, end)
                lm_score = word_score + tree.log_prob[last] + end_score
                score[found] = here + weights.lm * lm_score + weights.word
                link[found] = beam.link[i]
                spelling[found] = last
                found += 1

    are_whole = found > 0
    if not are_whole:
        for i in range(count):
            end_score, _ = score_word(ngrams, beam.context[i], end)
            node = beam.place[i] // 2
            score[i] = beam.score[i] + weights.lm * (end_score - tree.ahead[node])
            link[i] = beam.link[i]
        found = count

    return Results(score[:found], link[:found], spelling[:found], previous, spelling_of, are_whole)


# ---- hypotheses of a frame -----------------------------------------------------------------------


@numba.njit(cache=True)
def _new_beam(beam_size: int) -> _Beam:
    """Make room for the hypotheses of a frame."""
    room = _ROOM * beam_size + 1024
    num_slots = 1
    while num_slots < 2 * room:
        num_slots *= 2

    return _Beam(
        np.empty(room, np.float64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.full(num_slots, -1, np.int64),
        np.zeros(1, np.int64),
        np.array([-np.inf, -np.inf, np.inf]),
    )


@numba.njit(cache=True)
def _set_limits(
    following: _Beam,
    beam: _Beam,
    frame: NDArray[np.float32],
    blank: int,
    tree: TreeArrays,
    threshold: float,
) -> None:
    """Begin a frame: whatever is found, it will not be worse than what just goes on."""
    best = -np.inf
    for i in range(beam.size[0]):
        node = beam.place[i] // 2
        after_blank = beam.place[i] % 2 == 1
        token = blank if after_blank else tree.token[node]
        best = max(best, beam.score[i] + frame[token])

    following.limits[_BEST] = best
    following.limits[_LOWEST] = best - threshold
    following.limits[_THRESHOLD] = threshold


@numba.njit(cache=True, forceinline=True)
def _add(
    beam: _Beam, beam_size: int, score: float, context: int, place: int, link: int, spelling: int
) -> None:
    """Add a hypothesis if it is good enough, as few are."""
    if score >= beam.limits[_LOWEST]:
        _insert(beam, beam_size, score, context, place, link, spelling)


@numba.njit(cache=True)
def _insert(
    beam: _Beam, beam_size: int, score: float, context: int, place: int, link: int, spelling: int
) -> None:
    """Add a hypothesis, or let it replace a worse one with the same future."""
    if score > beam.limits[_BEST]:
        beam.limits[_BEST] = score
        beam.limits[_LOWEST] = max(beam.limits[_LOWEST], score - beam.limits[_THRESHOLD])

    slot = _find_slot(beam, context, place)
    at = beam.slots[slot]
    if at < 0:
        if beam.size[0] == len(beam.score):
            _prune(beam, beam_size)
            if score < beam.limits[_LOWEST]:
                return
            slot = _find_slot(beam, context, place)

        at = beam.size[0]
        beam.size[0] += 1
        beam.slots[slot] = at
        beam.slot[at] = slot
        beam.context[at] = context
        beam.place[at] = place
    elif score <= beam.score[at]:
        return

    beam.score[at] = score
    beam.link[at] = link
    beam.spelling[at] = spelling


@numba.njit(cache=True)
def _find_slot(beam: _Beam, context: int, place: int) -> np.int64:
    """Find the slot of a hypothesis with this future, or the free one where it belongs."""
    mask = len(beam.slots) - 1
    key = np.uint64(context) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(place)
    key ^= key >> np.uint64(29)
    key *= np.uint64(0xBF58476D1CE4E5B9)
    key ^= key >> np.uint64(32)

    slot = np.int64(key & np.uint64(mask))
    while True:
        at = beam.slots[slot]
        if at < 0 or (beam.context[at] == context and beam.place[at] == place):
            return slot
        slot = np.int64((slot + 1) & mask)


@numba.njit(cache=True)
def _prune(beam: _Beam, beam_size: int) -> None:
    """Keep the best hypotheses: so many, and none below the limit."""
    count = beam.size[0]
    if count > beam_size:
        ordered = np.partition(beam.score[:count], count - beam_size)
        beam.limits[_LOWEST] = max(beam.limits[_LOWEST], ordered[count - beam_size])

    for i in range(count):
        beam.slots[beam.slot[i]] = -1

    # Of hypotheses that are as good as the worst of the beam, the first ones stay.
    kept = 0
    for i in range(count):
        if beam.score[i] >= beam.limits[_LOWEST] and kept < beam_size:
            beam.score[kept] = beam.score[i]
            beam.context[kept] = beam.context[i]
            beam.place[kept] = beam.place[i]
            beam.link[kept] = beam.link[i]
            beam.spelling[kept] = beam.spelling[i]
            kept += 1
    beam.size[0] = kept

    for i in range(kept):
        slot = _find_slot(beam, beam.context[i], beam.place[i])
        beam.slots[slot] = i
        beam.slot[i] = slot


@numba.njit(cache=True)
def _empty(beam: _Beam) -> None:
    """Forget all hypotheses."""
    for i in range(beam.size[0]):
        beam.slots[beam.slot[i]] = -1
    beam.size[0] = 0


# ---- words of the past ---------------------------------------------------------------------------


@numba.njit(cache=True)
def _forget_links(
    beam: _Beam, previous: NDArray[np.int64], spelling_of: NDArray[np.int64], num_links: int
) -> int:
    """Forget the words that no hypothesis has, and close the gaps; give how many are left."""
    is_needed = np.zeros(num_links, np.bool_)
    for i in range(beam.size[0]):
        if beam.link[i] >= 0:
            is_needed[beam.link[i]] = True

    # A word stands behind the one before it, so each is settled before its predecessor is met.
    for link in range(num_links - 1, -1, -1):
        if is_needed[link] and previous[link] >= 0:
            is_needed[previous[link]] = True

    moved_to = np.empty(num_links, np.int64)
    kept = 0
    for link in range(num_links):
        if is_needed[link]:
            before = previous[link]
            previous[kept] = moved_to[before] if before >= 0 else -1
            spelling_of[kept] = spelling_of[link]
            moved_to[link] = kept
            kept += 1

    for i in range(beam.size[0]):
        if beam.link[i] >= 0:
            beam.link[i] = moved_to[beam.link[i]]
    return kept


@numba.njit(cache=True)
def _twice_as_long(array: NDArray[np.int64], added: int) -> NDArray[np.int64]:
    """Copy into an array with room for as much again, and ``added`` more."""
    longer = np.empty(2 * (len(array) + added), np.int64)
    longer[: len(array)] = array
    return longer
