"""Search for the words that a recogniser and a language model over words find most probable."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speechssl.decoding.hypothesis import BeamConfig, Decoded, Hypothesis, SpokenWord
from speechssl.decoding.ngram import BEGIN, END
from speechssl.decoding.search_kernel import Results, Weights, search
from speechssl.decoding.word_model import WordModel
from speechssl.text.tokenizer import Tokenizer

# Weights are of log10 probabilities, and the search has natural logarithms.
_LN_10 = float(np.log(10.0))


class LexiconSearch:
    """Viterbi search over the tree of all spellings, frame by frame.

    A hypothesis is a path through CTC's tokens and blanks. Of those with the same place in the
    tree, the same context of the language model and the same last frame (blank or token) only the
    best goes on, since their futures are the same. Within a word the best unigram that lies ahead
    stands for the word's probability (look-ahead). Where the recogniser has a token for the space,
    each word is followed by it, and the last one need not be. In scripts without spaces between
    words it may follow any word, and what is found are the tokens, whose texts tell the rest.

    Source: Ney et al. 1992, "Improvements in beam search for 10000-word continuous speech
    recognition" (tree and pruning), and Ortmanns et al. 1996, "Language-model look-ahead for large
    vocabulary speech recognition", over the topology of CTC (Graves et al. 2006). Ney's trees have
    one copy for each last word; here, one for each context of the language model.
    """

    def __init__(self, tokenizer: Tokenizer, model: WordModel, config: BeamConfig) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._weights = Weights(
            lm=config.lm_weight / _LN_10,
            word=config.word_score,
            beam_size=config.beam_size,
            threshold=config.beam_threshold,
        )
        ids = model.table.ids()
        self._begin = ids[BEGIN]
        self._end = ids[END]

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Hypothesis]:
        """Find the ``nbest`` best of (T, V) log-probabilities, best first, each text once.

        Only hypotheses that are in the beam after the last frame can be among them.
        """
        frames = np.ascontiguousarray(log_probs.numpy(), np.float32)
        results = search(
            frames,
            self._entries(frames),
            self._model.blank_id,
            self._model.tree.arrays,
            self._model.table.arrays,
            self._begin,
            self._end,
            self._weights,
        )

        found: dict[str, Hypothesis] = {}
        for place in np.argsort(-results.score, kind="stable").tolist():
            hypothesis = self._hypothesis(results, place)
            found.setdefault(hypothesis.text, hypothesis)
            if len(found) == nbest:
                break
        return list(found.values())

    def _entries(self, frames: NDArray[np.float32]) -> NDArray[np.int32]:
        """(T, C) the first nodes of words in each frame, those that add most to a score first."""
        tree = self._model.tree.arrays
        nodes = np.arange(tree.first_child[0], tree.first_child[1], dtype=np.int32)
        ahead = self._weights.lm * tree.ahead[nodes].astype(np.float64)
        added = frames[:, tree.token[nodes]] + ahead
        return nodes[np.argsort(-added, axis=1)]

    def _hypothesis(self, results: Results, place: int) -> Hypothesis:
        """Follow the words of a hypothesis from the last one back."""
        spellings: list[int] = []
        last = int(results.spelling[place])
        if last >= 0:
            spellings.append(last)

        link = int(results.link[place])
        while link >= 0:
            spellings.append(int(results.spelling_of[link]))
            link = int(results.previous[link])

        ids: list[int] = []
        words: list[SpokenWord] = []
        tree = self._model.tree
        for spelling in reversed(spellings):
            # The space belongs to the word before it.
            if words:
                ids += self._model.separator
                before = words.pop()
                num_tokens = before.num_tokens + len(self._model.separator)
                words.append(before._replace(num_tokens=num_tokens))

            ids += tree.ids[spelling]
            words.append(SpokenWord(tree.words[spelling], len(tree.ids[spelling])))

        score = float(results.score[place])
        if self._model.are_joined:
            text = self._tokenizer.decode(ids)
            return Hypothesis(text, score, Decoded(tuple(ids)))

        text = " ".join(word.text for word in words)
        return Hypothesis(text, score, Decoded(tuple(ids), tuple(words)))
