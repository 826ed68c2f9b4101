"""Transcripts on their way out: where those of an input go, which are there already, what became of each input."""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, ascii_json_line, read_json_lines
from speechssl.transcription.formats import FORMATS, CueLimits
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcript import Failure, Transcript

STDIN = Path("-")
MADE_BY = ".speechssl.json"  # in a folder of transcripts: of which model they are
DONE = ".speechssl-done.jsonl"  # there: of which recording each file is, a line each, the last one counts
_ONE_RECORDING = (
    "srt",
    "vtt",
    "tsv",
    "ctm",
)  # formats that do not say, or not surely, which one they are of


@dataclass(frozen=True)
class Outputs:
    """A folder that mirrors the tree of the inputs, or text to print.

    Attributes:
        formats: keys of ``FORMATS``; one without a folder.
        stdin: file that holds what came from standard input.
        recordings: what there is to say of each file, as it was before it was read, see ``_recording``.
    """

    formats: tuple[str, ...]
    limits: CueLimits
    folder: Path | None
    root: Path
    files: tuple[Path, ...]
    stdin: Path | None
    recordings: dict[Path, Table]

    def name(self, path: str | Path) -> str:
        """Of an input, as the user gave it."""
        return str(STDIN if Path(path) == self.stdin else path)

    def targets(self, path: Path) -> list[Path]:
        """Files that hold the transcript of an input, one for each format."""
        if self.folder is None:
            return []
        place = self.root / "stdin" if path == self.stdin else path
        return [output_path(place, self.root, self.folder, f".{name}") for name in self.formats]

    def waiting(self) -> list[Path]:
        """The inputs whose transcripts are not there, or are of what a recording held before it was changed.

        Nobody knows what standard input held.

        Raises:
            ConfigError: a transcript there is of another recording.
        """
        if self.folder is None:
            return list(self.files)
        done = read_done(self.folder)
        for name in (
            done
        ):  # of what is written there next, and a kill keeps from being noted, it would be said too
            if not (self.folder / name).exists():
                _note(self.folder, self.folder / name, None)
        # Every target is looked at: of each it is known whether it is another recording's.
        return [
            p
            for p in self.files
            if not all([self._is_done(p, t, done, self.folder) for t in self.targets(p)])
        ]

    def _is_done(self, path: Path, target: Path, done: dict[str, Table], folder: Path) -> bool:
        now, before = self.recordings.get(path), done.get(os.path.relpath(target, folder))
        if now is None or before is None or not target.exists():
            return False
        other = Path(os.path.normpath(os.path.join(os.path.realpath(folder), before["input"])))
        if before["input"] != now["input"] and other.exists() and not other.samefile(path):
            raise ConfigError(
                f"{target} would be of {path}, and is of {other}: give another --output-dir, or one folder of both"
            )
        return all(before.get(name) == now[name] for name in ("size", "mtime_ns"))

    def put(self, result: Transcript) -> str:
        """Write a transcript to its files, or return what is to be printed.

        With several inputs a line of text starts with its path, line breaks and tabs escaped.
        """
        named, path = replace(result, path=self.name(result.path)), Path(result.path)
        for name, target in zip(self.formats, self.targets(path), strict=False):
            assert self.folder
            if target.exists():  # whatever stops us between the two: what was known of the old one is not said of this
                _note(self.folder, target, None)
            write_atomic(target, FORMATS[name](named, self.limits))
            if path in self.recordings:
                _note(self.folder, target, self.recordings[path])
        if self.folder:
            return ""
        if self.formats == ("txt",) and len(self.files) > 1:
            shown = re.sub(r"[\t\n\r]", lambda found: repr(found[0])[1:-1], named.path)
            return f"{shown}\t{named.text}\n"
        return FORMATS[self.formats[0]](named, self.limits)


