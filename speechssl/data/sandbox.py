"""Files that crash or exhaust the process that decodes them: limits, who was being read, and proof before a verdict."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

from speechssl.errors import AudioError, SpeechsslError
from speechssl.runtime.log import log
from speechssl.runtime.processes import (
    deaf_to_interrupts,
    end_with_parent,
    limit_memory,
    memory_limit,
)
from speechssl.storage.atomic import write_atomic

READING = ".reading"  # suffix of what names the file that is being read
CPU_S = 60  # processor time that any file may take in a process of its own, and for each second of --max-duration:
CPU_PER_S = 0.05  # 70 times what log-mel of FLAC takes
MEMORY_BYTES = 4 << 30  # of data in such a process; 8 channels at 192 kHz take 1.0e9
_CRASHES = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGABRT,
}  # nobody sends them


def cpu_limit_s(max_duration_s: float) -> int:
    """Processor time that one file may take where that is limited, seconds."""
    return CPU_S + round(CPU_PER_S * max_duration_s)


@contextmanager
def reading(note: Path) -> Iterator[Callable[[str], None]]:
    """A function to be told of each file (relative to its root) before it is read.

    A process that dies leaves ``note`` behind, and the next one knows whom to suspect.
    """
    with note.open("wb", buffering=0) as file:

        def tell(audio: str) -> None:
            os.pwrite(
                file.fileno(), os.fsencode(audio) + b"\0", 0
            )  # over the name before it: a new file takes longer

        try:
            yield tell
        finally:
            note.unlink(missing_ok=True)


def as_reject(error: Exception, limited: bool) -> AudioError:
    """What makes the file a reject; other errors are raised again.

    Raises:
        SpeechsslError: out of memory, of which the system gives less than any file may take.
    """
    if isinstance(error, AudioError):
        return error
    if limited and (
        isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    ):  # numpy's and torch's way
        if memory_limit() < MEMORY_BYTES:
            raise SpeechsslError(
                f"out of memory: this process may have {memory_limit() / (1 << 30):.1f} GiB, and a file may take "
                f"{MEMORY_BYTES >> 30} GiB: allow more (ulimit -d)"
            ) from error
        return AudioError("out of memory", f"it takes more than {MEMORY_BYTES >> 30} GiB")
    raise error


def find_crashing(
    notes: Path, work: Callable[[str], Callable[[], object]], cpu_s: int
) -> dict[str, str]:
    """Files at which a process died, and which kill another one that does nothing else; with what they do.

    A process that was killed from outside was reading a file too: that alone proves nothing.

    Args:
        notes: folder of the notes of ``reading``, at any depth; verdicts are kept in it.
        work: file as noted -> all that is done with it, to be done once more in a process of its own (pickled); it
            limits its processor time itself, after it has loaded its libraries.
        cpu_s: that limit, seconds.

    Raises:
        SpeechsslError: a file could not be tried.
    """
    known_path = notes / "crashing.json"
    known: dict[str, str] = (
        json.loads(known_path.read_text(encoding="utf-8")) if known_path.exists() else {}
    )
    for note in sorted(notes.rglob(f"*{READING}")):
        audio = os.fsdecode(note.read_bytes().partition(b"\0")[0])
        if audio and audio not in known:
            log(f"a process died while it read {audio}: trying that file alone")
            died_of = _tried_alone(work(audio), audio)
            if died_of == signal.SIGXCPU:
                known[audio] = f"it takes more than {cpu_s} s of processor time"
            elif died_of in _CRASHES:
                known[audio] = f"it kills the process that decodes it ({died_of.name})"
            if audio in known:
                log(f"{audio}: {known[audio]}: left out")
                write_atomic(known_path, json.dumps(known))
        note.unlink()
    return known


def _tried_alone(work: Callable[[], object], audio: str) -> signal.Signals | None:
    """Do the work in a process of its own; returns the signal that ended it."""
    alone = get_context("spawn").Process(target=_do, args=(work,), daemon=True)
    try:
        with deaf_to_interrupts():
            alone.start()
        alone.join()
    finally:  # an interrupt does not wait for it
        alone.terminate()
        alone.join()
    assert alone.exitcode is not None
    if (
        alone.exitcode > 0
    ):  # spawn runs the calling script again, and forbids that it starts processes there
        raise SpeechsslError(
            f"a process died while it read {audio}, and none starts to try that file alone (exit code "
            f'{alone.exitcode}): call prepare from under `if __name__ == "__main__":`, use the command, or remove the '
            "file"
        )
    return signal.Signals(-alone.exitcode) if alone.exitcode else None


def _do(work: Callable[[], object]) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    limit_memory(MEMORY_BYTES)
    with suppress(Exception):  # none of which ends the process
        work()
