"""Speech made up for benchmarks."""

from pathlib import Path

import numpy as np
import soundfile

from speechssl.analysis.synthetic_speech import write_speech
from speechssl.data.prepare import prepare


def test_synthetic_speech_is_the_same_for_a_seed_and_worth_keeping(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_speech(tmp_path / f"{name}.flac", 25, seed)
    first, same, other = (soundfile.read(tmp_path / f"{name}.flac")[0] for name in "abc")
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert 0.2 < np.abs(first).max() < 1
    report = prepare(tmp_path, tmp_path / "store")
    assert report.total.samples == 3 * 25 * 16_000
    assert report.kept.samples > 0.8 * report.total.samples
