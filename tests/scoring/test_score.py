"""Word and character errors against brute force and jiwer, intervals against a plain bootstrap."""

import json

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.edit_distance import Edits, best_alignments, distance

from speechssl.errors import ConfigError, ManifestError
from speechssl.scoring.score import Confusion, Counts, Score, score

SENTENCES = st.lists(st.sampled_from(["a", "b", "cat", "dog's", "é"]), max_size=5).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6)


def score_pairs(pairs: list[tuple[str, str]], num_bootstrap: int = 20) -> Score:
    references = {f"u{i:03}": reference for i, (reference, _) in enumerate(pairs)}
    hypotheses = {f"u{i:03}": hypothesis for i, (_, hypothesis) in enumerate(pairs)}
    return score(references, hypotheses, num_bootstrap=num_bootstrap)


def edits_of(counts: Counts) -> Edits:
    return Edits(counts.hits, counts.substitutions, counts.insertions, counts.deletions)


@given(PAIRS)
def test_equals_brute_force_and_jiwer(pairs: list[tuple[str, str]]) -> None:
    result = score_pairs(pairs)
    references, hypotheses = map(list, zip(*pairs, strict=True))
    assert result.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert result.cer == pytest.approx(jiwer.cer(references, hypotheses))
    for row, (reference, hypothesis) in zip(result.utterances, pairs, strict=True):
        assert row.words.errors == distance(reference.split(), hypothesis.split())
        assert edits_of(row.words) in best_alignments(reference.split(), hypothesis.split())
        assert edits_of(row.characters) in best_alignments(reference, hypothesis)
        assert row.words.reference_length == len(reference.split())
        assert row.words.hits + row.words.substitutions + row.words.insertions == len(
            hypothesis.split()
        )
        assert row.characters.reference_length == len(reference)
    assert result.words.errors == sum(u.words.errors for u in result.utterances)
    assert result.wer == result.words.errors / max(1, sum(len(r.split()) for r in references))
    assert sum(c.count for c in result.confusions(10**6)) == result.words.errors
    assert result.sentence_error_rate == sum(r != h for r, h in pairs) / len(pairs)


@given(SENTENCES, SENTENCES)
def test_confusions_turn_one_side_into_the_other(reference: str, hypothesis: str) -> None:
    result = score_pairs([(reference, hypothesis)])
    kinds = {"sub": 0, "ins": 0, "del": 0}
    for confusion in result.confusions(100):
        assert confusion.reference != confusion.hypothesis
        kind = "del" if not confusion.hypothesis else "ins" if not confusion.reference else "sub"
        kinds[kind] += confusion.count
    words = result.words
    assert (kinds["sub"], kinds["ins"], kinds["del"]) == (
        words.substitutions,
        words.insertions,
        words.deletions,
    )


def test_counts_confusions_and_worst_by_hand() -> None:
    result = score_pairs(
        [("the cat sat", "the bat sat down"), ("the cat", "the bat"), ("yes", ""), ("no", "no")]
    )
    assert result.words == Counts(hits=4, substitutions=2, insertions=1, deletions=1)
    assert result.wer == 4 / 7
    assert result.confusions() == [
        Confusion("cat", "bat", 2),
        Confusion("", "down", 1),
        Confusion("yes", "", 1),
    ]
    assert result.confusions(top=1) == [Confusion("cat", "bat", 2)]
    assert [u.utterance_id for u in result.worst(2)] == ["u000", "u002"]
    assert len(result.worst(100)) == 4
    assert result.sentence_error_rate == 0.75


def test_rate_is_a_ratio_of_sums_not_a_mean_of_rates() -> None:
    assert score_pairs([("a", "b"), ("a b c d e f g h i", "a b c d e f g h i")]).wer == 0.1


