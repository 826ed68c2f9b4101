"""Files -> transcripts with a model folder, in this process or dealt to several."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from speechssl.audio.reader import declared_seconds
from speechssl.config import Table
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.recognition.evaluate import beam_decoder
from speechssl.recognition.language_model import LM_FOLDER, load_lm
from speechssl.recognition.model import load_ctc
from speechssl.runtime.device import Device, pick_device
from speechssl.runtime.log import HoursProgress, one_line
from speechssl.runtime.processes import deaf_to_interrupts, end_with_parent
from speechssl.storage.checkpoint import RECORD, model_folder, stored_folder
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure, Transcript

Result = Transcript | Failure
DIED = (
    "a process died (out of memory, or a file that crashes the decoder) before {} was done; what was written is kept: "
    "give the command again, with --jobs 1 to see at which file it happens"
)


@dataclass(frozen=True)
class Job:
    """How files are transcribed.

    Attributes:
        model: run or model folder; its language model is used too, unless ``greedy``.
        threads: of the CPU, all processes together; all cores if None.
        processes: each has the whole model, and every so manieth of the files.
    """

    model: Path
    batch_seconds: float
    greedy: bool = False
    device: Device = "auto"
    threads: int | None = None
    processes: int = 1


def made_by(job: Job) -> Table:
    """Digests of the model and, if it is used, its language model: of what decides the transcripts."""
    folder = model_folder(job.model)
    lm = stored_folder(folder / LM_FOLDER) / RECORD
    used = {"model": folder / RECORD} | (
        {} if job.greedy or not lm.exists() else {"language_model": lm}
    )
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in used.items()}


def transcribe_files(job: Job, files: Sequence[Path], progress: HoursProgress) -> Iterator[Result]:
    """What ``transcribe`` gives of each file, in any order: of several processes, as soon as it is known.

    Raises:
        ConfigError: more processes than threads.
        SpeechsslError: the model cannot be used, or a process died; after all other processes have finished.
    """
    if job.threads and job.threads < job.processes:
        raise ConfigError(
            f"{job.processes} jobs cannot share {job.threads} threads: give --threads as many or more"
        )
    if not files:
        return
    lengths = [declared_seconds(path) for path in files]
    total_h = None if None in lengths else sum(filter(None, lengths)) / 3600
    processes = max(1, min(job.processes, len(files)))
    done_s = [0.0] * processes

    def tick(process: int, seconds: float) -> None:
        done_s[process] = seconds
        progress(sum(done_s) / 3600, total_h)

    if processes == 1:
        if job.threads:
            torch.set_num_threads(job.threads)
        yield from _recognised(job, files, lambda seconds: tick(0, seconds))
    else:
        yield from _dealt(job, [files[k::processes] for k in range(processes)], tick)


def in_order(results: Iterator[Result], files: Sequence[Path]) -> Iterator[Result]:
    """The results of distinct files in the files' order; where they end with an error, all that came, and then it."""
    came: dict[str, Result] = {}
    names = iter(list(map(str, files)))
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


def _recognised(
    job: Job, files: Sequence[Path], progress: Callable[[float], None]
) -> Iterator[Result]:
    folder = model_folder(job.model)
    model = load_ctc(folder).to(pick_device(job.device))
    beam = None if job.greedy else load_lm(folder, model.tokenizer)
    decoder = beam_decoder(beam) if beam else None
    yield from transcribe(model, files, job.model.name, job.batch_seconds, progress, decoder)


def _dealt(
    job: Job, hands: Sequence[Sequence[Path]], tick: Callable[[int, float], None]
) -> Iterator[Result]:
    """Results of processes that work on a hand of files each, as they come."""
    context = get_context("spawn")
    threads = (job.threads or max(len(hands), torch.get_num_threads())) // len(hands)
    ends: dict[Any, int] = {}  # of the pipes that are open
    workers: list[SpawnProcess] = []
    missing = [len(hand) for hand in hands]
    errors: list[SpeechsslError] = []
    try:
        for k, hand in enumerate(hands):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(theirs, job, hand, threads), daemon=True)
            with (
                deaf_to_interrupts()
            ):  # it inherits that; an interrupt ends this process, and this one ends it
                worker.start()
            workers.append(worker)
            theirs.close()  # so that the end of the process is the end of the pipe
            ends[ours] = k
        while ends:
            for end in wait(list(ends)):
                k, message = ends[end], _received(end)
                if isinstance(message, float):
                    tick(k, message)
                elif isinstance(message, SpeechsslError):
                    errors.append(message)
                    missing[k] = 0
                elif message is not None:
                    missing[k] -= 1
                    yield message
                else:
                    del ends[end]
                    if missing[k]:
                        errors.append(SpeechsslError(DIED.format(hands[k][-missing[k]])))
        if errors:
            raise errors[0]
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _received(end: Any) -> Result | float | SpeechsslError | None:
    """The next result of a process, the seconds it has done, or what stopped it; None where it has ended."""
    try:
        message: Result | float | SpeechsslError = end.recv()
    except (EOFError, OSError):  # it ended between two messages, or in the middle of one
        return None
    return message


def _work(end: Connection, job: Job, hand: Sequence[Path], threads: int) -> None:
    """One process: send results, and between them how many seconds are done."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        for result in _recognised(job, hand, end.send):
            end.send(result)
    except (SpeechsslError, OSError, torch.OutOfMemoryError) as error:
        end.send(SpeechsslError(one_line(error)))  # not every error survives being sent
