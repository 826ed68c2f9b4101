"""Systems side by side: pooled rates, paired differences, and what must not be compared."""

import random
from pathlib import Path

import numpy as np
import pytest

from speechssl.errors import ConfigError
from speechssl.scoring.compare import System, comparison, differences, intervals, read_system
from speechssl.scoring.score import Score, score
from speechssl.scoring.score_files import write_score

WORDS = ["red", "green", "blue", "black", "white", "brown"]


def texts(seed: int, n: int = 40) -> dict[str, str]:
    draws = random.Random(seed)
    return {f"u{i:03}": " ".join(draws.choices(WORDS, k=draws.randint(1, 9))) for i in range(n)}


def heard(references: dict[str, str], share: float, seed: int) -> dict[str, str]:
    """The references with about this share of words replaced, and as many dropped."""
    draws = random.Random(seed)

    def word(said: str) -> list[str]:
        kind = draws.random()
        return [] if kind < share / 2 else [draws.choice(WORDS)] if kind < share else [said]

    return {
        i: " ".join(w for said in text.split() for w in word(said))
        for i, text in references.items()
    }


def evaluated(folder: Path, references: dict[str, str], hypotheses: dict[str, str]) -> Score:
    result = score(references, hypotheses)
    write_score(result, folder, {})
    return result


def test_one_run_has_the_rates_and_intervals_of_its_evaluation(tmp_path: Path) -> None:
    result = evaluated(tmp_path, texts(0), heard(texts(0), 0.4, 1))
    system = read_system("a", [tmp_path])
    assert system.rates == (result.wer, result.cer)
    assert intervals(system) == (result.wer_interval, result.cer_interval)
    assert read_system("a", [tmp_path / "utterances.jsonl"]).rates == system.rates


def test_runs_of_one_name_are_pooled_by_their_errors(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / str(s), texts(0), heard(texts(0), 0.3, s)) for s in range(3)]
    system = read_system("a", [tmp_path / str(s) for s in range(3)])
    errors = sum(run.words.errors for run in runs)
    assert system.rates[0] == pytest.approx(
        errors / (3 * runs[0].words.reference_length), abs=1e-12
    )
    assert system.num_runs == 3
    assert len(system.ids) == 40


def test_a_difference_is_that_of_a_plain_loop_over_the_same_utterances(tmp_path: Path) -> None:
    references = texts(0)
    better = evaluated(tmp_path / "a", references, heard(references, 0.3, 1))
    worse = evaluated(tmp_path / "b", references, heard(references, 0.45, 2))
    found = differences(read_system("b", [tmp_path / "b"]), read_system("a", [tmp_path / "a"]))
    assert found is not None
    for unit, difference in zip(("words", "characters"), found, strict=True):
        pairs = [
            (getattr(a, unit).errors, getattr(b, unit).errors, getattr(a, unit).reference_length)
            for a, b in zip(better.utterances, worse.utterances, strict=True)
        ]
        draws = random.Random(5)
        loop = []
        for _ in range(4000):
            chosen = draws.choices(pairs, k=len(pairs))
            loop.append(sum(b - a for a, b, _ in chosen) / sum(n for _, _, n in chosen))
        assert difference.value == pytest.approx(
            sum(b - a for a, b, _ in pairs) / sum(n for *_, n in pairs)
        )
        low, high = np.quantile(loop, [0.025, 0.975])
        assert difference.low == pytest.approx(low, abs=0.012)
        assert difference.high == pytest.approx(high, abs=0.012)
        share = np.mean(np.array(loop) <= 0)
        assert difference.p == pytest.approx(2 * share, abs=0.03)


def test_pairing_sees_what_two_intervals_hide(tmp_path: Path) -> None:
    """Hard utterances are hard for both; the better system has one error less in every third."""
    ids = tuple(f"u{i}" for i in range(60))
    words = np.full(60, 10.0)
    errors = np.array([0.0 + 9 * (i % 2) for i in range(60)])
    worse = System("worse", ids, ids, np.stack([errors, words, errors, words], 1), 1)
    fewer = np.where(np.arange(60) % 3 == 0, 1.0, 0.0) * (errors > 0)
    better = System(
        "better", ids, ids, np.stack([errors - fewer, words, errors - fewer, words], 1), 1
    )
    (low, _), _ = intervals(worse)
    assert low < better.rates[0]
    found = differences(better, worse)
    assert found is not None
    assert found[0].high < 0
    assert found[0].p < 0.01


