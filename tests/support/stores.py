"""Small stores, written array by array."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.data.store import Chunk
from speechssl.data.store_writer import ShardWriter, TableWriter

RNG = np.random.default_rng(0)


def chunk(number: int, num_samples: int, split: str, text: str | None = "héllo") -> Chunk:
    return Chunk(
        f"a/{number}",
        f"a/\udcff{number}.wav",
        0.5,
        num_samples / 16000,
        num_samples,
        text,
        None,
        split,
    )


def build(
    folder: Path,
    arrays: list[NDArray[np.generic]],
    width: int | None,
    per_shard: int = 3,
    text: str = "héllo",
) -> list[Chunk]:
    """A store of ``arrays``; splits alternate between dev and train."""
    folder.mkdir()
    chunks = [chunk(k, 100 + k, ("dev", "train")[k % 2], text) for k in range(len(arrays))]

    starts = range(0, len(arrays), per_shard)
    table, shards = TableWriter(folder, len(arrays)), []
    for number, start in enumerate(starts):
        writer = ShardWriter(folder, number, ("dev", "train"))

        for array, one in zip(
            arrays[start : start + per_shard], chunks[start : start + per_shard], strict=True
        ):
            writer.add(array, one)

        index, lines, about = writer.close()
        table.add(index, lines, b"{}\n")
        shards.append(about)

    dtype = "int16" if width is None else "float16"
    meta = {
        "dtype": dtype,
        "width": width,
        "splits": ["dev", "train"],
        "shards": shards,
        "features": {"kind": dtype},
    }

    table.finish({**meta, "totals": {"chunks": len(arrays)}, "account": {"kept": 1}, "plan": "p"})
    return chunks


def waveforms(count: int) -> list[NDArray[np.generic]]:
    return [RNG.integers(-32768, 32767, 100 + k).astype(np.int16) for k in range(count)]
