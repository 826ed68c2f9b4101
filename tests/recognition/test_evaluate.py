"""Evaluation: independent of batching, scored against transcripts, refused where it cannot be."""

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import random_recogniser

from speechssl.audio.feature_config import FeatureConfig
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.align import WordSpan
from speechssl.decoding.greedy import greedy
from speechssl.decoding.spoken_units import SpokenUnit
from speechssl.errors import ConfigError
from speechssl.recognition.decoders import emissions, greedy_decoder, recognise
from speechssl.recognition.evaluate import _confidences, evaluate, score_words
from speechssl.recognition.model import CtcModel
from speechssl.scoring.score_files import write_score
from speechssl.text.normalise import NORMALISERS, normalise


@pytest.fixture(scope="module")
def model() -> CtcModel:
    return random_recogniser()


def test_hypotheses_do_not_depend_on_the_batch(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    alone = {}
    for position in range(len(dataset)):
        batch = dataset.batch([position])
        with torch.no_grad():
            alone[batch.ids[0]] = model.tokenizer.decode(greedy(*model.log_probs(batch))[0])
    assert len(set(alone.values())) > 10  # else the comparison would say nothing
    for batch_seconds in (15, 1000):
        found = recognise(model, emissions(model, dataset, batch_seconds), greedy_decoder(model))
        assert {
            name: " ".join(word.text for word in words) for name, words in found.items()
        } == alone


def test_log_probabilities_do_not_depend_on_the_batch(
    model: CtcModel, labelled_store: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    positions = list(range(0, len(dataset), 5))
    together, frames = model.log_probs(dataset.batch(positions))
    for row, position in enumerate(positions):
        single, count = model.log_probs(dataset.batch([position]))
        assert int(count) == int(frames[row])
        torch.testing.assert_close(together[row, : int(count)], single[0], rtol=0, atol=1e-5)


def test_evaluate_scores_against_the_transcripts(
    model: CtcModel, labelled_store: Path, tmp_path: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    result = evaluate(model, dataset)
    references = dict(dataset.id_text(p) for p in range(len(dataset)))
    assert {u.utterance_id: u.reference for u in result.utterances} == references
    text = write_score(result, tmp_path / "out", {"model": "m"})
    assert f"{result.wer:.2%}" in text
    written = json.loads((tmp_path / "out/score.json").read_text())
    assert written["wer"] == result.wer
    assert written["model"] == "m"
    rows = [
        json.loads(line) for line in (tmp_path / "out/utterances.jsonl").read_text().splitlines()
    ]
    assert sum(row["words"]["substitutions"] for row in rows) == result.words.substitutions


def test_raw_texts_are_scored_beside_normalised_ones(tmp_path: Path) -> None:
    said = {"a": "It's 5 Apples.", "b": "No, um, no"}
    heard = {
        "a": [WordSpan(word, 0, 1, 0.5) for word in ("it's", "five", "apples")],
        "b": [WordSpan(word, 0, 1, 0.5) for word in ("no", "no")],
    }

    result = score_words(said, heard, "english-1")
    assert (result.wer, result.raw and result.raw.wer) == (0.0, 5 / 6)  # every word but the last
    assert score_words(said, heard, "basic-1").wer == 2 / 6

    about = {"normaliser": "english-1"}
    rows = [
        line.split() for line in write_score(result, tmp_path, about).splitlines() if "ER" in line
    ]
    assert [row[1:6:2] for row in rows[:4:2]] == [
        ["english-1", "WER", "0.00%"],
        ["raw", "WER", "83.33%"],
    ]

    written = json.loads((tmp_path / "score.json").read_text())
    assert (written["wer"], written["raw"]["wer"]) == (0.0, 5 / 6)
    assert "raw" not in written["raw"]


@pytest.mark.parametrize("seed", range(10))
def test_confidences_and_confusions_are_of_characters_where_no_spaces_stand(
    seed: int, tmp_path: Path
) -> None:
    """Every character is right with a probability that its confidence tells only half of."""
    draw = random.Random(seed)
    characters = draw.choice(["今天我们需要时候", ["น้ำ", "ก", "ดิ", "ข้", "ง"]])
    said: dict[str, str] = {}
    heard: dict[str, list[SpokenUnit]] = {}
    num_right = num_heard = 0
    for name in map(str, range(60)):
        truth = draw.choices(characters, k=8)
        spans = []
        for place, character in enumerate(truth):
            confidence = draw.uniform(0.5, 1.0)
            is_right = draw.random() < confidence / 2
            text = character if is_right else "錯"
            spans.append(SpokenUnit(text, place, place + 1, confidence, True))
            num_right += is_right
            num_heard += 1
        said[name], heard[name] = "".join(truth), spans

    result = score_words(said, heard, "basic-2")
    assert result.cer == pytest.approx(1 - num_right / num_heard, abs=0.15)
    assert result.utterances[0].hypothesis.count(" ") == 0
    assert result.calibration is not None
    assert result.calibration.num_words == num_heard
    assert result.calibration.scaling(0.75) == pytest.approx(0.375, abs=0.08)
    assert {one.hypothesis for one in result.confusions()} == {"錯"}
    report = write_score(result, tmp_path, {"normaliser": "basic-2"})
    assert f"Of {num_heard} recognised characters {num_right / num_heard:.1%} are right" in report


PIECES = [
    *["hundred", "and", "five", "um", "can't", "$5", "1,000", "Mr.", "-", "é", "n't"],
    *["million", "20", "€", "uh", "oh", "u", "s", "1/2", ".5", "zero", "point", "a", "m", "m."],
]


@given(st.sampled_from(list(NORMALISERS)), st.lists(st.sampled_from(PIECES) | st.text()))
@settings(max_examples=300)
def test_every_normalised_word_has_the_confidence_of_the_word_it_came_from(
    name: str, words: list[str]
) -> None:
    words = [word for text in words for word in text.split()]
    spans = [WordSpan(word, k, k + 1, k / 100) for k, word in enumerate(words)]
    text = " ".join(words)
    (row,) = score_words({"a": text}, {"a": spans}, name).utterances
    assert row.hypothesis == " ".join(normalise(text, name).split())

    confidences = _confidences(spans, name)
    assert len(confidences) == len(row.hypothesis.split())
    assert {round(100 * confidence) for confidence in confidences} <= set(range(len(words)))

    # Words that the words beside them leave as they are.
    parts = [(part, k) for k, word in enumerate(words) for part in normalise(word, name).split()]
    if [part for part, _ in parts] == row.hypothesis.split():
        assert [round(100 * confidence) for confidence in confidences] == [k for _, k in parts]


@pytest.mark.parametrize(
    ("name", "heard", "expected"),
    [
        ("english-1", "$5 million", [0.1, 0.1, 0.1]),
        ("english-2", "pay 20 € now", [0.1, 0.2, 0.2, 0.4]),
        ("english-2", "in the u s it", [0.1, 0.2, 0.3, 0.5]),
        ("english-1", "one hundred and five", [0.1, 0.2, 0.4]),
    ],
)
def test_a_word_made_of_several_is_as_sure_as_the_least_sure(
    name: str, heard: str, expected: list[float]
) -> None:
    spans = [WordSpan(word, k, k + 1, (k + 1) / 10) for k, word in enumerate(heard.split())]
    assert _confidences(spans, name) == expected


def test_what_cannot_be_is_refused_before_anything_is_recognised(
    model: CtcModel, labelled_store: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    with pytest.raises(ConfigError, match="unknown normaliser 'english'"):
        evaluate(model, dataset, normaliser="english")
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="batch_seconds must be a number above 0"):
            evaluate(model, dataset, batch_seconds=seconds)


def test_evaluate_refuses_other_features(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    dataset.features = FeatureConfig(num_mels=40)
    with pytest.raises(ConfigError, match="prepare the store anew"):
        evaluate(model, dataset)
