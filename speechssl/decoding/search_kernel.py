"""The compiled part of the search for words: looking up n-grams, and the loop over frames.

All compiled code is in this file. numba keeps what it compiled beside the file, and compiles again
when this file changes; it would not notice a change of another file that is compiled into it.

numba counts the references to each array, and it does so in steps that all processors must see.
With a call or two for each hypothesis, this took 70 % of the time. So each function works through
many hypotheses, and takes the arrays out of their tuples before its loop.

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
_ROOM = 4
# What hypotheses can become is collected until there are more of them than this.
_CANDIDATES = 512
# Words that are remembered before those that no hypothesis needs are forgotten.
_FIRST_LINKS = 1 << 16

# A hypothesis. Of one frame, no two have the same context and place: their futures are the same.
#   score: of the best path so far.
#   context: node of the language model.
#   place: twice the node of the tree, and 1 more if the last frame was a blank.
#   link: last word that has ended.
#   spelling: spelling that ended in this frame, -1 for none; it is no link yet.
_HYPOTHESIS = np.dtype(
    [
        ("score", np.float64),
        ("context", np.int32),
        ("place", np.int32),
        ("link", np.int32),
        ("spelling", np.int32),
    ]
)
Hypotheses = NDArray[np.void]
# Compiled code has one width of whole numbers; what was read from narrower arrays is widened.
Int = int | np.int64


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
    link: NDArray[np.int32]
    spelling: NDArray[np.int32]
    previous: NDArray[np.int32]
    spelling_of: NDArray[np.int32]
    are_whole: bool


@numba.njit(cache=True)
def score_word(ngrams: NgramArrays, context: Int, word: Int) -> tuple[float, Int]:
    """Give the ln probability of a word after a context, and the context of the next word.

    A word of id -1 is one that a model without ``<unk>`` does not have.
    """
    score, ngram = _find_ngram(ngrams, context, word)
    return score, _context_after(ngrams, ngram)


@numba.njit(cache=True)
def _find_ngram(ngrams: NgramArrays, context: Int, word: Int) -> tuple[float, Int]:
    """Give the ln probability of a word after a context, and the n-gram that has it, or -1."""
    words = ngrams.word
    first_child = ngrams.first_child
    backoff = ngrams.backoff
    shorter = ngrams.shorter
    log_prob = ngrams.log_prob

    score = 0.0
    while context > 0:
        low = np.int64(first_child[context])
        end = np.int64(first_child[context + 1])
        high = end
        while low < high:
            middle = (low + high) >> 1
            if words[middle] < word:
                low = middle + 1
            else:
                high = middle

        if low < end and words[low] == word:
            return score + log_prob[low], low

        score += backoff[context]
        context = np.int64(shorter[context])

    if word < 0:
        return score + _WITHOUT_UNKNOWN, -1

    # Below the empty context stand all words, in the order of their ids.
    return score + log_prob[1 + word], 1 + word


@numba.njit(cache=True)
def _context_after(ngrams: NgramArrays, ngram: Int) -> Int:
    """Give the longest context that an n-gram ends with; that of an unknown word is empty."""
    if ngram < 0:
        return 0

    has_longer = ngrams.first_child[ngram] < ngrams.first_child[ngram + 1]
    matters = has_longer or ngrams.backoff[ngram] != 0
    return ngram if matters else np.int64(ngrams.shorter[ngram])


@numba.njit(cache=True)
def search(
    log_probs: NDArray[np.float32],
    entries: NDArray[np.int32],
    blank: Int,
    tree: TreeArrays,
    ngrams: NgramArrays,
    begin: Int,
    end: Int,
    weights: Weights,
) -> Results:
    """Find the most probable words of (T, V) log-probabilities.

    Args:
        entries: (T, C) the children of the tree's node 0, by what entering them adds to a score in
            each frame, the best first.
        blank: token of CTC that stands for nothing.
        begin, end: ids of ``<s>`` and ``</s>`` in the language model.
    """
    beam_size = weights.beam_size
    candidates = np.empty(_CANDIDATES + _most_candidates(tree), _HYPOTHESIS)
    found = np.empty(_ROOM * beam_size + len(candidates), _HYPOTHESIS)
    beam = np.empty(beam_size, _HYPOTHESIS)

    num_slots = 1
    while num_slots < 2 * len(found):
        num_slots *= 2
    slots = np.empty(num_slots, np.int32)

    previous = np.empty(_FIRST_LINKS, np.int32)
    spelling_of = np.empty(_FIRST_LINKS, np.int32)
    num_links: Int = 0

    # Speech begins between words, as if behind a blank. Nothing predicts <s>; it is context only.
    _, start = score_word(ngrams, 0, begin)
    size = _put(beam, 0, 0.0, start, 1, -1, -1)

    for t in range(len(log_probs)):
        frame = log_probs[t]
        best = _best_that_lasts(beam[:size], frame, blank, tree)
        lowest = best - weights.threshold
        slots[:] = -1
        num_found: Int = 0

        done: Int = 0
        while done < size:
            done, num_candidates = _extend(
                beam[:size],
                done,
                candidates,
                lowest,
                frame,
                entries[t],
                blank,
                tree,
                ngrams,
                weights,
            )

            if num_found + num_candidates > len(found):
                num_found, lowest = _keep_best(found[:num_found], found, lowest, beam_size)
                slots[:] = -1
                num_found, best, lowest = _merge(
                    found[:num_found], found, 0, slots, best, lowest, weights.threshold
                )

            num_found, best, lowest = _merge(
                candidates[:num_candidates],
                found,
                num_found,
                slots,
                best,
                lowest,
                weights.threshold,
            )

        size, _ = _keep_best(found[:num_found], beam, lowest, beam_size)

        if num_links + beam_size > len(previous):
            num_links = _forget_links(beam[:size], previous, spelling_of, num_links)
            if 2 * num_links + 2 * beam_size > len(previous):
                previous = _twice_as_long(previous, beam_size)
                spelling_of = _twice_as_long(spelling_of, beam_size)

        # Only the hypotheses that are kept need their words remembered.
        num_links = _link_words(beam[:size], previous, spelling_of, num_links)

    return _finish(
        beam[:size], tree, ngrams, end, weights, previous[:num_links], spelling_of[:num_links]
    )


@numba.njit(cache=True)
def _most_candidates(tree: TreeArrays) -> Int:
    """Count what one hypothesis can become at most."""
    first_child = tree.first_child
    first_spelling = tree.first_spelling

    num_entries = first_child[1] - first_child[0]
    most = 0
    for node in range(len(first_child) - 1):
        num_children = first_child[node + 1] - first_child[node]
        num_spellings = first_spelling[node + 1] - first_spelling[node]
        most = max(most, num_children + num_spellings * (1 + num_entries))

    # The token may last, or the blank or the separator follow.
    return most + 3


@numba.njit(cache=True)
def _best_that_lasts(
    beam: Hypotheses, frame: NDArray[np.float32], blank: Int, tree: TreeArrays
) -> float:
    """Give the best score of hypotheses that just go on: the best of the frame is no worse."""
    token_of = tree.token

    best = -np.inf
    for i in range(len(beam)):
        hypothesis = beam[i]
        place = np.int64(hypothesis["place"])
        token = blank if place & 1 else np.int64(token_of[place >> 1])
        best = max(best, hypothesis["score"] + frame[token])
    return best


@numba.njit(cache=True)
def _extend(
    beam: Hypotheses,
    first: Int,
    candidates: Hypotheses,
    lowest: float,
    frame: NDArray[np.float32],
    entries: NDArray[np.int32],
    blank: Int,
    tree: TreeArrays,
    ngrams: NgramArrays,
    weights: Weights,
) -> tuple[Int, Int]:
    """Collect all that hypotheses can become in the next frame, with a score that is high enough.

    Args:
        first: first hypothesis.
        lowest: scores must not be lower.

    Returns:
        the hypothesis at which the candidates became too many, and how many there are.
    """
    token_of = tree.token
    first_child = tree.first_child
    ahead = tree.ahead
    first_spelling = tree.first_spelling
    word_id = tree.word_id
    spelling_log_prob = tree.log_prob
    lm = weights.lm

    separator = np.int64(token_of[0])
    has_separator = separator >= 0
    blank_score = np.float64(frame[blank])

    # What the first frame behind a word adds at most.
    best_entry = np.int64(entries[0])
    best_behind_word = max(blank_score, lm * ahead[best_entry] + frame[token_of[best_entry]])
    if has_separator:
        best_behind_word = np.float64(frame[separator])

    count: Int = 0
    for i in range(first, len(beam)):
        if count > _CANDIDATES:
            return i, count

        score = beam[i]["score"]
        context = np.int64(beam[i]["context"])
        link = np.int64(beam[i]["link"])
        place = np.int64(beam[i]["place"])

        node = place >> 1
        after_blank = place & 1 == 1
        is_between_words = node == 0
        token = np.int64(token_of[node])
        child = np.int64(first_child[node])
        last = np.int64(first_child[node + 1])

        # The token lasts. So does the space between words, behind a blank too.
        lasts = (is_between_words and has_separator) or not after_blank
        if lasts and score + frame[token] >= lowest:
            count = _put(candidates, count, score + frame[token], context, 2 * node, link, -1)

        # The blank follows, or lasts. A word without a separator is left with its last token, so a
        # blank behind it stands between words, where the tree goes no further.
        may_pause = after_blank or is_between_words or has_separator or child < last
        if may_pause and score + blank_score >= lowest:
            count = _put(candidates, count, score + blank_score, context, 2 * node + 1, link, -1)

        # The next token of a word. In CTC the same token again is a new one only after a blank.
        repeated = -1 if after_blank else token
        here = score - lm * ahead[node]
        if is_between_words:
            count = _enter_words(
                candidates,
                count,
                lowest,
                here,
                repeated,
                context,
                link,
                -1,
                frame,
                entries,
                token_of,
                ahead,
                lm,
            )
            continue

        while child < last:
            next_token = np.int64(token_of[child])
            child_score = here + lm * ahead[child] + frame[next_token]
            if child_score >= lowest and next_token != repeated:
                count = _put(candidates, count, child_score, context, 2 * child, link, -1)
            child += 1

        if after_blank and not has_separator:
            continue

        # A word ends. The guess of what lay ahead gives way to the probability of the word itself.
        for spelling in range(first_spelling[node], first_spelling[node + 1]):
            word = np.int64(word_id[spelling])
            lm_score, ngram = _find_ngram(ngrams, context, word)
            ended = here + lm * (lm_score + spelling_log_prob[spelling]) + weights.word
            if ended + best_behind_word < lowest:
                continue

            next_context = _context_after(ngrams, ngram)
            if has_separator:
                ended += best_behind_word
                count = _put(candidates, count, ended, next_context, 0, link, spelling)
                continue

            if ended + blank_score >= lowest:
                pause = ended + blank_score
                count = _put(candidates, count, pause, next_context, 1, link, spelling)

            count = _enter_words(
                candidates,
                count,
                lowest,
                ended,
                repeated,
                next_context,
                link,
                spelling,
                frame,
                entries,
                token_of,
                ahead,
                lm,
            )

    return len(beam), count


@numba.njit(cache=True, forceinline=True)
def _enter_words(
    candidates: Hypotheses,
    count: Int,
    lowest: float,
    score: float,
    repeated: Int,
    context: Int,
    link: Int,
    spelling: Int,
    frame: NDArray[np.float32],
    entries: NDArray[np.int32],
    token_of: NDArray[np.int32],
    ahead: NDArray[np.float32],
    lm: float,
) -> Int:
    """Collect the first tokens of words, the best first, until one is not good enough."""
    for i in range(len(entries)):
        node = np.int64(entries[i])
        token = np.int64(token_of[node])
        entered = score + (lm * ahead[node] + frame[token])
        if entered < lowest:
            break
        if token != repeated:
            count = _put(candidates, count, entered, context, 2 * node, link, spelling)
    return count


@numba.njit(cache=True, forceinline=True)
def _put(
    hypotheses: Hypotheses,
    count: Int,
    score: float,
    context: Int,
    place: Int,
    link: Int,
    spelling: Int,
) -> Int:
    """Write a hypothesis behind so many others, and give their new number."""
    hypothesis = hypotheses[count]
    hypothesis["score"] = score
    hypothesis["context"] = context
    hypothesis["place"] = place
    hypothesis["link"] = link
    hypothesis["spelling"] = spelling
    return count + 1


@numba.njit(cache=True)
def _merge(
    candidates: Hypotheses,
    found: Hypotheses,
    num_found: Int,
    slots: NDArray[np.int32],
    best: float,
    lowest: float,
    threshold: float,
) -> tuple[Int, float, float]:
    """Add candidates to what was found, of those with the same future the best only.

    Args:
        slots: a hash table of what was found: its places, -1 where a slot is free.
        best: best score of the frame until now.
        lowest: scores must not be lower.

    Returns:
        the new number, best score and lowest score.
    """
    mask = np.uint64(len(slots) - 1)
    for i in range(len(candidates)):
        candidate = candidates[i]
        score = candidate["score"]
        if score < lowest:
            continue
        if score > best:
            best = score
            lowest = max(lowest, best - threshold)

        context = candidate["context"]
        place = candidate["place"]
        key = np.uint64(context) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(place)
        key ^= key >> np.uint64(29)
        key *= np.uint64(0xBF58476D1CE4E5B9)
        slot = (key ^ (key >> np.uint64(32))) & mask

        while True:
            at = slots[slot]
            if at < 0:
                slots[slot] = num_found
                found[num_found] = candidate
                num_found += 1
                break

            other = found[at]
            if other["context"] == context and other["place"] == place:
                if score > other["score"]:
                    found[at] = candidate
                break
            slot = (slot + np.uint64(1)) & mask

    return num_found, best, lowest


@numba.njit(cache=True)
def _keep_best(
    found: Hypotheses, kept: Hypotheses, lowest: float, beam_size: Int
) -> tuple[Int, float]:
    """Keep the best hypotheses: so many, and none below the limit.

    Args:
        kept: where they are written; it may be the same array.

    Returns:
        their number, and the limit that they had to reach.
    """
    scores = np.empty(len(found), np.float64)
    num_good = 0
    for i in range(len(found)):
        if found[i]["score"] >= lowest:
            scores[num_good] = found[i]["score"]
            num_good += 1

    # Of hypotheses that are as good as the worst of the beam, the first ones stay.
    num_ties = num_good
    if num_good > beam_size:
        ordered = np.partition(scores[:num_good], num_good - beam_size)[num_good - beam_size :]
        lowest = ordered[0]
        num_ties = 0
        for score in ordered:
            num_ties += score == lowest

    count: Int = 0
    for i in range(len(found)):
        score = found[i]["score"]
        if score < lowest:
            continue
        if score == lowest:
            num_ties -= 1
            if num_ties < 0:
                continue
        kept[count] = found[i]
        count += 1
    return count, lowest


@numba.njit(cache=True)
def _finish(
    beam: Hypotheses,
    tree: TreeArrays,
    ngrams: NgramArrays,
    end: Int,
    weights: Weights,
    previous: NDArray[np.int32],
    spelling_of: NDArray[np.int32],
) -> Results:
    """End the sentence behind the last frame."""
    most = len(beam)
    for i in range(len(beam)):
        node = np.int64(beam[i]["place"]) >> 1
        most += tree.first_spelling[node + 1] - tree.first_spelling[node]

    score = np.empty(most, np.float64)
    link = np.empty(most, np.int32)
    spelling = np.full(most, -1, np.int32)
    found = 0

    for i in range(len(beam)):
        node = np.int64(beam[i]["place"]) >> 1
        after_blank = beam[i]["place"] & 1 == 1
        context = np.int64(beam[i]["context"])

        if node == 0:
            end_score, _ = _find_ngram(ngrams, context, end)
            score[found] = beam[i]["score"] + weights.lm * end_score
            link[found] = beam[i]["link"]
            found += 1
        elif not after_blank or tree.token[0] >= 0:
            here = beam[i]["score"] - weights.lm * tree.ahead[node]
            for last in range(tree.first_spelling[node], tree.first_spelling[node + 1]):
                word_score, next_context = score_word(ngrams, context, np.int64(tree.word_id[last]))
                end_score, _ = _find_ngram(ngrams, next_context, end)
                lm_score = word_score + tree.log_prob[last] + end_score

                score[found] = here + weights.lm * lm_score + weights.word
                link[found] = beam[i]["link"]
                spelling[found] = last
                found += 1

    are_whole = found > 0
    if not are_whole:
        for i in range(len(beam)):
            end_score, _ = _find_ngram(ngrams, np.int64(beam[i]["context"]), end)
            node = np.int64(beam[i]["place"]) >> 1
            score[i] = beam[i]["score"] + weights.lm * (end_score - tree.ahead[node])
            link[i] = beam[i]["link"]
        found = len(beam)

    return Results(score[:found], link[:found], spelling[:found], previous, spelling_of, are_whole)


# ---- words of the past ---------------------------------------------------------------------------


@numba.njit(cache=True)
def _link_words(
    beam: Hypotheses, previous: NDArray[np.int32], spelling_of: NDArray[np.int32], num_links: Int
) -> Int:
    """Remember the words that ended in this frame, and give the new number of words."""
    for i in range(len(beam)):
        hypothesis = beam[i]
        if hypothesis["spelling"] >= 0:
            previous[num_links] = hypothesis["link"]
            spelling_of[num_links] = hypothesis["spelling"]
            hypothesis["link"] = num_links
            hypothesis["spelling"] = -1
            num_links += 1
    return num_links


@numba.njit(cache=True)
def _forget_links(
    beam: Hypotheses, previous: NDArray[np.int32], spelling_of: NDArray[np.int32], num_links: Int
) -> Int:
    """Forget the words that no hypothesis has, and close the gaps; give how many are left."""
    is_needed = np.zeros(num_links, np.bool_)
    for i in range(len(beam)):
        hypothesis = beam[i]
        if hypothesis["link"] >= 0:
            is_needed[hypothesis["link"]] = True

    # A word stands behind the one before it, so each is settled before its predecessor is met.
    for link in range(num_links - 1, -1, -1):
        if is_needed[link] and previous[link] >= 0:
            is_needed[previous[link]] = True

    moved_to = np.empty(num_links, np.int32)
    kept = 0
    for link in range(num_links):
        if is_needed[link]:
            before = previous[link]
            previous[kept] = moved_to[before] if before >= 0 else -1
            spelling_of[kept] = spelling_of[link]
            moved_to[link] = kept
            kept += 1

    for i in range(len(beam)):
        hypothesis = beam[i]
        if hypothesis["link"] >= 0:
            hypothesis["link"] = moved_to[hypothesis["link"]]
    return kept


@numba.njit(cache=True)
def _twice_as_long(array: NDArray[np.int32], added: Int) -> NDArray[np.int32]:
    """Copy into an array with room for as much again, and ``added`` more."""
    longer = np.empty(2 * (len(array) + added), np.int32)
    longer[: len(array)] = array
    return longer
