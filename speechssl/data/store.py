"""A feature store: chunks of recordings as arrays in a few large files.

Files are memory-mapped, and every byte is under a checksum::

    store.json        format, feature settings, splits, totals, account, bytes and SHA-256 of all
                      files below
    index.npy         one row of fixed size a chunk (INDEX): where its array and its record lie,
                      their CRC-32
    chunks.jsonl      one record a chunk (Chunk), ASCII
    rejects.jsonl     one line a record that could not be used: id, audio, reason, detail
    shard-00000.bin   the arrays, end to end, little-endian

Opening reads the index once to check it. Arrays and records are read, and checked, when they are
asked for.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.config import Settings, build
from speechssl.errors import ConfigError, ManifestError
from speechssl.storage.json_text import as_json
from speechssl.storage.wrong_paths import what_instead

FORMAT = "speechssl store"

# Raise it when a store of the new form cannot be read as one of the old.
VERSION = 1

# A row of index.npy. Packed and little-endian, so that the file is the same on every machine. The
# names are part of the format on disk. So ``num_units`` keeps its name there, while the package
# says ``input_lengths``: the rows of an array, samples (waveform) or frames (logmel).
INDEX = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),  # of the array in its shard, bytes
        ("num_units", "<u4"),
        ("num_samples", "<u4"),
        ("split", "u1"),  # position in the store's list of splits
        ("crc32", "<u4"),  # of the array
        ("record_offset", "<u8"),  # in chunks.jsonl, bytes
        ("record_bytes", "<u4"),
        ("record_crc32", "<u4"),
    ]
)

# The files beside store.json and the shards.
TABLES = ("index.npy", "chunks.jsonl", "rejects.jsonl")

_DTYPES = {"int16": np.dtype("<i2"), "float16": np.dtype("<f2")}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is known of one chunk beside its array.

    Attributes:
        id: unique in the store. It is the record's, followed by ``@`` and the first sample for a
            piece of a recording.
        audio: path below the root that the store was prepared from.
        offset_s, duration_s: where in the recording, seconds.
        num_samples: length at the store's sample rate.
        text, speaker: None = unknown.
        split: such as train, dev, test.
    """

    id: str
    audio: str
    offset_s: float
    duration_s: float
    num_samples: int
    text: str | None
    speaker: str | None
    split: str


CHUNK_FIELDS = tuple(field.name for field in fields(Chunk))


class FileSums(Settings):
    """What a file of a store must be."""

    bytes: int = Field(ge=0)
    sha256: str


class StoreMeta(Settings):
    """``store.json`` without its checksum."""

    format: str
    version: int
    features: dict[str, Any]
    dtype: Literal["int16", "float16"]
    width: int | None = Field(ge=1, le=65_536, description="values of a frame; None: samples")
    splits: tuple[str, ...]
    totals: dict[str, int]
    account: dict[str, Any]
    plan: str = Field(description="digest of the recordings and settings that it was made from")
    recipe: int = Field(1, description="version of what prepare did, see data/division.py")
    shards: tuple[FileSums, ...]
    files: dict[str, FileSums]


