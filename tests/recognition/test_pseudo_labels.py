"""Self-training: labels of chunks, and a fine-tuning that learns from them beside transcripts."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import random_recogniser
from support.settings import tuned
from support.speech import make_labelled

from speechssl.audio.feature_config import FeatureConfig
from speechssl.data.batches import BatchConfig, Batches
from speechssl.data.dataset import Dataset, choose_minutes
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.decoding.align import WordSpan
from speechssl.errors import ConfigError, ManifestError
from speechssl.recognition import pseudo_labels
from speechssl.recognition.decoders import (
    CtcDecoder,
    Emissions,
    emissions,
    greedy_decoder,
    recognise,
)
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.pseudo_labels import Label, label, read_labels, with_labels
from speechssl.recognition.training_set import TEXTS
from speechssl.storage.json_text import read_json_lines
from speechssl.text.normalise import normalise


@pytest.fixture(scope="module")
def run(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    finetune([labelled_store], run, tuned(minutes=0.3), init=None)
    return run


@pytest.fixture
def heard(run: Path) -> CtcModel:
    model = load_ctc(run / "model")
    model.head.bias.data[model.tokenizer.blank_id] -= (
        3  # it has hardly learned: without this it says nothing
    )
    return model


def made(
    path: Path, dataset: Dataset, texts: dict[str, str], confidence: dict[str, float] | None = None
) -> Path:
    """A file of labels with these texts, by id."""
    sums = dict(dataset.key(position) for position in range(len(dataset)))
    lines = [
        asdict(Label(name, sums[name], text, (confidence or {}).get(name, 0.5)))
        for name, text in texts.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_labels_are_what_is_heard(heard: CtcModel, labelled_store: Path, tmp_path: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    found = label(heard, dataset, tmp_path / "new/labels.jsonl", "me")

    assert read_labels(tmp_path / "new/labels.jsonl") == found
    assert sorted((one.id, one.crc32) for one in found) == sorted(
        dataset.key(p) for p in range(len(dataset))
    )

    words = recognise(heard, emissions(heard, dataset), greedy_decoder(heard))
    assert {one.id: one.text for one in found} == {
        k: " ".join(w.text for w in ws) for k, ws in words.items()
    }
    assert any(one.text for one in found)

    for one in found:
        probabilities = [word.probability for word in words[one.id]]
        letters = sum(len(word.text) for word in words[one.id])
        expected = np.prod(probabilities) ** (1 / letters) if letters else 0
        assert one.confidence == pytest.approx(expected, abs=1e-4)
        assert one.made_by == "me"


def test_labelling_goes_on_where_it_was_killed(
    heard: CtcModel, labelled_store: Path, tmp_path: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    path = tmp_path / "labels.jsonl"
    hours: list[float] = []

    whole = label(
        heard,
        dataset,
        path,
        "me",
        batch_seconds=5,
        progress=lambda done, total: hours.append(done / total),
    )
    assert len(hours) > 2
    assert hours == sorted(hours)
    assert hours[-1] == pytest.approx(1)

    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1, len(content)):
        path.write_bytes(content[:length])
        again = label(heard, dataset, path, "me", batch_seconds=5)
        before, after = ({one.id: one for one in labels} for labels in (whole, again))
        assert len(again) == len(whole)
        assert {name: one.text for name, one in after.items()} == {
            name: one.text for name, one in before.items()
        }
        # Others may be in a batch now, which changes the last bits.
        assert all(
            one.confidence == pytest.approx(before[name].confidence, abs=2e-4)
            for name, one in after.items()
        )

        assert read_labels(path) == again
        assert path.read_bytes().startswith(content[: content[:length].rfind(b"\n") + 1])

    with pytest.raises(ConfigError, match="holds labels of another model"):
        label(heard, dataset, path, "you")

    path.write_text("notes\nof mine")
    with pytest.raises(ManifestError, match=r"labels\.jsonl:1 is no label"):
        label(heard, dataset, path, "me")
    assert path.read_text() == "notes\nof mine"


def test_fine_tuning_learns_transcripts_and_labels(
    run: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """The chosen minutes keep their transcripts, which no label replaces; the rest has labels."""
    dataset = Dataset([Store(labelled_store)], ["train"])
    chosen = choose_minutes(dataset, 0.3, seed=0)
    own = {chosen.id_text(p)[0] for p in range(len(chosen))}
    names = [dataset.id_text(p)[0] for p in range(len(dataset))]
    others = [name for name in names if name not in own][:-1]

    file = made(
        tmp_path / "labels.jsonl", dataset, dict.fromkeys([*sorted(own)[:2], *others], "abba")
    )

    finetune([labelled_store], tmp_path / "self", tuned(minutes=0.3), run, file, keep=1)

    truth = sorted(normalise(chosen.id_text(p)[1] or "", "basic-1") for p in range(len(chosen)))
    for folder in (run, tmp_path / "self"):
        assert sorted((folder / TEXTS).read_text().splitlines()) == truth

    settings = json.loads((tmp_path / "self/settings.json").read_text())
    assert settings["labels"]["count"] == len(others)

    transcribed = np.flatnonzero([name in own for name in names])
    both, used, unused = with_labels(dataset, transcribed, read_labels(file), bool, 1)
    assert (len(both), len(used)) == (len(names) - 1, len(others))
    assert unused == {"of chunks with a transcript": 2}

    texts = dict(both.id_text(p) for p in range(len(both)))
    original = dict(dataset.id_text(p) for p in range(len(dataset)))
    assert texts == {name: original[name] if name in own else "abba" for name in texts}
    assert both.batch([0]).texts == (both.id_text(0)[1],)

    assert len(read_json_lines(tmp_path / "self/metrics.jsonl")) == 6

    # Other labels are another run; what is not learned from is none of it.
    made(tmp_path / "labels.jsonl", dataset, dict.fromkeys(others, "abba"))
    finetune([labelled_store], tmp_path / "self", tuned(minutes=0.3), run, file, keep=1)
    made(tmp_path / "labels.jsonl", dataset, dict.fromkeys(others, "dad"))
    with pytest.raises(ConfigError, match=r"labels\.digest"):
        finetune([labelled_store], tmp_path / "self", tuned(minutes=0.3), run, file, keep=1)


def test_the_most_confident_labels_of_use_are_kept(
    labelled_store: Path, tmp_path: Path, run: Path
) -> None:
    """A model is surest of chunks that it learned from: they must not take others' places."""
    dataset = Dataset([Store(labelled_store)], ["train"])
    names = [dataset.id_text(p)[0] for p in range(len(dataset))]
    own, silent, strange, rest = names[:3], names[3], names[4], names[5:]
    surest = dict(zip(names, np.linspace(0.9, 0.1, len(names)).tolist(), strict=True))

    texts = dict.fromkeys(names, "abba") | {silent: "", strange: "abba 7"}
    given = read_labels(made(tmp_path / "labels.jsonl", dataset, texts, surest))
    given.append(Label(names[-1], 1, "another recording of that name", 0.99))

    for keep in (0.5, 1.0, 1e-9):
        _, used, unused = with_labels(
            dataset, np.arange(3), given, lambda text: "7" not in text, keep
        )
        assert [one.id for one in used] == rest[: math.ceil(keep * len(rest))]
        assert unused.pop("less sure", 0) == len(rest) - len(used)
        assert unused == {
            "of chunks with a transcript": len(own),
            "empty": 1,
            "with characters that no transcript has": 1,
            "of chunks that are not here": 1,
        }

    for share in (0, 1.5, math.nan):
        with pytest.raises(ConfigError, match="is no share"):
            with_labels(dataset, np.arange(3), given, bool, share)

    # What the tokenizer lacks would be learned as its unknown token.
    made(tmp_path / "labels.jsonl", dataset, dict.fromkeys(names, "abba 7"))
    with pytest.raises(
        ConfigError, match=r"no label is of use \(.* with characters that no transcript has\)"
    ):
        finetune(
            [labelled_store], tmp_path / "self", tuned(minutes=0.3), run, tmp_path / "labels.jsonl"
        )


