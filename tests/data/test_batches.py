"""Order of data: a function of (seed, step), every chunk once an epoch, bounded batches."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speechssl.audio.feature_config import FeatureConfig
from speechssl.data.batches import BatchConfig, Batches
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.runtime.seeds import generator


class Lengths:
    """As much of a dataset as planning needs."""

    def __init__(self, seconds: list[float]) -> None:
        self.features = FeatureConfig()
        self.num_samples = np.array([round(16_000 * s) for s in seconds], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_samples)


def planned(seconds: list[float], config: BatchConfig, seed: int = 0) -> Batches:
    return Batches(Lengths(seconds), config, seed)  # type: ignore[arg-type]


durations = st.lists(st.floats(0.3, 30), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(durations, st.integers(0, 5), st.floats(5, 60), st.integers(1, 9))
def test_every_chunk_comes_once_an_epoch_and_batches_are_bounded(
    seconds: list[float], epoch: int, limit: float, num_buckets: int
) -> None:
    batches = planned(seconds, BatchConfig(seconds=limit, num_buckets=num_buckets))
    steps = [
        batches.positions(epoch * batches.steps_per_epoch + i)
        for i in range(batches.steps_per_epoch)
    ]
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(seconds)))
    for positions in steps:
        padded = len(positions) * batches.lengths[positions].max() / 16_000
        assert len(positions) == 1 or padded <= limit + 1e-3


def test_the_summary_tells_how_full_the_updates_are() -> None:
    """In a bucket of one length after another, the longest decides how many go together."""
    batches = planned([1.5, 1.5, 1.5, 1.5, 7.0, 7.0], BatchConfig(seconds=10, num_buckets=1))
    steps = [batches.positions(step) for step in range(batches.steps_per_epoch)]
    assert len(steps) == 6
    summary = batches.summary(steps=12)
    assert summary == "3.3 s of audio an update, 6 updates an epoch, 2.0 epochs"


def test_order_depends_on_seed_and_step_alone() -> None:
    seconds = np.random.default_rng(0).uniform(1, 15, 200).tolist()
    first, second = (
        planned(seconds, BatchConfig(seconds=60)),
        planned(seconds, BatchConfig(seconds=60)),
    )
    steps = list(range(3 * first.steps_per_epoch))
    forwards = [first.positions(s).tolist() for s in steps]
    backwards = [second.positions(s).tolist() for s in reversed(steps)]
    assert forwards == backwards[::-1]
    other = planned(seconds, BatchConfig(seconds=60), seed=1)
    assert forwards != [other.positions(s).tolist() for s in steps]
    assert (
        forwards[: first.steps_per_epoch]
        != forwards[first.steps_per_epoch : 2 * first.steps_per_epoch]
    )


def epoch_of(batches: Batches, epoch: int) -> list[NDArray[np.int64]]:
    """The order as it was first written, with a list of arrays: resumed runs rely on it."""
    rng = generator("order", batches.seed, epoch)
    limit, steps = batches.config.seconds * 16_000, []
    for bucket in batches.buckets:
        per_batch = max(1, int(limit // batches.lengths[bucket[-1]]))
        steps += np.array_split(rng.permutation(bucket), -(-len(bucket) // per_batch))
    steps = [steps[i] for i in rng.permutation(len(steps))]
    if epoch == 0:
        areas = [len(step) * int(batches.lengths[step].max()) for step in steps]
        steps.insert(0, steps.pop(int(np.argmax(areas))))
    return steps


@settings(max_examples=60, deadline=None)
@given(durations, st.integers(0, 3), st.integers(0, 9), st.floats(5, 60), st.integers(1, 40))
def test_the_order_is_the_one_of_old_runs(
    seconds: list[float], epoch: int, seed: int, limit: float, num_buckets: int
) -> None:
    batches = planned(seconds, BatchConfig(seconds=limit, num_buckets=num_buckets), seed)
    expected = epoch_of(batches, epoch)
    assert len(expected) == batches.steps_per_epoch
    for index, positions in enumerate(expected):
        assert batches.positions(epoch * len(expected) + index).tolist() == positions.tolist()


def test_the_largest_batch_comes_first() -> None:
    seconds = np.random.default_rng(1).uniform(1, 15, 200).tolist()
    batches = planned(seconds, BatchConfig(seconds=60))
    areas = [
        len(p) * batches.lengths[p].max()
        for p in map(batches.positions, range(batches.steps_per_epoch))
    ]
    assert areas[0] == max(areas)


def test_micro_batches_hold_the_same_utterances(labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    whole = Batches(dataset, BatchConfig(seconds=40), 0)
    split = Batches(dataset, BatchConfig(seconds=40, micro_seconds=8), 0)
    for step in range(3):
        (batch,) = whole.micro_batches(step)
        parts = split.micro_batches(step)
        assert len(parts) > 1
        assert sorted(i for part in parts for i in part.ids) == sorted(batch.ids)
        assert all(part.inputs.shape[0] * part.inputs.shape[1] <= 8 * 100 for part in parts)


@settings(max_examples=60, deadline=None)
@given(durations, st.integers(0, 200), st.integers(1, 5), st.floats(5, 60))
def test_shares_of_an_update_are_its_utterances_dealt_evenly(
    seconds: list[float], step: int, ranks: int, limit: float
) -> None:
    batches = planned(seconds, BatchConfig(seconds=limit))
    shares = [batches.share(step, rank, ranks) for rank in range(ranks)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(batches.positions(step).tolist())
    again = planned(seconds, BatchConfig(seconds=limit))
    assert [again.share(step, rank, ranks).tolist() for rank in range(ranks)] == [
        s.tolist() for s in shares
    ]
    audio = [int(batches.lengths[share].sum()) for share in shares]
    assert max(audio) - min(audio) <= batches.lengths[batches.positions(step)].max()


def test_each_rank_loads_its_share(labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    batches = Batches(dataset, BatchConfig(seconds=20, micro_seconds=8), 0)
    whole = sorted(i for part in batches.micro_batches(3) for i in part.ids)
    for ranks in (2, 3, len(whole) + 1):
        shares = [batches.micro_batches(3, rank, ranks) for rank in range(ranks)]
        assert sorted(i for share in shares for part in share for i in part.ids) == whole
    assert shares[-1] == []


def test_crops_are_seeded_windows_of_the_chunk(labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    batches = Batches(dataset, BatchConfig(seconds=20, crop_s=1.0), 0)
    again = Batches(dataset, BatchConfig(seconds=20, crop_s=1.0), 0)
    (batch,), (repeated,) = batches.micro_batches(5), again.micro_batches(5)
    assert batch.inputs.shape[1] == 98  # 1 s: windows of 25 ms every 10 ms
    assert (batch.inputs == repeated.inputs).all()
    position = batches.positions(5)[0]
    assert dataset.id_text(int(position))[0] == batch.ids[0]
    chunk = dataset.array(int(position)).astype(np.float32)
    crop = batch.inputs[0].numpy()
    assert any(np.array_equal(chunk[a : a + 98], crop) for a in range(len(chunk) - 97))
