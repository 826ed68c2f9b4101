"""Shards written in one go or in pieces, with what went wrong taken back."""

from itertools import pairwise
from pathlib import Path

from support.stores import chunk, waveforms

from speechssl.data.store import shard_name
from speechssl.data.store_writer import ShardWriter


def test_pieces_of_a_shard_join_to_the_shard(tmp_path: Path) -> None:
    arrays = waveforms(7)
    chunks = [chunk(k, 100 + k, "train") for k in range(7)]
    made = []
    for name, bounds in (("whole", (0, 7)), ("joined", (0, 3, 3, 7))):
        (tmp_path / name / "pieces").mkdir(parents=True)
        shard = ShardWriter(tmp_path / name, 4, ("train",))
        for number, (a, b) in enumerate(pairwise(bounds)):
            writer = (
                shard
                if name == "whole"
                else ShardWriter(tmp_path / name / "pieces", number, ("train",))
            )
            for array, one in zip(arrays[a:b], chunks[a:b], strict=True):
                writer.add(array, one)
            if name == "joined":
                index, lines, _ = writer.close()
                shard.append(tmp_path / name / "pieces" / shard_name(number), index, lines)
        index, lines, about = shard.close()
        made.append((index.tolist(), lines, about, (tmp_path / name / shard_name(4)).read_bytes()))
    assert made[0] == made[1]


def test_rollback_leaves_no_trace(tmp_path: Path) -> None:
    arrays = waveforms(4)
    results = []
    for name, detour in (("plain", False), ("detour", True)):
        (tmp_path / name).mkdir()
        writer = ShardWriter(tmp_path / name, 0, ("train",))
        for k, array in enumerate(arrays):
            writer.mark()
            if detour:
                writer.add(arrays[-1], chunk(99, 5, "train"))
                writer.rollback()
            writer.add(array, chunk(k, len(array), "train"))
        index, lines, about = writer.close()
        results.append(
            (index.tobytes(), lines, about, (tmp_path / name / shard_name(0)).read_bytes())
        )
    assert results[0] == results[1]