class Store:
    """A prepared store, opened for reading. It pickles as its path, so workers map the files anew.

    Attributes:
        path: its folder.
        features: settings of the features that it holds, as a table.
        account: what became of every sample of the input.
        plan: digest of the recordings and settings that it was made from.
        recipe: version of what prepare did.
        splits: names of the splits.
        width: values of a frame; None where arrays are samples.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the store in folder ``path``.

        Raises:
            ManifestError: there is none, or its tables are damaged (``verify`` checks the arrays
                too).
        """
        self.path = Path(path)
        meta = read_meta(self.path)
        self.features = meta.features
        self.account = meta.account
        self.plan = meta.plan
        self.recipe = meta.recipe
        self.splits = meta.splits
        self.width = meta.width
        self._dtype = _DTYPES[meta.dtype]

        self._shard_bytes = [shard.bytes for shard in meta.shards]
        self._files = {name: meta.files[name] for name in TABLES}
        for number, shard in enumerate(meta.shards):
            self._files[shard_name(number)] = shard
        for name, sums in self._files.items():
            self._check_size(name, sums.bytes)

        if sha256_of(self.path / "index.npy") != self._files["index.npy"].sha256:
            raise self._damaged("index.npy", "its checksum differs")
        # An array without rows cannot be mapped.
        has_chunks = meta.totals.get("chunks") != 0
        self._index = self._read_index(mapped=has_chunks)

        # Files that were mapped already, by name.
        self._maps: dict[str, NDArray[np.uint8]] = {}

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.path,)

    def __len__(self) -> int:
        return len(self._index)

    @cached_property
    def num_samples(self) -> NDArray[np.int64]:
        """(len,) samples of each chunk."""
        return self._index["num_samples"].astype(np.int64)

    @cached_property
    def input_lengths(self) -> NDArray[np.int64]:
        """(len,) rows of each chunk's array: samples or frames."""
        return self._index["num_units"].astype(np.int64)

    def indices(self, splits: Collection[str] | None = None) -> NDArray[np.int64]:
        """Return the positions of the chunks of some splits, ascending; None takes all."""
        if splits is None:
            return np.arange(len(self), dtype=np.int64)

        codes = []
        for code, name in enumerate(self.splits):
            if name in splits:
                codes.append(code)

        is_chosen = np.isin(self._index["split"], codes)
        return np.flatnonzero(is_chosen).astype(np.int64)

    def array(self, i: int) -> NDArray[Any]:
        """Return what the store holds of chunk ``i``: (S,) int16 or (T, F) float16, a copy.

        Raises:
            ManifestError: the chunk is damaged; names the store and the chunk.
        """
        row = self._index[i]
        num_rows = int(row["num_units"])
        shape = (num_rows,) if self.width is None else (num_rows, self.width)
        num_values = int(np.prod(shape))
        shard = int(row["shard"])
        start = int(row["offset"])
        stop = start + num_values * self._dtype.itemsize

        if shard >= len(self._shard_bytes) or stop > self._shard_bytes[shard]:
            raise self._damaged("index.npy", f"the array of chunk {i} lies outside its shard")

        file_name = shard_name(shard)
        mapped = self._map(file_name)
        # A copy, so that the bytes that are checked are the bytes that are used.
        data = np.array(mapped[start:stop])
        if zlib.crc32(data.data) != row["crc32"]:
            problem = f"the array of chunk {self._name(i)} fails its checksum"
            raise self._damaged(file_name, problem)

        values = data.view(self._dtype)
        return values.reshape(shape)

    def checksum(self, i: int) -> int:
        """Return the CRC-32 of the array of chunk ``i``."""
        return int(self._index[i]["crc32"])

    def record(self, i: int) -> Chunk:
        """Return what is known of chunk ``i`` beside its array.

        Raises:
            ManifestError: the record is damaged.
        """
        row = self._index[i]
        size = int(row["record_bytes"])
        start = int(row["record_offset"])
        stop = start + size

        mapped = self._map("chunks.jsonl")
        data = mapped[start:stop].tobytes()
        if len(data) != size or zlib.crc32(data) != row["record_crc32"]:
            raise self._damaged("chunks.jsonl", f"the record of chunk {i} fails its checksum")

        try:
            return Chunk(**json.loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            problem = f"the record of chunk {i} is malformed: {error}"
            raise self._damaged("chunks.jsonl", problem) from error

    def texts(self, split: str) -> Iterator[str]:
        """Yield the transcripts of a split; chunks without one are passed over."""
        for position in self.indices([split]).tolist():
            text = self.record(position).text
            if text is not None:
                yield text

    def verify(self) -> None:
        """Read every file and compare it with its SHA-256.

        Raises:
            ManifestError: names the first file that differs.
        """
        for name, sums in self._files.items():
            file = self.path / name
            if not file.is_file() or sha256_of(file) != sums.sha256:
                raise self._damaged(name, "its checksum differs")

    def _check_size(self, name: str, size: int) -> None:
        file = self.path / name
        try:
            found = file.stat().st_size
        except OSError as error:
            raise self._damaged(name, "is missing") from error
        if found != size:
            raise self._damaged(name, f"{found} bytes, not {size}")

    def _read_index(self, mapped: bool) -> NDArray[Any]:
        try:
            index = np.load(self.path / "index.npy", mmap_mode="r" if mapped else None)
        except (OSError, ValueError, SyntaxError, KeyError, TypeError) as error:
            # All of these come from numpy where the file's header is damaged.
            raise self._damaged("index.npy", str(error)) from error

        if index.dtype != INDEX or index.ndim != 1:
            raise self._damaged("index.npy", f"holds {index.ndim} axes of {index.dtype}")
        rows: NDArray[Any] = index
        return rows

    def _map(self, name: str) -> NDArray[np.uint8]:
        """Return a file's bytes, mapped when they are first asked for."""
        if name not in self._maps:
            file = self.path / name
            if file.stat().st_size == 0:
                # An empty file cannot be mapped.
                self._maps[name] = np.zeros(0, np.uint8)
            else:
                self._maps[name] = np.memmap(file, np.uint8, "r")
        return self._maps[name]

    def _name(self, i: int) -> str:
        """Return the id of chunk ``i``, or its position where the record is damaged too."""
        try:
            return self.record(i).id
        except ManifestError:
            return str(i)

    def _damaged(self, name: str, problem: str) -> ManifestError:
        return ManifestError(
            f"store {self.path} is damaged: {name}: {problem}; prepare it anew with --force"
        )


def is_store(path: Path) -> bool:
    """Whether folder ``path`` holds a finished store."""
    return (path / "store.json").is_file()


def is_of_another_program(path: Path) -> bool:
    """Whether folder ``path`` has a ``store.json`` that is whole and describes no store of ours."""
    try:
        meta = json.loads((path / "store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(meta, dict) or meta.get("format") != FORMAT


def shard_name(number: int) -> str:
    """Return the name of a shard's file."""
    return f"shard-{number:05d}.bin"


def meta_checksum(meta: dict[str, Any]) -> str:
    """Return the SHA-256 of ``store.json`` without its checksum."""
    return hashlib.sha256(as_json(meta).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_meta(path: Path) -> StoreMeta:
    """Read and check ``store.json`` in folder ``path``.

    Raises:
        ManifestError: it is missing, damaged, or of another format.
    """
    file = path / "store.json"
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(
            f"{path} is no finished store: {file.name}: {error.strerror}"
            f"{what_instead(path) or '; run prepare'}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"store {path} is damaged: {file.name}: {error}; prepare it anew with --force"
        ) from error

    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ManifestError(f"{file} does not describe a store")
    version = meta.get("version")
    if version != VERSION:
        raise ManifestError(
            f"{path} has store format {version!r}, this speechssl reads {VERSION}: read it with "
            "the version that wrote it, or prepare it anew with --force"
        )
    if meta.pop("checksum", None) != meta_checksum(meta):
        raise ManifestError(
            f"store {path} is damaged: {file.name}: its checksum differs; "
            "prepare it anew with --force"
        )

    try:
        found = build(StoreMeta, meta)
    except ConfigError as error:
        raise ManifestError(
            f"{file} describes no store: {error}; prepare it anew with --force"
        ) from error

    missing = [name for name in TABLES if name not in found.files]
    if missing:
        raise ManifestError(
            f"{file} has no checksum of {missing[0]}; prepare the store anew with --force"
        )
    return found
