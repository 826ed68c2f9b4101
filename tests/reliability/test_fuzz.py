"""Readers of strangers' files, fed with damaged ones: at random, or in full by coverage."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import fuzzing

SECONDS = 260  # for each reader: an hour in all
FOUND = Path(__file__).parent / "found"


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_a_reader_takes_its_input_or_says_why_not(name: str, tmp_path: Path, campaign: Any) -> None:
    target, draws, refused = fuzzing.TARGETS[name], random.Random(name), 0
    seeds = target.seeds(tmp_path)
    assert all(fuzzing.try_one(target, tmp_path, seed) for seed in seeds)
    tries = campaign.size(150, 2000)
    for _ in range(tries):
        data = fuzzing.mutated(draws.choice(seeds), draws)
        try:
            refused += not fuzzing.try_one(target, tmp_path, data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}, at {data!r}")
    assert bool(refused) == target.refuses
    campaign.figures |= {"tries": tries, "refused": refused, "failures": 0}


@pytest.mark.parametrize(
    "path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_fuzzing_found_is_refused(path: Path, tmp_path: Path) -> None:
    """Each is broken, and ended in an error that was not ours."""
    target = fuzzing.TARGETS[path.parent.name]
    target.seeds(tmp_path)
    assert not fuzzing.try_one(target, tmp_path, path.read_bytes())


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_guided_by_coverage(name: str, tmp_path: Path, campaign: Any) -> None:
    if not campaign.full:
        pytest.skip("minutes for each reader: in the full campaign")

    command = [sys.executable, fuzzing.__file__, name, str(SECONDS), str(tmp_path / "kept")]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, check=False)

    output = done.stderr.decode("utf-8", "replace")
    failed = [f"{p.name}: {p.read_bytes()!r}" for p in (tmp_path / "kept").glob("*-*")]
    assert done.returncode == 0, (failed, output[-3000:])

    tries = int(output.rpartition("Done ")[2].split()[0])
    kept = len(list((tmp_path / "kept").iterdir()))
    campaign.figures |= {
        "tries": tries,
        "inputs of new code": kept,
        "processor minutes": SECONDS / 60,
        "failures": 0,
    }
