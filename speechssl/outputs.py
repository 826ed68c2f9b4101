"""Transcripts on their way out: where those of an input go, which are there already, what became of each input."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechssl.config import Table, as_json
from speechssl.errors import ConfigError
from speechssl.formats import FORMATS, CueLimits, Transcript, common_root, output_path, write_atomic
from speechssl.transcribing import Failure, find_audio

STDIN = Path("-")
MADE_BY = ".speechssl.json"  # in a folder of transcripts
_ONE_RECORDING = ("srt", "vtt", "tsv", "ctm")  # formats that do not say, or not surely, which one they are of


@dataclass(frozen=True)
class Outputs:
    """A folder that mirrors the tree of the inputs, or text to print.

    Attributes:
        formats: keys of ``FORMATS``; one without a folder.
        stdin: file that holds what came from standard input.
    """

    formats: tuple[str, ...]
    limits: CueLimits
    folder: Path | None
    root: Path
    files: tuple[Path, ...]
    stdin: Path | None

    def name(self, path: str | Path) -> str:
        """Of an input, as the user gave it."""
        return str(STDIN if Path(path) == self.stdin else path)

    def targets(self, path: Path) -> list[Path]:
        """Files that hold the transcript of an input, one for each format."""
        if self.folder is None:
            return []
        place = self.root / "stdin" if path == self.stdin else path
        return [output_path(place, self.root, self.folder, f".{name}") for name in self.formats]

    def is_done(self, path: Path) -> bool:
        """Whether an input's transcript is there, and older neither than it nor than the note of what made it.

        Nobody knows what standard input held.
        """
        if self.folder is None or path == self.stdin or not path.exists():  # a broken link is a failure of its own
            return False
        note = self.folder / MADE_BY
        since = max(p.stat().st_mtime_ns for p in (path, note) if p.exists())
        return all(target.exists() and target.stat().st_mtime_ns >= since for target in self.targets(path))

    def put(self, result: Transcript) -> str:
        """Write a transcript to its files, or return what is to be printed.

        With several inputs a line of text starts with its path, line breaks and tabs escaped.
        """
        named = replace(result, path=self.name(result.path))
        for name, target in zip(self.formats, self.targets(Path(result.path)), strict=False):
            write_atomic(target, FORMATS[name](named, self.limits))
        if self.folder:
            return ""
        if self.formats == ("txt",) and len(self.files) > 1:
            path = re.sub(r"[\t\n\r]", lambda found: repr(found[0])[1:-1], named.path)
            return f"{path}\t{named.text}\n"
        return FORMATS[self.formats[0]](named, self.limits)


def plan_outputs(
    paths: Sequence[Path], formats: Sequence[str], limits: CueLimits, folder: Path | None, spool: Path
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
        raise ConfigError(f"--output-format {unknown[0]!r} is unknown: allowed are {', '.join(FORMATS)}")
    if folder is None and len(formats) > 1:
        raise ConfigError("stdout takes one format: give one --output-format, or an --output-dir")
    stdin = _spooled(spool) if STDIN in paths else None
    files = dict.fromkeys(find_audio(stdin if stdin and path == STDIN else path for path in paths))
    if not files:
        raise ConfigError(f"no audio found in {', '.join(map(str, paths))}")
    if folder is None and len(files) > 1 and formats[0] in _ONE_RECORDING:
        raise ConfigError(f"{formats[0]} holds one recording, and these are {len(files)}: give an --output-dir")
    # Of what was given: where a result goes must not depend on what else a folder holds.
    root = common_root([path for path in paths if path != STDIN] or [Path.cwd()])
    return Outputs(tuple(formats), limits, folder, root, tuple(files), stdin)


def claim(folder: Path, made_by: Table, force: bool) -> None:
    """Note in ``folder`` what its transcripts are made by: those of two models must not get mixed.

    With ``force`` a new note makes all that are there count as not done, also after a kill.

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
    write_atomic(note, as_json(made_by))


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
    return {"path": name, "status": "done", "duration_s": round(result.duration_s, 3), "words": words}
