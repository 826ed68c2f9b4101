"""Kaldi's segments that go on to the end of their recordings, read and written."""

from pathlib import Path

import numpy as np
import pytest

from speechssl.corpus.export import write_kaldi
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record
from speechssl.errors import ManifestError


def parts(manifest: Manifest) -> list[tuple[str, str, float, float | None]]:
    return [
        (record.id, record.audio, record.offset_s, record.duration_s) for record in manifest.records
    ]


@pytest.mark.parametrize("end", ["-1", "-1.0", "-1.000"])
def test_a_segment_may_go_on_to_the_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "wav.scp").write_text("rec1 a.wav\nrec2 b.wav\n")
    (tmp_path / "segments").write_text(f"u1 rec1 0.5 2.25\nu2 rec1 2.25 {end}\nu3 rec2 0 {end}\n")
    assert parts(scan(tmp_path)) == [
        ("u1", "a.wav", 0.5, 1.75),
        ("u2", "a.wav", 2.25, None),
        ("u3", "b.wav", 0.0, None),
    ]


@pytest.mark.parametrize("times", ["0 -2", "0 -0.5", "-1 2", "-1 -1", "nan -1", "1e12 -1", "1 inf"])
def test_other_negative_times_are_refused(tmp_path: Path, times: str) -> None:
    (tmp_path / "wav.scp").write_text("rec a.wav\n")
    (tmp_path / "segments").write_text(f"u rec {times}\n")
    with pytest.raises(ManifestError, match=r"segments:1: a segment from"):
        scan(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_kaldi_reads_back_what_is_written(tmp_path: Path, seed: int) -> None:
    """Parts of known and of unknown length, and whole files beside them."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(6):
        offset_s = float(rng.integers(0, 3)) / 4
        duration_s = float(rng.integers(1, 9)) / 4 if rng.random() < 0.5 else None
        records.append(Record(f"u{number}", f"{number % 3}.wav", offset_s, duration_s))
    records.append(Record("u7", "7.wav", 0.25))
    manifest = Manifest(tmp_path, tuple(records))
    write_kaldi(manifest, tmp_path / "out")
    assert parts(scan(tmp_path / "out", root=tmp_path)) == parts(manifest)
