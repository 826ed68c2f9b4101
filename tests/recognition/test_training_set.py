"""Which transcripts are learned from, and what is said of the others."""

import json
from pathlib import Path

import pytest
from support.settings import tuned
from support.speech import make_labelled

from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.errors import ConfigError
from speechssl.recognition.finetune import finetune
from speechssl.transcription.recogniser import load_recogniser


def test_transcripts_too_long_for_their_frames_are_listed(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "corpus", {"train": 30, "dev": 3, "test": 1})
    table = (folder / "metadata.csv").read_text().splitlines()
    name = table[1].split(",")[0]
    table[1] = f"{name},{'ab' * 200},speaker0,train"
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    prepare(folder, tmp_path / "store")

    finetune([tmp_path / "store"], tmp_path / "run", tuned(), init=None)
    (row,) = [
        json.loads(line) for line in (tmp_path / "run/skipped.jsonl").read_text().splitlines()
    ]
    assert row["id"] == Path(name).stem
    assert row["needed"] == 400 > row["frames"]

    for line in range(2, 6):
        table[line] = f"{table[line].split(',')[0]},{'ab' * 200},speaker0,train"
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    prepare(folder, tmp_path / "worse")
    with pytest.raises(ConfigError, match="5 of 30 transcripts are longer than their frames"):
        finetune([tmp_path / "worse"], tmp_path / "refused", tuned(), init=None)


def test_transcripts_that_hold_nothing_teach_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Speech was trained to be silence: of "um" nothing is left when hesitations go."""
    folder = make_labelled(tmp_path / "corpus", {"train": 8, "dev": 2, "test": 1})
    rows = (folder / "metadata.csv").read_text().splitlines()

    for line, text in ((2, "um"), (3, "uh"), (4, "")):
        name, _, *rest = rows[line].split(",")
        rows[line] = ",".join([name, text, *rest])
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")

    prepare(folder, tmp_path / "store")
    settings = tuned().model_copy(update={"normaliser": "english-1"})
    finetune([tmp_path / "store"], tmp_path / "run", settings, init=None)

    said = capsys.readouterr().err
    assert (
        "2 transcripts hold nothing that english-1 keeps (first: 'um' of train001): "
        "they teach nothing" in said
    )
    assert "1 of 8 chunks have no transcript" in said
    assert len((tmp_path / "run/texts.txt").read_text().splitlines()) == 5


def test_a_dev_row_without_a_transcript_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One empty cell stopped fine-tuning, tuning and evaluation, where a train row stopped none."""
    folder = make_labelled(tmp_path / "corpus", {"train": 6, "dev": 4, "test": 3})
    rows = (folder / "metadata.csv").read_text().splitlines()
    for line, row in enumerate(rows):
        name, _, *rest = row.split(",")
        if name in ("dev001.wav", "test002.wav"):
            rows[line] = ",".join([name, "", *rest])
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    prepare(folder, tmp_path / "store", PrepareConfig(min_chunk_s=0.1))

    finetune([tmp_path / "store"], tmp_path / "run", tuned(), init=None)
    assert "of 4 chunks of dev have no transcript" in capsys.readouterr().err
    found = load_recogniser(tmp_path / "run").evaluate(tmp_path / "store")
    assert len(found.greedy.utterances) == 2
    assert "of 3 chunks of test have no transcript" in capsys.readouterr().err
