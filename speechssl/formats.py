"""What a transcription looks like on disk: text and JSON, in a folder tree that mirrors the input."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechssl.errors import ConfigError

_MAX_NAME_BYTES = 255  # of one file name, on every common file system


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: ``start`` and ``end`` in seconds from the start of the file, ``0 <= start <= end``."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """The result for one file.

    Attributes:
        path: the input as the user named it.
        text: all that was said, on one line; empty when nothing was.
        segments: in order of time.
        duration_s: length of the audio in seconds.
        model: name of the model.
    """

    path: str
    text: str
    segments: tuple[Segment, ...]
    duration_s: float
    model: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, under whisper's key names, with ours beside them; seconds are rounded to milliseconds."""
        return {
            "text": self.text,
            "segments": [
                {"id": i, "start": round(s.start, 3), "end": round(s.end, 3), "text": s.text}
                for i, s in enumerate(self.segments)
            ],
            "path": self.path,
            "duration_s": round(self.duration_s, 3),
            "model": self.model,
        }


def to_txt(transcript: Transcript) -> str:
    """One line per segment, or the whole text where there are no segments; nothing at all for silence."""
    texts = [segment.text for segment in transcript.segments] or [transcript.text]
    lines = (" ".join(text.split()) for text in texts)
    return "".join(f"{line}\n" for line in lines if line)


def to_json(transcript: Transcript) -> str:
    """One indented JSON object, see ``Transcript.as_dict``; always valid UTF-8."""
    text = json.dumps(transcript.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not UTF-8 holds lone surrogates; ``\udcff`` is how JSON writes one, and it reads back equal.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": to_txt, "json": to_json}


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
        raise ConfigError(f"{input_path} is not under {input_root}: give a folder that holds every input") from error
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


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write text, whole or in parts, so that ``path`` holds what it held before or all of it, even after a power cut.

    UTF-8. Missing folders are made. A process killed inside may leave a hidden ``.speechssl-*.tmp`` file beside it.
    """
    parts = [text] if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of our own, not one made from the target's, which may be as long as names can be.
    temporary = path.parent / f".speechssl-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
