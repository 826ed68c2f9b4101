"""A corpus with planted faults: they alone are rejected, also when it took several starts."""

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import children
from support.folders import files_of
from support.recordings import damage, talk
from support.speech import RATE

from speechssl.audio.reader import write_wav
from speechssl.data.store import Store

KEPT = 24


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Good recordings, odd ones that are as good, and faults: audio path -> reason."""
    folder = tmp_path / "in"
    folder.mkdir()
    planted = damage(folder)
    for k in range(KEPT - 3):
        write_wav(folder / f"good{k:02d}.wav", talk([(0.1, 2.5)], seed=k), RATE)
    speech = talk([(0.1, 2.5)], seed=99)
    soundfile.write(folder / "channels.wav", np.stack([speech] * 8, axis=1), RATE)
    soundfile.write(folder / "slow.wav", speech[::4], RATE // 4)
    shutil.copy(folder / "slow.wav", os.fsdecode(bytes(folder / "name") + b"\xff.wav"))
    write_wav(
        folder / "silence.wav", np.zeros(3 * RATE, np.float32), RATE
    )  # no fault: it is dropped, and listed
    return folder, planted


def listed(folder: Path) -> dict[str, str]:
    lines = (folder / "rejects.jsonl").read_text().splitlines()
    return {row["audio"]: row["reason"] for row in map(json.loads, lines)}


def test_planted_faults_are_the_reject_list_after_kills_too(
    corpus: tuple[Path, dict[str, str]], tmp_path: Path, campaign: Any
) -> None:
    folder, planted = corpus
    command = ["prepare", folder, tmp_path / "first", "--max-duration", 60, "--max-bad-fraction", 1]

    for command[2] in (
        tmp_path / "first",
        tmp_path / "whole",
    ):  # the first start on a new machine compiles for 30 s
        started = time.monotonic()
        child = children.start(command, tmp_path / "log")
        child.join()
        took = time.monotonic() - started
        assert child.exitcode == 0, (tmp_path / "log").read_text()

    assert listed(tmp_path / "whole") == {**planted, "silence.wav": "silence"}
    assert len(Store(tmp_path / "whole")) == KEPT

    expected, draws = files_of(tmp_path / "whole"), random.Random(0)
    command[2] = tmp_path / "killed"
    kills, wanted = 0, campaign.size(2, 50)
    while kills < wanted:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        longest = took
        while True:
            child = children.start(command, tmp_path / "log")
            child.join(draws.uniform(0, longest))
            child.kill()
            child.join()
            longest *= children.PATIENCE
            if child.exitcode == 0:
                break
            assert child.exitcode == -9, (tmp_path / "log").read_text()
            kills += 1
        assert files_of(tmp_path / "killed") == expected

    campaign.figures |= {
        "tries": kills,
        "planted": len(planted),
        "kinds": len(set(planted.values())),
        "failures": 0,
    }


def test_a_manifest_of_what_is_not_there(tmp_path: Path) -> None:
    """Missing files, and those that a manifest has no business with."""
    write_wav(tmp_path / "a.wav", talk([(0.1, 2.5)]), RATE)
    lines = [json.dumps({"id": name, "audio_filepath": f"{name}.wav"}) for name in ("a", "gone")]
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    child = children.start(["prepare", tmp_path / "m.jsonl", tmp_path / "s"], tmp_path / "log")
    child.join()
    assert child.exitcode == 3
    assert listed(tmp_path / "s") == {"gone.wav": "missing file"}
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": "../../etc/passwd"}) + "\n")
    child = children.start(["prepare", tmp_path / "m.jsonl", tmp_path / "t"], tmp_path / "log2")
    child.join()
    assert child.exitcode == 1
    assert "leads outside" in (tmp_path / "log2").read_text()
