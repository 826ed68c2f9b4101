"""Manifests written for Kaldi and fairseq, read back by our own readers of both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechssl.audio.reader import write_wav
from speechssl.corpus.export import write_fairseq, write_kaldi
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record
from speechssl.errors import ManifestError


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    for k in range(4):
        (tmp_path / "audio").mkdir(exist_ok=True)
        write_wav(
            tmp_path / "audio" / f"some file {k}.wav", np.zeros(8000 + 80 * k, np.float32), 8000
        )
    return Manifest(
        tmp_path / "audio",
        tuple(
            Record(
                f"some file {k}",
                f"some file {k}.wav",
                text=f"text {k}",
                speaker="a b",
                split="train",
            )
            for k in range(4)
        ),
    )


def test_kaldi_out(tmp_path: Path, small: Manifest) -> None:
    write_kaldi(small, tmp_path / "train")
    back = scan(tmp_path / "train", root=small.root)
    expected = tuple(
        replace(r, id=r.id.replace(" ", "%20"), speaker="a%20b") for r in small.records
    )
    assert back.records == expected
    parts = replace(
        small,
        records=tuple(
            replace(r, offset_s=0.25 * k, duration_s=0.5) for k, r in enumerate(small.records)
        ),
    )
    write_kaldi(parts, tmp_path / "parts")
    assert [
        (r.offset_s, r.duration_s) for r in scan(tmp_path / "parts", root=small.root).records
    ] == [(0.25 * k, 0.5) for k in range(4)]
    with pytest.raises(ManifestError, match="rename"):
        write_kaldi(replace(small, records=(Record("x", "a|"),)), tmp_path / "bad")


def test_fairseq_out(tmp_path: Path, small: Manifest) -> None:
    write_fairseq(small, tmp_path / "fs")
    assert (tmp_path / "fs/train.tsv").read_text().splitlines()[1:] == [
        f"some file {k}.wav\t{16000 + 160 * k}" for k in range(4)
    ]
    assert (tmp_path / "fs/train.ltr").read_text().splitlines()[0] == "t e x t | 0 |"
    back = scan(tmp_path / "fs" / "train.tsv")
    assert back.records == tuple(replace(r, speaker=None) for r in small.records)
    with pytest.raises(ManifestError, match="parts"):
        write_fairseq(replace(small, records=(Record("x", "x.wav", 1.0),)), tmp_path / "fs")


@pytest.mark.parametrize("text", ["a|b", "|", "so | then"])
def test_fairseq_cannot_hold_its_own_mark_of_the_space(
    tmp_path: Path, small: Manifest, text: str
) -> None:
    with_bar = replace(small, records=(replace(small.records[0], text=text),))
    with pytest.raises(ManifestError, match=r"'\|' for the space, and this transcript has it"):
        write_fairseq(with_bar, tmp_path / "fs")
