"""Writes the files of a feature store: shards as they fill, tables at the end."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from speechssl.data.store import (
    _CHUNK_FIELDS,
    _TABLES,
    FORMAT,
    INDEX,
    VERSION,
    Chunk,
    _checksum,
    _sha256,
    shard_name,
)
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, ascii_json_line


def jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    """Lines of ASCII JSON: any text and any file name fits."""
    return "".join(map(ascii_json_line, rows)).encode("ascii")


class ShardWriter:
    """Arrays of one shard, written as they come and put in place at the end; what a bad file gave can be taken back."""

    def __init__(self, folder: Path, number: int, splits: Sequence[str]) -> None:
        self._target = folder / shard_name(number)
        self._temporary = folder / f"{shard_name(number)}.tmp"
        self._file: BinaryIO = self._temporary.open("wb")
        self._number, self._splits = number, {name: code for code, name in enumerate(splits)}
        self._rows: list[tuple[int, ...]] = []
        self._lines: list[bytes] = []
        self._bytes = self._line_bytes = 0
        self._hash = hashlib.sha256()
        self.mark()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def mark(self) -> None:
        """From here on ``rollback`` takes back."""
        self._marked = (len(self._rows), self._bytes, self._line_bytes, self._hash.copy())

    def rollback(self) -> None:
        """Forget every chunk since ``mark``."""
        count, self._bytes, self._line_bytes, kept = self._marked
        self._hash = kept.copy()
        del self._rows[count:], self._lines[count:]
        self._file.seek(self._bytes)
        self._file.truncate()

    def add(self, array: NDArray[Any], chunk: Chunk) -> None:
        """Append one chunk: (S,) int16 or (T, F) float16."""
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        line = jsonl([{name: getattr(chunk, name) for name in _CHUNK_FIELDS}])
        place = (
            self._number,
            self._bytes,
            len(array),
            chunk.num_samples,
            self._splits[chunk.split],
            zlib.crc32(data),
        )
        self._rows.append((*place, self._line_bytes, len(line), zlib.crc32(line)))
        self._lines.append(line)
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)
        self._line_bytes += len(line)

    def append(self, path: Path, index: NDArray[Any], lines: bytes) -> None:
        """Append what another writer made: its file, and what its ``close`` gave."""
        moved = index.copy()
        moved["shard"] = self._number
        moved["offset"] += np.uint64(self._bytes)
        moved["record_offset"] += np.uint64(self._line_bytes)
        self._rows += moved.tolist()
        self._lines.append(lines)
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                self._file.write(data)
                self._hash.update(data)
                self._bytes += len(data)
        self._line_bytes += len(lines)

    def close(self) -> tuple[NDArray[Any], bytes, dict[str, Any]]:
        """Put the shard in place. Returns its index rows, its lines of ``chunks.jsonl``, its bytes and SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._target)
        about = {"bytes": self._bytes, "sha256": self._hash.hexdigest()}
        return np.array(self._rows, INDEX), b"".join(self._lines), about


class TableWriter:
    """Joins the parts of the shards, in order, to the tables of a store; ``finish`` writes ``store.json`` last."""

    def __init__(self, folder: Path, num_chunks: int) -> None:
        self._folder = folder
        self._files = {name: (folder / f"{name}.tmp").open("wb") for name in _TABLES}
        header = {
            "descr": np.lib.format.dtype_to_descr(INDEX),
            "fortran_order": False,
            "shape": (num_chunks,),
        }
        np.lib.format.write_array_header_1_0(self._files["index.npy"], header)
        self._missing, self._line_bytes = num_chunks, 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_exc: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, index: NDArray[Any], lines: bytes, rejects: bytes) -> None:
        """Append one shard's part; its record offsets count from the shard's first line."""
        moved = index.copy()
        moved["record_offset"] += np.uint64(self._line_bytes)
        self._files["index.npy"].write(moved.tobytes())
        self._files["chunks.jsonl"].write(lines)
        self._files["rejects.jsonl"].write(rejects)
        self._missing -= len(index)
        self._line_bytes += len(lines)

    def finish(self, meta: dict[str, Any]) -> None:
        """Put all in place. ``meta``: features, dtype, width, splits, shards, totals, account and what else to keep."""
        assert self._missing == 0, "the header of index.npy counts every row"
        files = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary = self._folder / f"{name}.tmp"
            files[name] = {"bytes": temporary.stat().st_size, "sha256": _sha256(temporary)}
            temporary.replace(self._folder / name)
        whole = {**meta, "format": FORMAT, "version": VERSION, "files": files}
        write_atomic(self._folder / "store.json", as_json({**whole, "checksum": _checksum(whole)}))
