"""Transcripts on their way out: where each goes, which are there already, and of what.

A folder of transcripts holds two hidden files of ours:

    .speechssl.json         digests of the model and the language model that made them
    .speechssl-done.jsonl   which files are ours, and of which recording each is: a line for each
                            change, of which the last one on a file counts
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import (
    as_json,
    ascii_json_line,
    read_json_lines,
    read_json_table,
)
from speechssl.storage.wrong_paths import what_instead
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.file_names import common_root, output_path, recording_names
from speechssl.transcription.formats import FORMATS
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcript import Failure, Transcript

STDIN = Path("-")
MADE_BY = ".speechssl.json"
DONE = ".speechssl-done.jsonl"

# What a line of DONE says of a file, where it does not name a recording. An unfinished file is
# ours, and nobody knows what it holds: it is being written, was left by a kill, or is of standard
# input. Of one that is gone nothing is known any more: the next of its name is somebody else's.
UNFINISHED: Table = {"input": None}
GONE: Table = {}

# Formats that do not say, or not surely, which recording they are of.
ONE_RECORDING = ("srt", "vtt", "tsv", "ctm")


@dataclass(frozen=True)
class Outputs:
    """The inputs, and where their transcripts go: into a folder, or to standard output.

    Attributes:
        formats: keys of ``FORMATS``; one if there is no folder.
        limits: of subtitles.
        folder: mirrors the tree of the inputs; None prints.
        root: the folder that holds all inputs.
        files: the recordings.
        stdin: file that holds what came from standard input, if it was an input.
        recordings: for each file what tells that it was changed, as it was before it was read.
    """

    formats: tuple[str, ...]
    limits: CueLimits
    folder: Path | None
    root: Path
    files: tuple[Path, ...]
    stdin: Path | None
    recordings: dict[Path, Table]

    def name(self, path: str | Path) -> str:
        """Give the name of an input as the user gave it."""
        if Path(path) == self.stdin:
            return str(STDIN)
        return str(path)

    def targets(self, path: Path) -> list[Path]:
        """Give the files that hold the transcript of an input, one for each format."""
        if self.folder is None:
            return []

        place = self.root / "stdin" if path == self.stdin else path
        return [output_path(place, self.root, self.folder, f".{name}") for name in self.formats]

    @cached_property
    def _recording_names(self) -> dict[Path, str]:
        """The names of the recordings in a CTM."""
        return recording_names([path for path in self.files if path != self.stdin], self.root)

    def waiting(self) -> list[Path]:
        """Find the inputs that must be transcribed.

        These are the ones whose transcripts are not there, and those that were changed since.
        What standard input held is always transcribed: nobody knows what it held before.

        Raises:
            ConfigError: a transcript in the folder is of another recording.
        """
        if self.folder is None:
            return list(self.files)

        done = read_done(self.folder)
        for name in done:
            # Otherwise the old note would speak for the next file of this name.
            target = self.folder / name
            if not target.exists():
                _note(self.folder, [target], GONE)

        waiting = []
        for path in self.files:
            # Every target is looked at, so that one of another recording is always noticed.
            is_done = True
            for target in self.targets(path):
                is_done &= self._is_done(path, target, done)
            if not is_done:
                waiting.append(path)
        return waiting

    def check_unclaimed(self) -> None:
        """See that no transcript would replace a file of somebody else: one that is not noted.

        Raises:
            ConfigError: such a file is there.
        """
        if self.folder is None:
            return

        ours = _noted(self.folder)
        for path in self.files:
            for target in self.targets(path):
                name = os.path.relpath(target, self.folder)
                if target.exists() and name not in ours:
                    raise ConfigError(
                        f"{target} is there already, and {DONE} does not name it as a transcript: "
                        "give another --output-dir, or --force"
                    )

    def forget(self) -> None:
        """Note that all files where transcripts go are ours to make anew, also after a kill."""
        if self.folder is None:
            return

        targets = [target for path in self.files for target in self.targets(path)]
        there = [target for target in targets if target.exists()]
        _note(self.folder, there, UNFINISHED)

    def _is_done(self, path: Path, target: Path, done: dict[str, Table]) -> bool:
        """Whether a target holds the transcript of what a recording holds now."""
        assert self.folder is not None
        now = self.recordings.get(path)
        name = os.path.relpath(target, self.folder)
        before = done.get(name)
        if now is None or before is None or not target.exists():
            return False

        self._check_same_recording(path, target, before["input"], now["input"])
        same_size = bool(before.get("size") == now["size"])
        same_time = bool(before.get("mtime_ns") == now["mtime_ns"])
        return same_size and same_time

    def _check_same_recording(self, path: Path, target: Path, before: str, now: str) -> None:
        """See that a transcript in the folder is not of another recording that still exists."""
        assert self.folder is not None
        if before == now:
            return

        real_folder = os.path.realpath(self.folder)
        joined = os.path.join(real_folder, before)
        other = Path(os.path.normpath(joined))
        if other.exists() and not other.samefile(path):
            raise ConfigError(
                f"{target} would be of {path}, and is of {other}: "
                "give another --output-dir, or one folder of both"
            )

    def put(self, result: Transcript) -> str:
        """Write a transcript to its files, or give the text to print.

        With several inputs a printed line starts with the path, line breaks and tabs in it escaped.
        """
        recording = self._recording_names.get(Path(result.path))
        named = replace(result, path=self.name(result.path), recording=recording)
        if self.folder is not None:
            self._write(named, Path(result.path), self.folder)
            return ""

        only_format = self.formats[0]
        if only_format == "txt" and len(self.files) > 1:
            return f"{_escaped(named.path)}\t{named.text}\n"

        write = FORMATS[only_format]
        return write(named, self.limits)

    def _write(self, named: Transcript, path: Path, folder: Path) -> None:
        targets = self.targets(path)
        # Whatever stops us before the next note: these files are ours, and what was known of old
        # ones must not be said of the new ones.
        _note(folder, targets, UNFINISHED)

        recording = self.recordings.get(path)
        for name, target in zip(self.formats, targets, strict=True):
            write = FORMATS[name]
            write_atomic(target, write(named, self.limits))
            if recording is not None:
                _note(folder, [target], recording)


def _escaped(path: str) -> str:
    """Write line breaks and tabs as Python does, so that a path stays on its line."""
    return re.sub(r"[\t\n\r]", lambda found: repr(found[0])[1:-1], path)


def plan_outputs(
    paths: Sequence[Path],
    formats: Sequence[str],
    limits: CueLimits,
    folder: Path | None,
    spool: Path,
) -> Outputs:
    """Find the audio files among the inputs, and where their transcripts go.

    Args:
        paths: files and folders; ``-`` is standard input, which is read to its end.
        spool: folder for what standard input holds.

    Raises:
        ConfigError: an unknown format, formats or inputs that one stream cannot hold, a path that
            does not exist, or no audio.
    """
    _check_formats(formats, folder)

    stdin = _spooled(spool) if STDIN in paths else None
    sources = [stdin if stdin and path == STDIN else path for path in paths]
    found = find_audio(sources)
    # Each file once, in the order given.
    files = tuple(dict.fromkeys(found))

    if not files:
        shown = ", ".join(map(str, paths))
        what = what_instead(paths[0]) if len(paths) == 1 else ""
        raise ConfigError(f"no audio found in {shown}{what}")
    prints_several = folder is None and len(files) > 1
    if prints_several and formats[0] in ONE_RECORDING:
        raise ConfigError(
            f"{formats[0]} holds one recording, and these are {len(files)}: give an --output-dir"
        )

    # The root of what was given, not of what was found: where a result goes must not depend on
    # what else a folder holds.
    given = [path for path in paths if path != STDIN]
    if not given:
        given = [Path.cwd()]
    root = common_root(given)

    recordings: dict[Path, Table] = {}
    if folder is not None:
        for path in files:
            # A link that leads nowhere fails by name, later.
            if path != stdin and path.exists():
                recordings[path] = _recording(path, folder)

    return Outputs(tuple(formats), limits, folder, root, files, stdin, recordings)


def _check_formats(formats: Sequence[str], folder: Path | None) -> None:
    for name in formats:
        if name not in FORMATS:
            allowed = ", ".join(FORMATS)
            raise ConfigError(f"--output-format {name!r} is unknown: allowed are {allowed}")

    if folder is None and len(formats) > 1:
        raise ConfigError("stdout takes one format: give one --output-format, or an --output-dir")


def _spooled(folder: Path) -> Path:
    """Write standard input to a file: to tell formats apart, readers go back and forth."""
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _recording(path: Path, folder: Path) -> Table:
    """Say where a recording lies from ``folder``, and what tells that it was changed."""
    found = path.stat()
    # The real folder, since links to it may lie elsewhere.
    real_folder = os.path.realpath(folder)
    way = os.path.relpath(os.path.abspath(path), real_folder)
    return {"input": way, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def claim(folder: Path, made_by: Table, force: bool) -> None:
    """Note in ``folder`` what makes its transcripts, since those of two models must not be mixed.

    With ``force`` no transcript that another model made counts as done any more, even after a kill.
    They stay ours, so that the same command may replace them.

    Raises:
        ConfigError: another model made those that are there, and ``force`` is not given.
    """
    note = folder / MADE_BY
    if note.exists():
        if read_json_table(note) == made_by:
            return
        if not force:
            raise ConfigError(
                f"{folder} holds transcripts of another model or language model: "
                "give another --output-dir, or --force"
            )

    lines = [ascii_json_line({"file": name} | UNFINISHED) for name in _noted(folder)]
    write_atomic(folder / DONE, lines)
    write_atomic(note, as_json(made_by))


def _note(folder: Path, targets: Sequence[Path], about: Table) -> None:
    """Add lines to ``DONE`` in one piece; what a kill left of another stays a line of its own.

    Args:
        about: the recording that the targets are of; or ``UNFINISHED`` or ``GONE``, which is on the
            disk when this returns.
    """
    lines = []
    for target in targets:
        name = os.path.relpath(target, folder)
        lines.append(ascii_json_line({"file": name} | about))
    text = "\n" + "".join(lines)

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DONE).open("ab", buffering=0) as file:
        file.write(text.encode())
        if about in (UNFINISHED, GONE):
            os.fsync(file.fileno())


def read_done(folder: Path) -> dict[str, Table]:
    """Read which files are finished, and the lines of ``DONE`` on them.

    A line that a kill cut off says nothing: that transcript is made again.
    """
    noted = _noted(folder)
    return {name: line for name, line in noted.items() if isinstance(line["input"], str)}


def _noted(folder: Path) -> dict[str, Table]:
    """Read which files are ours, finished or not, and the last line of ``DONE`` on each."""
    last: dict[str, Table] = {}
    for line in read_json_lines(folder / DONE, warn=False):
        name = line.get("file")
        if isinstance(name, str):
            last[name] = line

    return {name: line for name, line in last.items() if "input" in line}


def outcome(outputs: Outputs, path: Path, result: Transcript | Failure | None) -> Table:
    """Give a line of the report on an input; None means that the transcript was there before."""
    name = outputs.name(path)

    if result is None:
        return {"path": name, "status": "done before"}
    if isinstance(result, Failure):
        return {"path": name, "status": "failed", "error": result.error}

    return {
        "path": name,
        "status": "done",
        "duration_s": round(result.duration_s, 3),
        "silence_s": round(result.silence_s, 3),
        "words": result.num_words,
    }
