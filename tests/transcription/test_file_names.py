"""Names of recordings in tables of many: each its own, and as short as that allows."""

import random
from pathlib import Path

import pytest

from speechssl.scoring.score_files import nist_name
from speechssl.transcription.file_names import recording_names


def test_names_are_those_of_the_files_where_they_differ() -> None:
    root = Path("/data")
    paths = [root / name for name in ("a/x.wav", "b/x.wav", "b/y.wav", "c/z.wav", "c/z.mp3")]
    assert list(recording_names(paths, root).values()) == ["y", "a/x", "b/x", "c/z.wav", "c/z.mp3"]


@pytest.mark.parametrize("seed", range(20))
def test_every_recording_has_a_name_of_its_own(seed: int) -> None:
    draw = random.Random(seed)
    root = Path("/data")
    folders = ["", "a", "b", "a/b", "x"]
    stems = ["x", "(x)", "_x_", "x y", "x_y", "%28x%29", "b", "x;y", "a.b"]
    paths = {
        root / draw.choice(folders) / f"{draw.choice(stems)}.{draw.choice(['wav', 'mp3'])}"
        for _ in range(25)
    }
    names = recording_names(sorted(paths), root)
    assert names.keys() == paths
    written = [nist_name(name) for name in names.values()]
    assert len(set(written)) == len(paths)
    assert not any(set("() ;\t") & set(name) for name in written)