def test_a_store_without_transcripts_gives_its_labelled_chunks(
    run: Path, labelled_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (make_labelled(tmp_path / "radio", {"train": 3}) / "metadata.csv").unlink()
    prepare(tmp_path / "radio", tmp_path / "store")
    radio = Dataset([Store(tmp_path / "store")])
    labels = made(tmp_path / "labels.jsonl", radio, {radio.id_text(1)[0]: "bad face"})
    both = [labelled_store, tmp_path / "store"]

    finetune(both, tmp_path / "self", tuned(), run, labels)
    assert json.loads((tmp_path / "self/settings.json").read_text())["labels"]["count"] == 1
    assert "no transcript" not in capfd.readouterr().err

    # Without labels the rest teaches nothing, as in a table that was filled in for half.
    finetune(both, tmp_path / "none", tuned(), run)
    said = capfd.readouterr().err
    assert f"{len(radio)} of " in said
    assert "have no transcript: without --labels they teach nothing" in said
    assert (tmp_path / "none/texts.txt").read_text() == (tmp_path / "self/texts.txt").read_text()

    with pytest.raises(ConfigError, match=r"no label is of use \(1 of chunks that are not here\)"):
        finetune([labelled_store], tmp_path / "other", tuned(), run, labels)

    prepare(make_labelled(tmp_path / "dev", {"dev": 3}), tmp_path / "measured")
    with pytest.raises(ConfigError, match="no chunk of train has a transcript"):
        finetune([tmp_path / "measured", both[1]], tmp_path / "other", tuned(), run, labels)


def test_only_one_store_that_the_model_reads_is_labelled(
    run: Path, labelled_store: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    model, store = load_ctc(run / "model"), Store(labelled_store)
    with pytest.raises(ConfigError, match="2 stores: label one at a time"):
        label(model, Dataset([store, store]), tmp_path / "labels.jsonl")
    prepare(
        labelled_folder, tmp_path / "store", PrepareConfig(features=FeatureConfig(kind="waveform"))
    )
    with pytest.raises(ConfigError, match="prepare it with --features logmel"):
        label(model, Dataset([Store(tmp_path / "store")]), tmp_path / "labels.jsonl")


def test_any_id_and_text_come_back(
    heard: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file name may hold line breaks, and bytes that are not UTF-8."""
    folder = make_labelled(tmp_path / "odd", {"train": 2})
    (folder / "metadata.csv").unlink()

    for path, name in zip(
        sorted(folder.rglob("*.wav")), ("x\u2028y\x85.wav", "\udcff\n.wav"), strict=True
    ):
        path.rename(folder / name)
    prepare(folder, tmp_path / "store")

    words = [WordSpan("l\x85r\u2028", 0, 1, 0.25)]
    monkeypatch.setattr(
        pseudo_labels,
        "recognise",
        lambda model, batches, decoder: {n: words for n in batches[0][0]},
    )

    found = label(heard, Dataset([Store(tmp_path / "store")]), tmp_path / "labels.jsonl")
    assert len(found) == 2
    assert read_labels(tmp_path / "labels.jsonl") == found


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": "a", "crc32": 1, "text": "b"}',
        '{"id": 1, "crc32": 1, "text": "b", "confidence": 0.5}',
        '{"id": "a", "crc32": true, "text": "b", "confidence": 0.5}',
        '{"id": "a", "crc32": 1, "text": "b", "confidence": 0.5, "more": 1}',
        "[" * 100_000,
        '"\\ud800"',
        "",
    ],
)
def test_what_is_no_label_is_refused(tmp_path: Path, line: str) -> None:
    good = json.dumps(asdict(Label("a", 1, "b", 0.5)))
    (tmp_path / "labels.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(ManifestError, match=r"labels\.jsonl:2 is no label"):
        read_labels(tmp_path / "labels.jsonl")
    with pytest.raises(ManifestError, match="cannot be read as labels"):
        read_labels(tmp_path / "missing")


# --- trust ----------------------------------------------------------------------------------------


def test_a_label_counts_for_as_much_as_it_is_stable() -> None:
    weights = [Label("a", 1, "b", 0.5, stability=stability).weight for stability in (1, 0.64, 0)]
    assert weights == pytest.approx([1, 0.64 * 0.8, 0.05 * math.sqrt(0.05)])


@pytest.mark.parametrize(
    ("first", "second", "stability"),
    [("ab cd", "ab ce", 0.5), ("今天天气", "今天天汽", 0.75), ("今天", "", 0.0)],
)
def test_stability_is_by_characters_where_no_spaces_part_the_words(
    heard: CtcModel,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    stability: float,
) -> None:
    """A changed character left nothing of a sentence, which counted as one word."""
    one, other = greedy_decoder(heard), greedy_decoder(heard)
    texts = {one.search: first, other.search: second}

    def said(
        _: CtcModel, batches: list[Emissions], decoder: CtcDecoder
    ) -> dict[str, list[WordSpan]]:
        words = [WordSpan(word, 0, 1, 0.5) for word in texts[decoder.search].split()]
        return dict.fromkeys(batches[0].ids, words)

    monkeypatch.setattr(pseudo_labels, "recognise", said)
    dataset = Dataset([Store(labelled_store)], ["dev"])
    found = label(heard, dataset, tmp_path / "a.jsonl", decoder=one, second_decoder=other)
    assert {one.stability for one in found} == {stability}


def test_the_weight_of_a_label_scales_the_loss_of_its_utterance_alone(
    labelled_store: Path,
) -> None:
    model = random_recogniser()
    dataset = Dataset([Store(labelled_store)], ["train"])
    keys = dict(dataset.key(position) for position in range(4))
    given = [Label(name, keys[name], "abba", 0.5, stability=0.64) for name in list(keys)[2:]]
    joined, _, _ = with_labels(dataset, np.arange(2), given, bool, 1.0)
    assert len(joined) == 4

    (batch,) = Batches(joined, BatchConfig(seconds=100), seed=0).micro_batches(0)
    assert batch.weights is not None
    trusted = dict(zip(batch.ids, batch.weights.tolist(), strict=True))
    assert trusted == pytest.approx(dict(zip(keys, (1, 1, 0.512, 0.512), strict=True)))

    with torch.no_grad():
        together = model(batch, 0).total.item()
        apart = {name: model(joined.batch([at]), 0).total.item() for at, name in enumerate(keys)}
    assert together == pytest.approx(sum(trusted[name] * apart[name] for name in keys), rel=1e-4)
    assert together != pytest.approx(sum(apart.values()), rel=1e-2)


def test_a_label_of_an_older_file_counts_as_a_transcript(tmp_path: Path) -> None:
    old = {"id": "a", "crc32": 1, "text": "b", "confidence": 0.5, "made_by": "me"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(old) + "\n")
    (one,) = read_labels(tmp_path / "labels.jsonl")
    assert one == Label(**old, stability=1.0)  # type: ignore[arg-type]
    assert one.weight == 1
