"""A Mac's notes beside recordings are no recordings, in whichever way a folder is read."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import noise
from support.speech import RATE

from speechssl.audio.listing import is_recording
from speechssl.audio.reader import write_wav
from speechssl.corpus.layouts import scan
from speechssl.data.prepare import prepare
from speechssl.transcription.pieces import find_audio

# AppleDouble: magic, version, filler and the number of its parts.
NOTE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(60)


def folder_of_a_mac(folder: Path, seed: int) -> list[str]:
    """Recordings, each with a note; and a recording whose name only looks like a note's."""
    rng = np.random.default_rng(seed)
    names = []
    for number in range(4):
        suffix = rng.choice(["wav", "WAV", "m4a"])
        name = f"{number}.{suffix}"
        write_wav(folder / name, noise(1), RATE)
        (folder / f"._{name}").write_bytes(NOTE + rng.bytes(int(rng.integers(0, 4000))))
        names.append(name)
    write_wav(folder / "._own name.wav", noise(1), RATE)
    return sorted([*names, "._own name.wav"])


@pytest.mark.parametrize("seed", range(3))
def test_notes_of_a_mac_are_no_recordings(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names = folder_of_a_mac(tmp_path, seed)
    assert sorted(record.audio for record in scan(tmp_path).records) == names
    assert sorted(path.name for path in find_audio([tmp_path])) == names
    report = prepare(tmp_path, tmp_path / "store")
    assert (report.num_files, report.num_rejected) == (5, 0)

    rows = "".join(f"{name},text\n" for name in names)
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + rows)
    assert len(scan(tmp_path).records) == 5
    assert "left out" not in capsys.readouterr().err


def test_what_cannot_be_looked_into_is_still_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "._pipe.wav")
    (tmp_path / "._empty.wav").write_bytes(b"")
    (tmp_path / "._folder.wav").mkdir()
    assert is_recording(tmp_path / "._pipe.wav")
    assert is_recording(tmp_path / "._empty.wav")
    assert is_recording(tmp_path / "._missing.wav")
    assert not is_recording(tmp_path / "notes.txt")