def test_empty_references_count_their_insertions() -> None:
    result = score_pairs([("", "x y"), ("a b", "a b")])
    assert result.words == Counts(hits=2, substitutions=0, insertions=2, deletions=0)
    assert result.wer == 1.0
    assert result.utterances[0].wer == 2.0
    assert result.utterances[0].cer == 3.0


@pytest.mark.parametrize(("hypothesis", "wer", "cer"), [("", 0.0, 0.0), ("x yz", 2.0, 4.0)])
def test_only_empty_references(hypothesis: str, wer: float, cer: float) -> None:
    result = score_pairs([(" ", hypothesis)])
    assert (
        (result.wer, result.cer)
        == (wer, cer)
        == (jiwer.wer("", hypothesis), jiwer.cer("", hypothesis))
    )
    assert result.wer_interval == (wer, wer)


def test_white_space_of_any_kind_separates_words() -> None:
    assert score_pairs([("a\tb\nc ", "  a b  c")]).cer == 0.0


def test_order_of_ids_does_not_matter() -> None:
    references = {f"u{i}": "a b c" for i in range(9)}
    hypotheses = {f"u{i}": "a b c"[: i % 6] for i in range(9)}
    backwards = [dict(reversed(table.items())) for table in (references, hypotheses)]
    assert score(references, hypotheses) == score(*backwards)
    one, two = (
        score(references, hypotheses, seed=seed, num_bootstrap=3).wer_interval for seed in (1, 2)
    )
    assert one != two


def test_differing_ids_are_named() -> None:
    references = {f"u{i}": "a" for i in range(6)}
    with pytest.raises(ManifestError, match=r"5 utterances have no hypothesis: u1, u2, u3, \.\.\."):
        score(references, {"u0": "a"})
    with pytest.raises(
        ManifestError, match=r"1 utterances have a hypothesis but no reference: x\."
    ):
        score(references, references | {"x": "a"})


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ManifestError, match="no utterances"):
        score({}, {})
    with pytest.raises(ConfigError, match="num_bootstrap"):
        score({"u": "a"}, {"u": "a"}, num_bootstrap=0)


def test_interval_equals_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(3)
    pairs = [
        ("a " * n, "a " * n + "b " * int(rng.integers(0, 3)))
        for n in rng.integers(1, 9, size=60).tolist()
    ]
    result = score_pairs(pairs, num_bootstrap=4000)
    errors = np.array([u.words.errors for u in result.utterances])
    lengths = np.array([u.words.reference_length for u in result.utterances])
    picks = rng.integers(0, 60, size=(4000, 60))
    expected = np.quantile(errors[picks].sum(1) / lengths[picks].sum(1), [0.025, 0.975])
    assert result.wer_interval == pytest.approx(tuple(expected), abs=0.004)
    assert result.wer_interval[0] < result.wer < result.wer_interval[1]


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        wrong = rng.random((80, 5)) < 0.2
        pairs = [("a a a a a", " ".join("b" if w else "a" for w in row)) for row in wrong]
        low, high = score_pairs(pairs, num_bootstrap=200).wer_interval
        covered += low <= 0.2 <= high
    assert 87 <= covered <= 100


def test_blocks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("a b", "a"), ("a", "a"), ("b c d", "b x d")]
    whole = score_pairs(pairs, num_bootstrap=100)
    monkeypatch.setattr("speechssl.scoring.bootstrap._CELLS_PER_BLOCK", 7)
    assert score_pairs(pairs, num_bootstrap=100) == whole


def test_json_ready() -> None:
    result = score_pairs([("a b", "a c"), ("", "x")])
    table = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert table["wer"] == 1.0
    assert table["words"] == {"hits": 1, "substitutions": 1, "insertions": 1, "deletions": 0}
    assert table["num_utterances"] == 2
    row = json.loads(json.dumps(result.utterances[0].as_dict(), allow_nan=False))
    assert (row["utterance_id"], row["reference"], row["hypothesis"], row["wer"]) == (
        "u000",
        "a b",
        "a c",
        0.5,
    )
