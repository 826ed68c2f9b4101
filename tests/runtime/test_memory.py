"""The peak of memory is that of this program, whoever started it."""

import subprocess
import sys

import numpy as np
import pytest

from speechssl.runtime.memory import peak_memory_mb

PROGRAM = """
import sys
from speechssl.runtime.memory import peak_memory_mb

before = peak_memory_mb()
held = b"x" * int(sys.argv[1])
print(before, peak_memory_mb())
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_program_that_a_large_one_starts_begins_anew(seed: int) -> None:
    own_mb = int(np.random.default_rng(seed).integers(100, 200))
    held = np.ones((own_mb + 300) * 1_000_000, np.uint8)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(own_mb * 1_000_000)],
        capture_output=True,
        text=True,
        check=True,
    )
    del held

    before_mb, after_mb = map(float, done.stdout.split())
    assert before_mb < 50
    assert after_mb - before_mb == pytest.approx(own_mb, abs=5)
    assert peak_memory_mb() > own_mb + 300
