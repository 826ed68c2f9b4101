"""``speechssl manifest``: what it writes is what ``prepare`` reads, and nothing is overwritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.commands import call
from support.speech import RATE, make_labelled

from speechssl.audio.reader import write_wav
from speechssl.cli.data import DEFAULTS, prepare_command
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Record
from speechssl.errors import ConfigError, ManifestError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_labelled(tmp_path / "corpus", {"train": 3, "dev": 1})


def known(records: tuple[Record, ...]) -> set[tuple[str, str | None]]:
    """What every format keeps: which file has which text."""
    return {(record.audio, record.text) for record in records}


def test_a_jsonl_manifest_beside_the_audio_is_read_back(corpus: Path) -> None:
    given = scan(corpus)
    out = corpus / "all.jsonl"
    done = call("manifest", corpus, out, "--to", "jsonl")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert scan(out).records == given.records


def test_a_jsonl_manifest_elsewhere_says_how_to_read_it(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists/all.jsonl"
    done = call("manifest", corpus, out, "--to", "jsonl")
    assert done.exit_code == 0, done.stderr
    assert f"--root {corpus.resolve()}" in done.stderr
    assert scan(out, root=corpus).records == scan(corpus).records


def test_a_kaldi_folder_has_the_texts_and_no_splits(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "kaldi"
    done = call("manifest", corpus, out, "--to", "kaldi")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "(dev, train) are left out" in done.stderr
    assert {path.name for path in out.iterdir()} == {"wav.scp", "utt2spk", "text"}
    assert known(scan(out, root=corpus).records) == known(scan(corpus).records)


def test_fairseq_tables_come_by_split(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "fairseq"
    # An empty folder holds nothing that could be lost.
    out.mkdir()
    done = call("manifest", corpus, out, "--to", "fairseq")
    assert done.exit_code == 0, done.stderr
    expected = {f"{split}.{kind}" for split in ("train", "dev") for kind in ("tsv", "wrd", "ltr")}
    assert {path.name for path in out.iterdir()} == expected
    written = scan(out / "train.tsv").records + scan(out / "dev.tsv").records
    assert known(written) == known(scan(corpus).records)


def test_a_manifest_is_read_with_its_root(corpus: Path, tmp_path: Path) -> None:
    listed = tmp_path / "lists/all.jsonl"
    call("manifest", corpus, listed, "--to", "jsonl")
    elsewhere = call("manifest", listed, tmp_path / "kaldi", "--to", "kaldi")
    assert elsewhere.exit_code == 1
    assert "none of the 4 recordings lies in" in str(elsewhere.exception)
    assert not (tmp_path / "kaldi").exists()
    done = call("manifest", listed, tmp_path / "kaldi", "--to", "kaldi", "--root", corpus)
    assert done.exit_code == 0, done.stderr
    assert known(scan(tmp_path / "kaldi", root=corpus).records) == known(scan(corpus).records)


def test_recordings_that_are_not_there_are_counted(corpus: Path, tmp_path: Path) -> None:
    (corpus / "train001.wav").unlink()
    done = call("manifest", corpus, tmp_path / "kaldi", "--to", "kaldi")
    assert done.exit_code == 0, done.stderr
    assert "1 of 4 recordings are not there, train001.wav for one" in done.stderr


@pytest.mark.parametrize("to", ["jsonl", "kaldi", "fairseq"])
def test_nothing_is_overwritten(corpus: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out.jsonl"
    assert call("manifest", corpus, out, "--to", to).exit_code == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = call("manifest", corpus, out, "--to", to)
    assert again.exit_code == 1
    assert isinstance(again.exception, ConfigError)
    assert "out.jsonl is there already" in str(again.exception)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_jsonl_manifest_needs_a_name_that_prepare_reads(corpus: Path, tmp_path: Path) -> None:
    refused = call("manifest", corpus, tmp_path / "all.txt", "--to", "jsonl")
    assert refused.exit_code == 1
    assert "let it end in .jsonl" in str(refused.exception)
    assert not (tmp_path / "all.txt").exists()


def test_what_fairseq_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_wav(tmp_path / "news.wav", np.full(RATE, 0.1, np.float32), RATE)
    part = {"audio_filepath": "news.wav", "offset": 0.5}
    (tmp_path / "news.jsonl").write_text(json.dumps(part) + "\n")
    refused = call("manifest", tmp_path / "news.jsonl", tmp_path / "out", "--to", "fairseq")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, ManifestError)
    assert "parts of recordings" in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_a_damaged_recording_leaves_no_half_of_the_fairseq_tables(
    corpus: Path, tmp_path: Path
) -> None:
    shutil.copy(corpus / "train000.wav", tmp_path / "whole.wav")
    (corpus / "train000.wav").write_bytes(b"no audio")
    assert call("manifest", corpus, tmp_path / "out", "--to", "fairseq").exit_code == 1
    assert not (tmp_path / "out").exists()
    shutil.copy(tmp_path / "whole.wav", corpus / "train000.wav")
    assert call("manifest", corpus, tmp_path / "out", "--to", "fairseq").exit_code == 0


def test_the_options_of_prepare_have_the_defaults_of_its_settings() -> None:
    defaults = prepare_command.__defaults__
    assert defaults is not None
    for value in (DEFAULTS.min_chunk_s, DEFAULTS.max_chunk_s, DEFAULTS.max_duration_s):
        assert value in defaults
    assert DEFAULTS.features.kind in defaults
