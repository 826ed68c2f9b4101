"""What is left out by relative entropy: beside the definition, and summed to one."""

import math
from itertools import pairwise, product
from pathlib import Path

import pytest
from support.language_models import toy_sentences, write_lm

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import BEGIN, NgramModel
from speechssl.ngrams.arpa_table import read_table
from speechssl.ngrams.entropy_pruning import prune_by_entropy


def relative_entropy(model: NgramModel, pruned: NgramModel, context: str) -> float:
    """By definition, the sum over all words, weighted by how probable the context is."""
    # A sentence begins as often as one ends.
    seen = "</s>" if context == BEGIN else context
    total = 0.0
    for word in model.words:
        before = model.log10_prob(word, [context])
        after = pruned.log10_prob(word, [context])
        total += 10**before * (before - after) * math.log(10)
    return 10 ** model.log10_prob(seen, []) * total


def without(table_path: Path, ngram: tuple[str, str], out: Path) -> NgramModel:
    """The model without one 2-gram: its line goes, and its context gets its weight anew."""
    model = read_arpa(table_path)
    context, last = ngram
    lines = table_path.read_text().splitlines()
    followers = [w for w in model.words if any(f"\t{context} {w}" in line for line in lines)]
    left = 1 - sum(10 ** model.log10_prob(w, [context]) for w in followers if w != last)
    shorter = 1 - sum(10 ** model.log10_prob(w, []) for w in followers if w != last)

    changed = []
    for line in lines:
        fields = line.split("\t")
        if len(fields) > 1 and fields[1] == f"{context} {last}":
            continue
        if len(fields) == 3 and fields[1] == context:
            line = f"{fields[0]}\t{context}\t{math.log10(left / shorter):.9f}"
        changed.append(line)

    number = next(line for line in lines if line.startswith("ngram 2="))
    count = int(number.partition("=")[2])
    text = "\n".join(changed).replace(number, f"ngram 2={count - 1}")

    out.write_text(text + "\n")
    return read_arpa(out)


def test_a_bigram_stays_where_the_perplexity_would_rise(tmp_path: Path) -> None:
    write_lm(tmp_path / "lm.arpa", toy_sentences(60, vocabulary=6), 2)
    model = read_arpa(tmp_path / "lm.arpa")
    table = read_table(tmp_path / "lm.arpa")
    bigrams = [
        (table.words[context], table.words[word]) for word, context in table.orders[1].ids.tolist()
    ]
    rises = {}
    for ngram in bigrams:
        pruned = without(tmp_path / "lm.arpa", ngram, tmp_path / "one_less.arpa")
        rises[ngram] = math.expm1(relative_entropy(model, pruned, ngram[0]))

    # Between two neighbours in the middle.
    ordered = sorted(rises.values())
    middle = len(ordered) // 2
    threshold = (ordered[middle] + ordered[middle + 1]) / 2
    expected = {ngram for ngram, rise in rises.items() if rise >= threshold}

    num_pruned = prune_by_entropy(table, threshold)
    kept = {
        (table.words[context], table.words[word]) for word, context in table.orders[1].ids.tolist()
    }
    assert kept == expected
    assert num_pruned == len(bigrams) - len(kept) == middle + 1


@pytest.mark.parametrize("threshold", [0, 1e-5, 1e-4, 1e-2, 10])
def test_every_context_sums_to_one_and_parts_stay(tmp_path: Path, threshold: float) -> None:
    sentences = toy_sentences(200, vocabulary=10)
    write_lm(tmp_path / "lm.arpa", sentences, 4)
    table = read_table(tmp_path / "lm.arpa")
    num_before = sum(len(order.ids) for order in table.orders)
    num_pruned = prune_by_entropy(table, threshold)
    (tmp_path / "pruned.arpa").write_text("".join(table.lines()))
    model, whole = read_arpa(tmp_path / "pruned.arpa"), read_arpa(tmp_path / "lm.arpa")

    assert model.num_ngrams == num_before - num_pruned
    assert model.words == whole.words
    if threshold == 0:
        assert num_pruned == 0
    elif threshold == 10:
        assert model.num_ngrams == len(model.words) + 1

    found = [{tuple(row) for row in order.ids.tolist()} for order in table.orders]
    for shorter, longer in pairwise(found):
        assert {row[1:] for row in longer} | {row[:-1] for row in longer} <= shorter

    few = ("w1", "w2", "w3", BEGIN)
    contexts = [c for k in range(4) for c in product(few, repeat=k) if BEGIN not in c[1:]]
    for context in contexts:
        total = math.fsum(10 ** model.log10_prob(word, context) for word in model.words)
        assert total == pytest.approx(1, abs=1e-5)
