"""Recordings of which nothing is kept: listed with their reason, and no bad files."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.recordings import adds_up, damage, talk
from support.speech import RATE

from speechssl.audio.reader import write_wav
from speechssl.corpus.manifest import Manifest, Record
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.rejects import first_few, read_rejects
from speechssl.data.store import Store


@pytest.mark.parametrize("seed", range(8))
def test_recordings_shorter_than_a_chunk_are_listed(tmp_path: Path, seed: int) -> None:
    """They were counted, and nobody knew which they were; with any lengths of chunks."""
    rng = random.Random(seed)
    shortest_s = rng.uniform(0.5, 3)
    longest_s = shortest_s * rng.choice([1, 1.2, 2.5, 8])
    config = PrepareConfig(min_chunk_s=shortest_s, max_chunk_s=longest_s)
    # In some folders all are too short, in others none.
    longest_of_all_s = shortest_s * rng.choice([0.95, 3, 3, 3])

    folder = tmp_path / "in"
    folder.mkdir()
    seconds: dict[str, float] = {}
    for number in range(6):
        name = f"{number}.wav"
        seconds[name] = rng.uniform(0.1, longest_of_all_s)
        write_wav(folder / name, talk([(0.1, seconds[name])], seed=number), RATE)
    write_wav(folder / "silent.wav", np.zeros(round(longest_s * RATE), np.float32), RATE)

    report = prepare(folder, tmp_path / "s", config)
    adds_up(report)
    too_short = {name for name, length_s in seconds.items() if length_s < shortest_s}
    rejects = {row["audio"]: row["reason"] for row in read_rejects(tmp_path / "s")}
    assert rejects == {**dict.fromkeys(too_short, "too short"), "silent.wav": "silence"}
    assert report.num_reject_lines == len(rejects)

    # None of them is a bad file.
    assert report.num_rejected == 0
    assert not report.all_bad
    kept = report.kept
    assert kept.files == len(seconds) - len(too_short)
    files = {reason: tally.files for reason, tally in report.dropped.items() if tally.files}
    assert files == Counter(rejects.values())

    store = Store(tmp_path / "s")
    assert len(store) == kept.chunks
    lengths_s = store.num_samples / RATE
    assert all(shortest_s - 0.01 <= length_s <= longest_s + 0.01 for length_s in lengths_s)


@pytest.mark.parametrize("seed", range(3))
def test_parts_without_a_chunk_are_listed_beside_others(tmp_path: Path, seed: int) -> None:
    """Some parts of a file are used, one is too short, one is outside of it, one has a text."""
    rng = random.Random(seed)
    write_wav(tmp_path / "x.wav", talk([(0.1, 10), (0.0, 6)], seed=seed), RATE)
    length_s = round(rng.uniform(0.3, 1.5), 2)
    records = {
        "long": Record("long", "x.wav", 0.0, 5.0),
        "short": Record("short", "x.wav", 6.0, length_s),
        "silent": Record("silent", "x.wav", 11.0, 4.0),
        "outside": Record("outside", "x.wav", 99.0, 4.0),
        "spoken": Record("spoken", "x.wav", 8.0, length_s, text="one"),
    }
    chosen = rng.sample(sorted(records), 4)
    manifest = Manifest(tmp_path, tuple(records[name] for name in sorted(chosen)))
    report = prepare(manifest, tmp_path / "s", PrepareConfig(dev=0.0, test=0.0))
    adds_up(report)

    reasons = {"short": "too short", "silent": "silence", "outside": "outside the file"}
    found = {row["id"]: row["reason"] for row in read_rejects(tmp_path / "s")}
    assert found == {name: reasons[name] for name in chosen if name in reasons}
    assert report.num_rejected == 0
    assert report.kept.files == 1


def test_bad_files_are_counted_apart_from_short_ones(tmp_path: Path) -> None:
    planted = damage(tmp_path)
    write_wav(tmp_path / "short.wav", talk([(0.1, 0.4)]), RATE)
    report = prepare(tmp_path, tmp_path / "s", PrepareConfig(max_duration_s=60))
    assert report.num_rejected == len(planted)
    assert report.num_reject_lines == len(planted) + 1
    assert report.too_many_bad
    assert not report.all_bad


def test_the_first_names_are_shown_and_the_others_counted() -> None:
    names = [f"{number}.wav" for number in range(5)]
    assert first_few(names[:3]) == "0.wav, 1.wav, 2.wav"
    assert first_few(names) == "0.wav, 1.wav, 2.wav and 2 more"
