"""Self-training: labels of chunks, and a fine-tuning that learns from them beside transcripts."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_labelled
from test_experiments import tuned

from speechssl.batching import Dataset, choose_minutes
from speechssl.ctc import load_ctc
from speechssl.errors import ConfigError, ManifestError
from speechssl.experiments import TEXTS, finetune
from speechssl.features import FeatureConfig
from speechssl.labels import Label, label, read_labels, with_labels, write_labels
from speechssl.preparing import PrepareConfig, prepare
from speechssl.recognise import emissions, recognised
from speechssl.report import read_metrics
from speechssl.store import Store
from speechssl.text import normalise


@pytest.fixture(scope="module")
def run(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    finetune([labelled_store], run, tuned(minutes=0.3), init=None)
    return run


def test_labels_are_what_is_heard_the_most_confident_first(run: Path, labelled_store: Path, tmp_path: Path) -> None:
    model, dataset = load_ctc(run / "model"), Dataset([Store(labelled_store)], ["train"])
    model.head.bias.data[model.tokenizer.blank_id] -= 3  # it has hardly learned: without this it says nothing
    found = label(model, dataset)
    heard = recognised(model, emissions(model, dataset))
    assert {one.id: one.text for one in found} == {k: " ".join(w.text for w in ws) for k, ws in heard.items() if ws}
    assert found
    for one in found:
        assert one.confidence == pytest.approx(np.mean([word.probability for word in heard[one.id]]), abs=1e-4)
    assert [one.confidence for one in found] == sorted((one.confidence for one in found), reverse=True)
    write_labels(tmp_path / "labels.jsonl", found)
    assert read_labels(tmp_path / "labels.jsonl") == {(dataset.identity[0], one.id): one.text for one in found}


def test_fine_tuning_learns_transcripts_and_labels(run: Path, labelled_store: Path, tmp_path: Path) -> None:
    """The chosen minutes keep their transcripts, which no label replaces; the rest has labels alone."""
    dataset = Dataset([Store(labelled_store)], ["train"])
    chosen = choose_minutes(dataset, 0.3, seed=0)
    own = {chosen.id_text(p)[0] for p in range(len(chosen))}
    names = [dataset.id_text(p)[0] for p in range(len(dataset))]
    labelled = [*sorted(own)[:2], *(name for name in names if name not in own)][:-1]
    file = tmp_path / "labels.jsonl"
    write_labels(file, [Label(dataset.identity[0], name, "abba", 0.5) for name in labelled])
    finetune([labelled_store], tmp_path / "self", tuned(minutes=0.3), run, file)

    truth = sorted(normalise(chosen.id_text(p)[1] or "", "basic-1") for p in range(len(chosen)))
    for folder in (run, tmp_path / "self"):
        assert sorted((folder / TEXTS).read_text().splitlines()) == truth
    settings = json.loads((tmp_path / "self/settings.json").read_text())
    assert settings["labels"]["count"] == len(labelled) - 2
    both, count = with_labels(dataset, np.flatnonzero([name in own for name in names]), read_labels(file))
    assert (len(both), count) == (len(names) - 1, len(labelled) - 2)
    texts = dict(both.id_text(p) for p in range(len(both)))
    original = dict(dataset.id_text(p) for p in range(len(dataset)))
    assert texts == {name: original[name] if name in own else "abba" for name in texts}
    assert both.batch([0]).texts == (both.id_text(0)[1],)
    assert len(read_metrics(tmp_path / "self/metrics.jsonl")) == 6

    # Other labels are another run.
    write_labels(file, [Label(dataset.identity[0], name, "dad", 0.5) for name in labelled])
    with pytest.raises(ConfigError, match=r"labels\.digest"):
        finetune([labelled_store], tmp_path / "self", tuned(minutes=0.3), run, file)


def test_a_store_without_transcripts_gives_its_labelled_chunks(run: Path, labelled_store: Path, tmp_path: Path) -> None:
    (make_labelled(tmp_path / "radio", {"train": 3}) / "metadata.csv").unlink()
    prepare(tmp_path / "radio", tmp_path / "store")
    radio = Store(tmp_path / "store")
    record = radio.record(1)
    write_labels(tmp_path / "labels.jsonl", [Label(radio.plan[:16], record.id, "bad face", 0.5)])
    both = [labelled_store, tmp_path / "store"]
    finetune(both, tmp_path / "self", tuned(), run, tmp_path / "labels.jsonl")
    assert json.loads((tmp_path / "self/settings.json").read_text())["labels"]["count"] == 1
    with pytest.raises(ConfigError, match="has no transcript: fine-tune on a labelled store"):
        finetune(both, tmp_path / "none", tuned(), run)
    with pytest.raises(ConfigError, match="the labels are of no chunk that is not learned from"):
        finetune([labelled_store], tmp_path / "none", tuned(), run, tmp_path / "labels.jsonl")
    prepare(make_labelled(tmp_path / "dev", {"dev": 3}), tmp_path / "measured")
    with pytest.raises(ConfigError, match="no utterance of train has a transcript"):
        finetune([tmp_path / "measured", both[1]], tmp_path / "none", tuned(), run, tmp_path / "labels.jsonl")


def test_only_one_store_that_the_model_reads_is_labelled(
    run: Path, labelled_store: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    model, store = load_ctc(run / "model"), Store(labelled_store)
    with pytest.raises(ConfigError, match="2 stores: label one at a time"):
        label(model, Dataset([store, store]))
    prepare(labelled_folder, tmp_path / "store", PrepareConfig(features=FeatureConfig(kind="waveform")))
    with pytest.raises(ConfigError, match="prepare it with --features logmel"):
        label(model, Dataset([Store(tmp_path / "store")]))


def test_any_id_and_text_come_back(tmp_path: Path) -> None:
    given = [Label("a", "x\u2028y", "l\x85r", 0.25), Label("a", "\x0b\x1c", "", 0.0)]
    write_labels(tmp_path / "labels.jsonl", given)
    assert read_labels(tmp_path / "labels.jsonl") == {("a", one.id): one.text for one in given}


@pytest.mark.parametrize("line", ["{", "[]", '{"store": "a", "id": 1, "text": "b"}', "[" * 100_000, '"\\ud800"'])
def test_what_is_no_label_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "labels.jsonl").write_text(line)
    with pytest.raises(ManifestError, match=r"labels\.jsonl"):
        read_labels(tmp_path / "labels.jsonl")
    with pytest.raises(ManifestError, match="cannot be read as labels"):
        read_labels(tmp_path / "missing")
