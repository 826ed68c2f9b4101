"""Log-probabilities on the disk: equal to the bit when read, and not in memory meanwhile."""

import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechssl.recognition.decoders import Emissions
from speechssl.recognition.emission_file import EmissionFile


def drawn(seed: int) -> list[Emissions]:
    """Batches of any shape; the last one has no output, as that of utterances too short for one."""
    draws = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    batches = []

    for number in range(draws.randint(2, 6)):
        size, length, width = draws.randint(1, 4), draws.randint(1, 50), draws.randint(2, 400)
        log_probs = torch.randn(size, length, width, generator=generator).log_softmax(-1)
        counts = torch.tensor([draws.randint(0, length) for _ in range(size)])
        ids = tuple(f"{number}-{index}" for index in range(size))
        batches.append(Emissions(ids, log_probs, counts))

    nothing = torch.zeros(2, 0, 7)
    batches.append(Emissions(("a", "b"), nothing, torch.zeros(2, dtype=torch.long)))
    return batches


@pytest.mark.parametrize("seed", range(5))
def test_every_reading_gives_what_was_written(seed: int, tmp_path: Path) -> None:
    batches = drawn(seed)
    with EmissionFile(iter(batches), tmp_path) as kept:
        # No name: a process that is killed leaves nothing behind.
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            for read, written in zip(kept, batches, strict=True):
                assert read.ids == written.ids
                assert torch.equal(read.log_probs, written.log_probs)
                assert torch.equal(read.num_outputs, written.num_outputs)


def test_one_batch_at_a_time_is_in_memory() -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def computed() -> Iterator[Emissions]:
        for batch in range(20):
            log_probs = torch.full((1, 100, 50), float(batch))
            alive.add(log_probs)
            yield Emissions((str(batch),), log_probs, torch.tensor([100]))
            del log_probs
            assert len(alive) <= 1

    with EmissionFile(computed()) as kept:
        assert len(alive) == 0
        for batch in kept:
            alive.add(batch.log_probs)
            assert len(alive) <= 2  # the one before is let go when the next one has come