def test_equal_systems_differ_by_chance_as_often_as_p_says() -> None:
    ids = tuple(f"u{i}" for i in range(50))
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(60):
        tables = [
            np.stack([rng.binomial(10, 0.4, 50), np.full(50, 10)] * 2, 1).astype(np.float64)
            for _ in range(2)
        ]
        found = differences(
            System("a", ids, ids, tables[0], 1), System("b", ids, ids, tables[1], 1)
        )
        assert found is not None
        small += found[0].p < 0.1
    assert 1 <= small <= 15


def test_the_same_system_twice_gives_no_difference(tmp_path: Path) -> None:
    evaluated(tmp_path, texts(0), heard(texts(0), 0.4, 1))
    system = read_system("a", [tmp_path])
    found = differences(system, system)
    assert found is not None
    assert [(d.value, d.low, d.high, d.p) for d in found] == [(0, 0, 0, 1)] * 2


def test_other_utterances_are_not_subtracted_nor_pooled(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", texts(0), texts(0))
    evaluated(tmp_path / "b", texts(1), texts(1))
    systems = [read_system(name, [tmp_path / name]) for name in "ab"]
    assert differences(*systems) is None
    assert "minus" not in comparison(systems)
    assert "b: other reference texts than a, so their difference says nothing" in comparison(
        systems
    )
    with pytest.raises(ConfigError, match="not of the same utterances and references"):
        read_system("a", [tmp_path / "a", tmp_path / "b"])
    evaluated(tmp_path / "c", *[{f"c{name}": text for name, text in texts(0).items()}] * 2)
    other = comparison([systems[0], read_system("c", [tmp_path / "c"])])
    assert "c: other utterances than a, so their difference says nothing" in other


def test_the_table_says_which_way_a_difference_points(tmp_path: Path) -> None:
    references = texts(0)
    evaluated(tmp_path / "a", references, heard(references, 0.5, 1))
    evaluated(tmp_path / "b", references, references)
    text = comparison([read_system(name, [tmp_path / name]) for name in "ab"])
    below = text.split("\n\n")[1]
    assert "minus a" in below
    wer = read_system("a", [tmp_path / "a"]).rates[0]
    assert f"| b       |       {-100 * wer:+.1f}" in below
    assert "< 0.0005" in below


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"utterance_id": "a"}',
        '{"utterance_id": "a", "reference": "", "words": {}, "characters": {}}',
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "utterances.jsonl").write_text(content)
    with pytest.raises(ConfigError, match="speechssl evaluate wrote"):
        read_system("a", [tmp_path])


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    evaluated(tmp_path, texts(0), texts(0))
    path = tmp_path / "utterances.jsonl"
    path.write_text(path.read_text().replace('"hits": ', '"hits": "x'))
    with pytest.raises(ConfigError, match="no scores can be read"):
        read_system("a", [tmp_path])


def test_phones_have_one_rate_and_are_not_compared_with_words(tmp_path: Path) -> None:
    result = score(texts(0), heard(texts(0), 0.4, 1), unit="phone")
    write_score(result, tmp_path / "a", {})
    write_score(score(texts(0), heard(texts(0), 0.2, 1), unit="phone"), tmp_path / "b", {})
    evaluated(tmp_path / "words", texts(0), heard(texts(0), 0.4, 1))
    phones, better, words = (read_system(n, [tmp_path / n]) for n in ("a", "b", "words"))

    assert phones.rates[0] == result.wer
    table = comparison([phones, better])
    assert "PER, points" in table
    assert "WER" not in table
    assert "CER" not in table
    with pytest.raises(ConfigError, match="a was measured in phones and words in words"):
        comparison([phones, words])
