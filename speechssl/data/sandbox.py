"""Decodes untrusted files in processes with limits, and finds the files that kill a process.

A broken file can crash its decoder, run for ever or take all memory. So a worker process has limits
of memory and of processor time. It also notes which file it reads (``reading``). When it dies, that
file is read once more in a process of its own (``find_crashing``), and only if that one dies too
is the file left out: the first process may have been killed from outside.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from speechssl.errors import AudioError, SpeechsslError
from speechssl.runtime.log import log
from speechssl.runtime.processes import (
    deaf_to_interrupts,
    end_with_parent,
    limit_memory,
    memory_limit,
    worker_context,
)
from speechssl.storage.atomic import write_atomic

# Suffix of the note that names the file which a process is reading.
READING = ".reading"

# Processor time that any file may take, seconds, and more of it for each second of --max-duration:
# 70 times what log-mel of FLAC takes.
CPU_S = 60
CPU_PER_S = 0.05

# Memory for data in a worker process, bytes. A file of 8 channels at 192 kHz takes 1.0e9.
MEMORY_BYTES = 4 << 30

# Signals that a process gets for what it did itself; nobody sends them from outside.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


def cpu_limit_s(max_duration_s: float) -> int:
    """Return the processor time that one file may take where that is limited, seconds."""
    return CPU_S + round(CPU_PER_S * max_duration_s)


@contextmanager
def reading(note: Path) -> Iterator[Callable[[str], None]]:
    """Give a function to be told of each file (relative to its root) before it is read.

    A process that dies leaves ``note`` behind, with the name of the file that it was reading.
    """
    with note.open("wb", buffering=0) as file:

        def tell(audio: str) -> None:
            # Written over the name before it, which takes less time than a new file. The zero byte
            # ends the name where the one before it was longer.
            os.pwrite(file.fileno(), os.fsencode(audio) + b"\0", 0)

        try:
            yield tell
        finally:
            note.unlink(missing_ok=True)


def as_reject(error: Exception, limited: bool) -> AudioError:
    """Return the reason why a file is a reject; errors that are not the file's are raised again.

    Args:
        limited: the file was decoded in a process whose memory is limited.

    Raises:
        SpeechsslError: out of memory, of which the system gives less than any file may take.
    """
    if isinstance(error, AudioError):
        return error

    # numpy raises MemoryError, torch a RuntimeError with these words.
    is_out_of_memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if not limited or not is_out_of_memory:
        raise error

    if memory_limit() < MEMORY_BYTES:
        raise SpeechsslError(
            f"out of memory: this process may have {memory_limit() / (1 << 30):.1f} GiB, and a "
            f"file may take {MEMORY_BYTES >> 30} GiB: allow more (ulimit -d)"
        ) from error
    return AudioError("out of memory", f"it takes more than {MEMORY_BYTES >> 30} GiB")


def find_crashing(
    notes: Path, work: Callable[[str], Callable[[], object]], cpu_s: int
) -> dict[str, str]:
    """Find the files that kill a process which does nothing but read them.

    Only files that a process was reading when it died are tried. That alone proves nothing: a
    process that was killed from outside was reading a file too.

    Args:
        notes: folder of the notes of ``reading``, at any depth. What was found is kept in it.
        work: from a file's name, as noted, to all that is done with it. That is done once more in a
            process of its own, so it must pickle. It limits its processor time itself, after it
            has loaded its libraries.
        cpu_s: that limit, seconds.

    Returns:
        file -> what it does to the process.

    Raises:
        SpeechsslError: a file could not be tried.
    """
    crashing_path = notes / "crashing.json"
    crashing: dict[str, str] = {}
    if crashing_path.exists():
        crashing = json.loads(crashing_path.read_text(encoding="utf-8"))

    for note in sorted(notes.rglob(f"*{READING}")):
        name, _, _ = note.read_bytes().partition(b"\0")
        audio = os.fsdecode(name)

        if audio and audio not in crashing:
            log(f"a process died while it read {audio}: trying that file alone")
            died_of = _run_alone(work(audio), audio)
            if died_of == signal.SIGXCPU:
                crashing[audio] = f"it takes more than {cpu_s} s of processor time"
            elif died_of in _CRASHES:
                crashing[audio] = f"it kills the process that decodes it ({died_of.name})"

            if audio in crashing:
                log(f"{audio}: {crashing[audio]}: left out")
                write_atomic(crashing_path, json.dumps(crashing))

        # Deleted last: if this process dies too, the next one tries the file again.
        note.unlink()

    return crashing


def _run_alone(work: Callable[[], object], audio: str) -> signal.Signals | None:
    """Do the work in a process of its own, and return the signal that ended it."""
    process = worker_context().Process(target=_run_limited, args=(work,), daemon=True)
    try:
        with deaf_to_interrupts():
            process.start()
        process.join()
    finally:
        # After an interrupt the work is not waited for.
        process.terminate()
        process.join()

    assert process.exitcode is not None
    if process.exitcode > 0:
        # The new process runs the calling script again, where Python forbids it to start processes.
        raise SpeechsslError(
            f"a process died while it read {audio}, and none starts to try that file alone (exit "
            f'code {process.exitcode}): call prepare from under `if __name__ == "__main__":`, use '
            "the command, or remove the file"
        )
    if process.exitcode == 0:
        return None
    return signal.Signals(-process.exitcode)


def _run_limited(work: Callable[[], object]) -> None:
    end_with_parent()
    limit_memory(MEMORY_BYTES)

    # An exception does not end a worker process, so it is no reason to leave the file out.
    with suppress(Exception):
        work()
