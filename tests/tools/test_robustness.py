"""The forms of tools/robustness.py: levels and lengths are what their names say."""

import numpy as np
import pytest
from support.places import ROOT
from support.scripts import load_script

tool = load_script(ROOT / "tools" / "robustness.py")

SAMPLES = np.sin(np.arange(16_000) / 7).astype(np.float32) / 4


@pytest.mark.parametrize(
    ("name", "around_s", "peak_db"),
    [
        ("as it is", 0, None),
        ("3 s of it", 3, None),
        ("noise at -40 dB", 0, -40),
        ("hum at -20 dB", 0, -20 - 10 * np.log10(2)),
    ],
)
def test_a_form_changes_the_recording_by_what_its_name_says(
    name: str, around_s: int, peak_db: float | None
) -> None:
    found = tool.FORMS[name](SAMPLES)
    around = around_s * 16_000
    assert len(found) == len(SAMPLES) + 2 * around

    added = found[around : around + len(SAMPLES)].astype(np.float64) - SAMPLES
    if peak_db is None:
        assert not added.any()
    else:
        level_db = 20 * np.log10(added.std() / np.abs(SAMPLES).max())
        assert level_db == pytest.approx(peak_db, abs=0.2)

    assert not found[:around].any()
    assert not found[around + len(SAMPLES) :].any()


def test_noise_around_a_recording_leaves_it_as_it_is() -> None:
    found = tool.FORMS["2 s of noise at -60 dB before and after"](SAMPLES)
    around = 2 * 16_000

    assert np.array_equal(found[around : around + len(SAMPLES)], SAMPLES)
    for part in (found[:around], found[around + len(SAMPLES) :]):
        level_db = 20 * np.log10(part.std() / np.abs(SAMPLES).max())
        assert level_db == pytest.approx(-60, abs=0.2)