def plan_outputs(
    paths: Sequence[Path],
    formats: Sequence[str],
    limits: CueLimits,
    folder: Path | None,
    spool: Path,
) -> Outputs:
    """The audio files among inputs, and where their transcripts go.

    Args:
        paths: files and folders; ``-`` is standard input, which is read to its end.
        spool: folder for what standard input holds.

    Raises:
        ConfigError: an unknown format, formats or inputs that one stream cannot hold, a path that does not exist, or no
            audio.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ConfigError(
            f"--output-format {unknown[0]!r} is unknown: allowed are {', '.join(FORMATS)}"
        )
    if folder is None and len(formats) > 1:
        raise ConfigError("stdout takes one format: give one --output-format, or an --output-dir")
    stdin = _spooled(spool) if STDIN in paths else None
    files = dict.fromkeys(find_audio(stdin if stdin and path == STDIN else path for path in paths))
    if not files:
        raise ConfigError(f"no audio found in {', '.join(map(str, paths))}")
    if folder is None and len(files) > 1 and formats[0] in _ONE_RECORDING:
        raise ConfigError(
            f"{formats[0]} holds one recording, and these are {len(files)}: give an --output-dir"
        )
    # Of what was given: where a result goes must not depend on what else a folder holds.
    root = common_root([path for path in paths if path != STDIN] or [Path.cwd()])
    known = [
        path for path in files if path != stdin and path.exists()
    ]  # a broken link fails by name, later
    recordings = {path: _recording(path, folder) for path in known} if folder else {}
    return Outputs(tuple(formats), limits, folder, root, tuple(files), stdin, recordings)


def claim(folder: Path, made_by: Table, force: bool) -> None:
    """Note in ``folder`` what its transcripts are made by: those of two models must not get mixed.

    With ``force`` none that another made counts as done any more, also after a kill.

    Raises:
        ConfigError: something else made those that are there, and ``force`` is not given.
    """
    note = folder / MADE_BY
    if note.exists():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            before = None
        if before == made_by:
            return
        if not force:
            raise ConfigError(
                f"{folder} holds transcripts of another model or language model: give another --output-dir, or --force"
            )
    (folder / DONE).unlink(missing_ok=True)
    write_atomic(note, as_json(made_by))


def _recording(path: Path, folder: Path) -> Table:
    """The way to a recording from ``folder``, wherever links to that lie, and what tells that it was changed."""
    found, way = path.stat(), os.path.relpath(os.path.abspath(path), os.path.realpath(folder))
    return {"input": way, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _note(folder: Path, target: Path, recording: Table | None) -> None:
    """A line in ``DONE``, in one piece; what a kill left of another stays a line of its own.

    None = of no recording from now on, which is on the disk when this returns.
    """
    line = {"file": os.path.relpath(target, folder)} | (recording or {})
    with (folder / DONE).open("ab", buffering=0) as file:
        file.write(f"\n{ascii_json_line(line)}".encode())
        if recording is None:
            os.fsync(file.fileno())


def read_done(folder: Path) -> dict[str, Table]:
    """Lines by file. One that a kill cut off says nothing: that transcript is made again."""
    done: dict[str, Table] = {}
    for line in read_json_lines(folder / DONE, warn=False):
        if isinstance(line.get("file"), str):
            done[line["file"]] = line

    return {name: line for name, line in done.items() if isinstance(line.get("input"), str)}


def _spooled(folder: Path) -> Path:
    """Standard input as a file: formats are told apart, and some read, by going back and forth."""
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def outcome(outputs: Outputs, path: Path, result: Transcript | Failure | None) -> Table:
    """A line of the report; None = the transcript was there before."""
    name = outputs.name(path)
    if result is None:
        return {"path": name, "status": "done before"}
    if isinstance(result, Failure):
        return {"path": name, "status": "failed", "error": result.error}
    words = len(result.text.split())
    return {
        "path": name,
        "status": "done",
        "duration_s": round(result.duration_s, 3),
        "words": words,
    }


_MAX_NAME_BYTES = 255  # of one file name, on every common file system


def common_root(inputs: Iterable[Path]) -> Path:
    """The deepest folder that holds every input, for ``output_path``; of a single file, its own folder.

    Raises:
        ConfigError: there are no inputs.
    """
    folders = [os.path.abspath(path if path.is_dir() else path.parent) for path in inputs]
    if not folders:
        raise ConfigError("no inputs: give at least one file or folder")
    return Path(os.path.commonpath(folders))


def output_path(input_path: Path, input_root: Path, output_dir: Path, suffix: str) -> Path:
    """Where the result of ``input_path`` goes: its place under ``input_root``, mirrored under ``output_dir``.

    The suffix is appended and the old one kept (``a/x.wav`` -> ``a/x.wav.txt``), so under one root no two inputs share
    an output, neither ``a/x.wav`` and ``b/x.wav`` nor ``x.wav`` and ``x.flac``, and the place of one file does not
    depend on which others exist. A name that would grow too long is cut and ends in a hash of the whole.

    Args:
        suffix: with its dot, for example ".txt".

    Raises:
        ConfigError: the input is not under the root.
    """
    root = os.path.abspath(input_root)
    try:
        relative = Path(os.path.abspath(input_path)).relative_to(root)
    except ValueError as error:
        raise ConfigError(
            f"{input_path} is not under {input_root}: give a folder that holds every input"
        ) from error
    if not relative.name:
        raise ConfigError(f"{input_path} is the input folder itself, not a file in it")
    return output_dir / relative.parent / _short_name(relative.name, suffix)


def _short_name(name: str, suffix: str) -> str:
    whole = os.fsencode(name)
    if len(whole) + len(os.fsencode(suffix)) <= _MAX_NAME_BYTES:
        return name + suffix
    ending = f"-{hashlib.sha256(whole).hexdigest()[:16]}{suffix}"
    # Characters, not bytes, are dropped from the end, so that none is cut in half.
    while len(os.fsencode(name + ending)) > _MAX_NAME_BYTES:
        name = name[:-1]
    return name + ending
