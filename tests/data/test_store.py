"""A store gives back what was written, and notices every kind of damage."""

import json
import pickle
import time
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.stores import RNG, build, chunk, waveforms

from speechssl.data.store import INDEX, Store, is_store, meta_checksum
from speechssl.data.store_writer import ShardWriter, TableWriter
from speechssl.errors import ManifestError


@pytest.mark.parametrize("width", [None, 5])
def test_what_went_in_comes_out(tmp_path: Path, width: int | None) -> None:
    arrays: list[NDArray[np.generic]] = waveforms(8)
    if width:
        arrays = [RNG.standard_normal((k + 1, width)).astype(np.float16) for k in range(8)]
    chunks = build(tmp_path / "s", arrays, width)
    assert is_store(tmp_path / "s")
    store = Store(tmp_path / "s")
    store.verify()
    assert len(store) == 8
    assert store.splits == ("dev", "train")
    assert store.features == {"kind": "int16" if width is None else "float16"}
    assert store.num_samples.tolist() == [100 + k for k in range(8)]
    assert store.input_lengths.tolist() == [len(a) for a in arrays]
    assert store.indices().tolist() == list(range(8))
    assert store.indices(["train"]).tolist() == [1, 3, 5, 7]
    assert store.indices(["nowhere"]).tolist() == []
    for copy in (store, pickle.loads(pickle.dumps(store))):
        for k, array in enumerate(arrays):
            held = copy.array(k)
            assert held.dtype == array.dtype
            assert held.flags.writeable
            np.testing.assert_array_equal(held, array)
            assert copy.record(k) == chunks[k]
    with pytest.raises(IndexError):
        store.array(8)


def test_an_empty_store(tmp_path: Path) -> None:
    build(tmp_path / "s", [], None)
    store = Store(tmp_path / "s")
    store.verify()
    assert len(store) == 0
    assert store.indices(["train"]).tolist() == []


FILES = [
    "store.json",
    "index.npy",
    "chunks.jsonl",
    "rejects.jsonl",
    "shard-00000.bin",
    "shard-00001.bin",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(tmp_path / "s", waveforms(5), None)
    return tmp_path / "s"


def read_all(folder: Path) -> None:
    store = Store(folder)
    for k in range(len(store)):
        store.array(k), store.record(k)
    store.verify()


@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_flipped_bit_is_noticed(folder: Path, data: st.DataObject) -> None:
    file = folder / data.draw(st.sampled_from(FILES))
    good = file.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    file.write_bytes(
        good[:at] + bytes([good[at] ^ 1 << data.draw(st.integers(0, 7))]) + good[at + 1 :]
    )
    try:
        with pytest.raises(ManifestError):
            read_all(folder)
    finally:
        file.write_bytes(good)
    read_all(folder)


@pytest.mark.parametrize("name", FILES)
def test_cut_longer_and_missing_files_are_noticed_at_open(folder: Path, name: str) -> None:
    good = (folder / name).read_bytes()
    for damaged in (b"", good[: len(good) // 2], good[:-2], good + b"{"):
        (folder / name).write_bytes(damaged)
        with pytest.raises(ManifestError, match=str(folder)):
            Store(folder)
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=name):
        Store(folder)


def test_a_damaged_chunk_is_named(folder: Path) -> None:
    shard = bytearray((folder / "shard-00000.bin").read_bytes())
    shard[210] ^= 1  # of the second chunk
    (folder / "shard-00000.bin").write_bytes(shard)
    store = Store(folder)
    store.array(0)
    with pytest.raises(ManifestError, match=f"{folder}.*a/1 fails its checksum"):
        store.array(1)
    with pytest.raises(ManifestError, match=r"shard-00000\.bin"):
        store.verify()


def sign(folder: Path, *names: str) -> None:
    """Make the checksums of these files right, whatever they hold."""
    meta = json.loads((folder / "store.json").read_text())
    for name in names:
        data = (folder / name).read_bytes()
        meta["files"][name] |= {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    del meta["checksum"]
    meta["checksum"] = meta_checksum(meta)
    (folder / "store.json").write_text(json.dumps(meta))


def test_an_index_that_is_no_index_is_named(folder: Path) -> None:
    """With the right checksum: something else wrote it."""
    good = (folder / "index.npy").read_bytes()
    for damaged, problem in (
        (b"\0" * 8 + good[8:], "index.npy"),
        (good.replace(b"(5,)", b"5,  "), "index.npy"),
        (good.replace(b"(5,)", b"()  "), "holds 0 axes"),
    ):
        (folder / "index.npy").write_bytes(damaged)
        sign(folder, "index.npy")
        with pytest.raises(ManifestError, match=f"{folder}.*{problem}"):
            Store(folder)


def test_a_record_that_is_no_record_is_named(folder: Path) -> None:
    """With the right checksums."""
    lines = (folder / "chunks.jsonl").read_bytes()
    index = np.load(folder / "index.npy")
    start, size = int(index[0]["record_offset"]), int(index[0]["record_bytes"])
    other = b'{"id": 7}'.ljust(size)
    (folder / "chunks.jsonl").write_bytes(lines[:start] + other + lines[start + size :])
    index[0]["record_crc32"] = zlib.crc32(other)
    np.save(folder / "index.npy", index)
    sign(folder, "index.npy", "chunks.jsonl")

    store = Store(folder)
    with pytest.raises(ManifestError, match="the record of chunk 0 is malformed"):
        store.record(0)

    # A chunk without a name is named by its position.
    shard = bytearray((folder / "shard-00000.bin").read_bytes())
    shard[0] ^= 1
    (folder / "shard-00000.bin").write_bytes(shard)
    with pytest.raises(ManifestError, match="chunk 0 fails its checksum"):
        store.array(0)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shard", 7),
        ("offset", 2**63),
        ("num_units", 2**32 - 1),
        ("record_offset", 2**60),
        ("record_bytes", 2**31),
    ],
)
def test_an_index_out_of_range_is_an_error_not_a_crash(
    folder: Path, column: str, value: int
) -> None:
    store = Store(folder)
    forged = store._index.copy()
    forged[2][column] = value
    store._index = forged
    with pytest.raises(ManifestError, match=r"chunk 2|chunk a/2"):
        store.array(2), store.record(2)


def test_other_folders_and_formats(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ManifestError, match="a folder of stores; give one of them"):
        Store(tmp_path)
    for text in ("[" * 100_000, "null", "{}", '{"format": "other"}'):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(ManifestError):
            Store(tmp_path)
    meta = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**meta, "version": 99}))
    with pytest.raises(ManifestError, match="format 99"):
        Store(folder)


def test_a_million_chunks_open_at_once(tmp_path: Path) -> None:
    count, folder = 1_000_000, tmp_path / "s"
    folder.mkdir()
    writer = ShardWriter(folder, 0, ("train",))
    writer.add(np.arange(50, dtype=np.int16), chunk(0, 50, "train"))
    one, line, about = writer.close()
    table = TableWriter(folder, count)
    table.add(np.repeat(one, count), line, b"")  # every row points at the same array and record
    meta = {
        "dtype": "int16",
        "width": None,
        "splits": ["train"],
        "features": {},
        "account": {},
        "plan": "",
    }
    table.finish({**meta, "shards": [about], "totals": {"chunks": count}})
    assert INDEX.itemsize == 41
    tracemalloc.start()
    started = time.perf_counter()
    store = Store(folder)
    took = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(store) == count
    assert took < 1.0
    assert peak < 2_000_000
    assert store.array(count - 1).tolist() == list(range(50))
    assert store.record(count - 1).id == "a/0"
