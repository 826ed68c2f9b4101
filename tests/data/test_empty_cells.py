"""Rows without a transcript, at any place of any layout: audio that measures nothing."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recordings import SMALL, replace_config, talk
from support.speech import RATE

from speechssl.audio.reader import write_flac
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import with_transcripts

CONFIG = replace_config(SMALL, min_chunk_s=0.1)

# Path of each recording -> its transcript; None is a row that has none.
Texts = dict[str, str | None]


def csv_table(root: Path, texts: Texts) -> Manifest:
    rows = [f"{path},{text or ''},{Path(path).parts[0]}" for path, text in texts.items()]
    (root / "metadata.csv").write_text("\n".join(["file_name,text,split", *rows]) + "\n")
    return scan(root)


def csv_without_splits(root: Path, texts: Texts) -> Manifest:
    rows = [f"{path},{text or ''}" for path, text in texts.items()]
    (root / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
    return scan(root)


def manifest(root: Path, texts: Texts) -> Manifest:
    rows = []
    for path, text in texts.items():
        row = {"audio_filepath": path, "split": Path(path).parts[0], "text": text}
        rows.append(json.dumps(row) + "\n")
    (root / "all.jsonl").write_text("".join(rows))
    return scan(root / "all.jsonl")


def json_table(root: Path, texts: Texts) -> Manifest:
    for path, text in texts.items():
        row = {"file_name": Path(path).name} | ({} if text is None else {"text": text})
        with (root / path).parent.joinpath("metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return scan(root)


def librispeech(root: Path, texts: Texts) -> Manifest:
    for path, text in texts.items():
        if text is not None:
            with (root / path).parent.joinpath("1-2.trans.txt").open("a") as file:
                file.write(f"{Path(path).stem} {text}\n")
    return scan(root)


LAYOUTS: list[Callable[[Path, Texts], Manifest]] = [
    csv_table,
    csv_without_splits,
    manifest,
    json_table,
    librispeech,
]


@pytest.mark.parametrize("write", LAYOUTS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_without_a_transcript_stop_nothing(
    tmp_path: Path,
    write: Callable[[Path, Texts], Manifest],
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One in dev stopped everything, and one in train nothing."""
    rng = random.Random(f"{seed} {write.__name__}")
    root = tmp_path / "in"
    folder = "{split}/1/2" if write is librispeech else "{split}"
    texts: Texts = {}
    for split in ("train", "dev", "test"):
        names = [f"{folder.format(split=split)}/{split}-{n}.flac" for n in range(4)]
        empty = rng.sample(names, rng.randint(0 if split == "train" else 1, 3))
        for name in names:
            texts[name] = f"sentence {name[-6]} of {split}"
            if name in empty:
                texts[name] = rng.choice([None, "", "-", "...", "[noise]"])
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write_flac(root / name, [talk([(0.1, 0.4)], seed=len(texts))], RATE)

    given = write(root, dict(rng.sample(sorted(texts.items()), len(texts))))
    report = prepare(given, tmp_path / "s", CONFIG)
    store = Store(tmp_path / "s")
    spoken = {path for path, text in texts.items() if text and text.startswith("sentence")}
    assert report.kept.files == len(store) == len(texts)
    chunks = [store.record(index) for index in range(len(store))]
    assert {chunk.audio: chunk.split for chunk in chunks} == {p: p.split("/")[0] for p in texts}
    assert {chunk.audio for chunk in chunks if chunk.text is not None} == spoken

    told = capsys.readouterr().err
    num_empty = len(texts) - len(spoken)
    assert f"{num_empty} of {len(texts)} recordings or parts are audio without a transcript" in told
    for split in ("dev", "test"):
        measured = with_transcripts(Dataset([store], [split]), split)
        found = {measured.record(position).audio for position in range(len(measured))}
        assert found == {path for path in spoken if path.startswith(split)}


def test_a_split_without_any_transcript_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    texts: Texts = {}
    for number, split in enumerate(["train", "dev", "dev"]):
        name = f"{split}/{number}.flac"
        texts[name] = "one two" if split == "train" else None
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_flac(root / name, [talk([(0.1, 0.4)], seed=number)], RATE)
    prepare(csv_table(root, texts), tmp_path / "s", CONFIG)
    assert "no recording of split dev that was kept has a transcript" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="none of the 2 chunks of dev has a transcript"):
        with_transcripts(Dataset([Store(tmp_path / "s")], ["dev"]), "dev")
