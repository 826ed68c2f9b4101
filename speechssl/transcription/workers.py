"""Many files, one model folder: transcribed in this process, or dealt to several."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from speechssl.audio.reader import declared_seconds
from speechssl.audio.threshold import TOP_DB
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.runtime.device import Device
from speechssl.runtime.log import HoursProgress, one_line
from speechssl.runtime.processes import deaf_to_interrupts, end_with_parent, worker_context
from speechssl.transcription.recogniser import load_recogniser
from speechssl.transcription.transcript import Failure, Transcript

Result = Transcript | Failure
# From a worker: a result, the seconds of audio that it has done, or what stopped it.
Message = Result | float | SpeechsslError


@dataclass(frozen=True)
class Job:
    """How files are transcribed.

    Attributes:
        model: run or model folder.
        batch_seconds: audio that is recognised at once: it decides the memory, not the texts.
        greedy: leaves the model folder's language model out.
        device: where the model runs.
        threads: of the CPU, all processes together; None takes all cores.
        top_db: what lies this far below the loudest part around it is silence, dB.
        processes: each holds the whole model, and works on its share of the files.
    """

    model: Path
    batch_seconds: float = BATCH_SECONDS
    greedy: bool = False
    device: Device = "auto"
    threads: int | None = None
    processes: int = 1
    top_db: float = TOP_DB


def transcribe_files(job: Job, files: Sequence[Path], progress: HoursProgress) -> Iterator[Result]:
    """Transcribe files, and give each result as soon as it is known, in any order.

    Raises:
        ConfigError: more processes than threads.
        SpeechsslError: the model cannot be used, or a process died; raised after all other
            processes have finished.
    """
    if job.threads and job.threads < job.processes:
        raise ConfigError(
            f"{job.processes} jobs cannot share {job.threads} threads: "
            "give --threads as many or more"
        )
    if not files:
        return

    num_processes = max(1, min(job.processes, len(files)))
    total_h = _total_hours(files)
    done_s = [0.0] * num_processes

    def tick(process: int, seconds: float) -> None:
        done_s[process] = seconds
        progress(sum(done_s) / 3600, total_h)

    if num_processes == 1:
        if job.threads:
            torch.set_num_threads(job.threads)
        yield from _transcribed(job, files, lambda seconds: tick(0, seconds))
    else:
        shares = [files[process::num_processes] for process in range(num_processes)]
        yield from _by_workers(job, shares, tick)


def _total_hours(files: Sequence[Path]) -> float | None:
    """Add up what the headers declare; None if one does not say."""
    total_s = 0.0
    for path in files:
        seconds = declared_seconds(path)
        if seconds is None:
            return None
        total_s += seconds
    return total_s / 3600


def in_order(results: Iterator[Result], files: Sequence[Path]) -> Iterator[Result]:
    """Give the results of distinct files in the order of the files.

    Where the results end with an error, all that came are given before it is raised.
    """
    came: dict[str, Result] = {}
    names = iter([str(path) for path in files])
    turn = next(names, None)

    try:
        for result in results:
            came[result.path] = result
            while turn in came:
                yield came.pop(turn)
                turn = next(names, None)
    except SpeechsslError:
        yield from (came[name] for name in names if name in came)
        raise


def _transcribed(
    job: Job, files: Sequence[Path], progress: Callable[[float], None]
) -> Iterator[Result]:
    recogniser = load_recogniser(job.model, job.device, language_model=not job.greedy)
    yield from recogniser.transcribe_files(files, job.batch_seconds, progress, job.top_db)


@dataclass
class _Worker:
    """A process that transcribes its share of the files.

    Attributes:
        number: among the processes.
        num_missing: results that have not come yet.
    """

    number: int
    files: Sequence[Path]
    process: BaseProcess
    num_missing: int

    def death(self) -> SpeechsslError:
        """Say that the process ended before it was done, and at which file."""
        file = self.files[-self.num_missing]
        return SpeechsslError(
            f"a process died (out of memory, or a file that crashes the decoder) before {file} was "
            "done; what was written is kept: give the command again, with --jobs 1 to see at which "
            "file it happens"
        )


def _by_workers(
    job: Job, shares: Sequence[Sequence[Path]], tick: Callable[[int, float], None]
) -> Iterator[Result]:
    """Start a process for each share of the files, and give the results as they come."""
    all_threads = job.threads or max(len(shares), torch.get_num_threads())
    threads = all_threads // len(shares)

    started: list[_Worker] = []
    # The open pipes, each with the worker at its other end.
    workers: dict[Any, _Worker] = {}
    errors: list[SpeechsslError] = []

    try:
        for number, share in enumerate(shares):
            pipe, process = _start(job, share, threads)
            worker = _Worker(number, share, process, len(share))
            started.append(worker)
            workers[pipe] = worker

        while workers:
            for ready in wait(list(workers)):
                worker = workers[ready]
                message = _received(ready)

                if isinstance(message, float):
                    tick(worker.number, message)
                elif isinstance(message, SpeechsslError):
                    errors.append(message)
                    worker.num_missing = 0
                elif message is not None:
                    worker.num_missing -= 1
                    yield message
                else:
                    del workers[ready]
                    if worker.num_missing:
                        errors.append(worker.death())

        if errors:
            raise errors[0]
    finally:
        for worker in started:
            worker.process.terminate()
            worker.process.join()


def _start(job: Job, share: Sequence[Path], threads: int) -> tuple[Connection, BaseProcess]:
    context = worker_context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, job, share, threads), daemon=True)

    # The child inherits deafness to interrupts: an interrupt ends this process, which ends it.
    with deaf_to_interrupts():
        process.start()

    # Closed here, so that the end of the process is the end of the pipe.
    theirs.close()
    return ours, process


def _received(pipe: Any) -> Message | None:
    """Receive the next message of a worker; None where it has ended."""
    try:
        message: Message = pipe.recv()
    except (EOFError, OSError):
        # It ended between two messages, or in the middle of one.
        return None
    return message


def _work(pipe: Connection, job: Job, share: Sequence[Path], threads: int) -> None:
    """Transcribe a share of the files; send results, and between them how many seconds are done."""
    end_with_parent()
    torch.set_num_threads(threads)

    try:
        for result in _transcribed(job, share, pipe.send):
            pipe.send(result)
    except (SpeechsslError, OSError, torch.OutOfMemoryError) as error:
        # Not every error survives being sent, so its one line is.
        pipe.send(SpeechsslError(one_line(error)))
