"""Training killed again and again: the same losses and weights, and little work done twice."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import children
from support.short_runs import SAVE_EVERY, learned, num_logged, write_preset

from speechssl.storage.checkpoint import load_folder
from speechssl.storage.saved_folders import checkpoints


def command(verb: str, store: Path, preset: Path, run: Path) -> list[object]:
    """What the user types, each time the same."""
    origin = ["--init-from", "none"] if verb == "finetune" else []
    return [verb, store, "--preset", preset, *origin, "--run", run]


def num_saved(run: Path) -> int:
    """Updates of the newest checkpoint; every checkpoint in sight can be read."""
    return max((load_folder(path)[1]["step"] for path in checkpoints(run)), default=0)


def undisturbed(verb: str, store: Path, preset: Path, folder: Path) -> tuple[Any, float]:
    """What a run of no kill learned, and the seconds that it took."""
    started = time.monotonic()
    child = children.start(command(verb, store, preset, folder / "whole"), folder / "whole.log")
    child.join()
    assert child.exitcode == 0, (folder / "whole.log").read_text()
    return learned(folder / "whole"), time.monotonic() - started


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_killed(verb: str, labelled_store: Path, tmp_path: Path, campaign: Any) -> None:
    preset = write_preset(tmp_path)
    expected, took = undisturbed(verb, labelled_store, preset, tmp_path)
    draws, wanted = random.Random(0), campaign.size(5, 200)
    kills = in_saves = runs = 0
    lost: list[int] = []

    while kills < wanted:
        run, log = tmp_path / f"run{runs}", tmp_path / f"run{runs}.log"
        longest = took
        while True:
            fault = draws.randrange(30) if draws.random() < 0.4 else None
            child = children.start(command(verb, labelled_store, preset, run), log, fault)
            child.join(None if fault is not None else draws.uniform(0, longest))
            child.kill()
            child.join()

            longest *= children.PATIENCE
            if child.exitcode == 0:
                break
            assert child.exitcode == -9, log.read_text()

            kills, in_saves = kills + 1, in_saves + (fault is not None)
            lost.append(num_logged(run) - num_saved(run))

        runs += 1
        assert learned(run) == expected

    assert min(lost) >= 0
    assert max(lost) <= SAVE_EVERY

    campaign.figures |= {"tries": kills, "inside a save": in_saves, "runs": runs, "failures": 0}
    campaign.figures |= {
        "updates lost by a kill, mean and most": f"{np.mean(lost):.1f}, {max(lost)}"
    }


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_stopped_by_sigterm(verb: str, labelled_store: Path, tmp_path: Path, campaign: Any) -> None:
    preset = write_preset(tmp_path)
    expected, took = undisturbed(verb, labelled_store, preset, tmp_path)
    draws, wanted = random.Random(1), campaign.size(2, 50)
    seconds: list[float] = []
    runs = 0

    while len(seconds) < wanted:
        run, log = tmp_path / f"run{runs}", tmp_path / f"run{runs}.log"
        while True:
            before = num_logged(run)
            child = children.start(command(verb, labelled_store, preset, run), log)

            while (
                child.is_alive() and num_logged(run) <= before
            ):  # from the first update on it listens
                time.sleep(0.005)

            child.join(draws.uniform(0, took / 3))
            sent = time.monotonic()
            child.terminate()
            child.join()

            if child.exitcode == 0:
                break
            assert child.exitcode == 143, log.read_text()
            seconds.append(time.monotonic() - sent)
            assert num_logged(run) == num_saved(run)
        runs += 1
        assert learned(run) == expected

    campaign.figures |= {"tries": len(seconds), "runs": runs, "failures": 0}
    campaign.figures |= {
        "seconds to leave, 95 % within": round(float(np.quantile(seconds, 0.95)), 2)
    }
