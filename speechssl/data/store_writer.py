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
    CHUNK_FIELDS,
    FORMAT,
    INDEX,
    TABLES,
    VERSION,
    Chunk,
    meta_checksum,
    sha256_of,
    shard_name,
)
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, ascii_json_line

# Bytes copied at a time where the file of a part goes into its shard.
_COPY_BYTES = 1 << 20


class ShardWriter:
    """Writes the arrays of one shard as they come, and puts the file in place at the end.

    What a damaged file gave can be taken back: ``mark`` before it, ``rollback`` after it.
    """

    def __init__(self, folder: Path, number: int, splits: Sequence[str]) -> None:
        self._target = folder / shard_name(number)
        self._temporary = folder / f"{shard_name(number)}.tmp"
        self._file: BinaryIO = self._temporary.open("wb")
        self._number = number
        self._split_codes = {name: code for code, name in enumerate(splits)}

        # A row of INDEX and a line of chunks.jsonl for each chunk, and their bytes in all.
        self._rows: list[tuple[int, ...]] = []
        self._lines: list[bytes] = []
        self._num_bytes = 0
        self._num_line_bytes = 0
        self._hash = hashlib.sha256()
        self.mark()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def mark(self) -> None:
        """Remember this state for ``rollback``."""
        self._marked = (
            len(self._rows),
            self._num_bytes,
            self._num_line_bytes,
            # SHA-256 cannot be undone, so its state is kept.
            self._hash.copy(),
        )

    def rollback(self) -> None:
        """Forget every chunk since ``mark``."""
        num_rows, self._num_bytes, self._num_line_bytes, marked_hash = self._marked
        self._hash = marked_hash.copy()
        del self._rows[num_rows:]
        del self._lines[num_rows:]

        self._file.seek(self._num_bytes)
        self._file.truncate()

    def add(self, array: NDArray[Any], chunk: Chunk) -> None:
        """Append one chunk: (S,) int16 or (T, F) float16."""
        little_endian = array.dtype.newbyteorder("<")
        data = np.ascontiguousarray(array, little_endian).tobytes()
        line = jsonl([{name: getattr(chunk, name) for name in CHUNK_FIELDS}])

        # In the order of INDEX.
        row = (
            self._number,
            self._num_bytes,
            len(array),
            chunk.num_samples,
            self._split_codes[chunk.split],
            zlib.crc32(data),
            self._num_line_bytes,
            len(line),
            zlib.crc32(line),
        )

        self._rows.append(row)
        self._lines.append(line)
        self._num_line_bytes += len(line)
        self._write(data)

    def append(self, path: Path, index: NDArray[Any], lines: bytes) -> None:
        """Append what another writer made: its file, and what its ``close`` gave."""
        moved = index.copy()
        moved["shard"] = self._number
        moved["offset"] += np.uint64(self._num_bytes)
        moved["record_offset"] += np.uint64(self._num_line_bytes)
        self._rows += moved.tolist()
        self._lines.append(lines)
        self._num_line_bytes += len(lines)

        with path.open("rb") as file:
            data = file.read(_COPY_BYTES)
            while data:
                self._write(data)
                data = file.read(_COPY_BYTES)

    def close(self) -> tuple[NDArray[Any], bytes, dict[str, Any]]:
        """Put the shard in place.

        Returns:
            Its rows of INDEX, its lines of ``chunks.jsonl``, and its bytes and SHA-256.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._target)

        about = {"bytes": self._num_bytes, "sha256": self._hash.hexdigest()}
        return np.array(self._rows, INDEX), b"".join(self._lines), about

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._num_bytes += len(data)


class TableWriter:
    """Joins the parts of the shards, in order, to the tables of a store.

    ``finish`` writes ``store.json`` last: a folder without it is no store.
    """

    def __init__(self, folder: Path, num_chunks: int) -> None:
        self._folder = folder
        self._files = {name: (folder / f"{name}.tmp").open("wb") for name in TABLES}

        # The header of index.npy says how many rows follow, so their number must be known before.
        header = {
            "descr": np.lib.format.dtype_to_descr(INDEX),
            "fortran_order": False,
            "shape": (num_chunks,),
        }
        np.lib.format.write_array_header_1_0(self._files["index.npy"], header)
        self._num_missing = num_chunks
        self._num_line_bytes = 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_exc: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, index: NDArray[Any], lines: bytes, rejects: bytes) -> None:
        """Append one shard's part; its record offsets count from the shard's first line."""
        moved = index.copy()
        moved["record_offset"] += np.uint64(self._num_line_bytes)

        self._files["index.npy"].write(moved.tobytes())
        self._files["chunks.jsonl"].write(lines)
        self._files["rejects.jsonl"].write(rejects)
        self._num_missing -= len(index)
        self._num_line_bytes += len(lines)

    def finish(self, meta: dict[str, Any]) -> None:
        """Put all files in place.

        Args:
            meta: features, dtype, width, splits, shards, totals, account and what else to keep.
        """
        assert self._num_missing == 0, "the header of index.npy counts every row"

        files = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()

            temporary = self._folder / f"{name}.tmp"
            files[name] = {"bytes": temporary.stat().st_size, "sha256": sha256_of(temporary)}
            temporary.replace(self._folder / name)

        whole = {**meta, "format": FORMAT, "version": VERSION, "files": files}
        sealed = {**whole, "checksum": meta_checksum(whole)}
        write_atomic(self._folder / "store.json", as_json(sealed))


def jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    """Write rows as lines of ASCII JSON: any text and any file name fits."""
    return "".join(map(ascii_json_line, rows)).encode("ascii")
