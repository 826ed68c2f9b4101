"""Files -> transcripts with a model folder, in this process or dealt to several."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from speechssl.audio import declared_seconds
from speechssl.beam import load_lm
from speechssl.checkpoint import model_folder
from speechssl.ctc import load_ctc
from speechssl.errors import SpeechsslError
from speechssl.formats import Transcript
from speechssl.recognise import beam_ids
from speechssl.runtime import Device, HoursProgress, end_with_parent, pick_device
from speechssl.transcribing import Failure, transcribe

Result = Transcript | Failure


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


def transcribe_files(job: Job, files: Sequence[Path], progress: HoursProgress) -> Iterator[Result]:
    """What ``transcribe`` gives of each file, in the order given, whatever the number of processes.

    Raises:
        SpeechsslError: the model cannot be used, or a process died.
    """
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


def _recognised(job: Job, files: Sequence[Path], progress: Callable[[float], None]) -> Iterator[Result]:
    folder = model_folder(job.model)
    model = load_ctc(folder).to(pick_device(job.device))
    beam = None if job.greedy else load_lm(folder, model.tokenizer)
    decode = beam_ids(beam) if beam else None
    yield from transcribe(model, files, job.model.name, job.batch_seconds, progress, decode)


def _dealt(job: Job, hands: Sequence[Sequence[Path]], tick: Callable[[int, float], None]) -> Iterator[Result]:
    """Results of processes that work on a hand each, one of every hand in turn: in the order they were dealt."""
    context = get_context("spawn")
    threads = max(1, (job.threads or torch.get_num_threads()) // len(hands))
    ends: dict[Any, int] = {}  # of the pipes that are open
    workers, waiting = [], [deque[Result]() for _ in hands]
    missing = [len(hand) for hand in hands]
    try:
        for k, hand in enumerate(hands):
            ours, theirs = context.Pipe(duplex=False)
            workers.append(context.Process(target=_work, args=(theirs, job, hand, threads), daemon=True))
            workers[-1].start()
            theirs.close()  # so that the end of the process is the end of the pipe
            ends[ours] = k
        turn = 0
        while ends:
            for end in wait(list(ends)):
                k, message = ends[end], _received(end)
                if isinstance(message, float):
                    tick(k, message)
                elif message is not None:
                    waiting[k].append(message)
                    missing[k] -= 1
                elif missing[k]:
                    raise SpeechsslError(
                        "a process died (out of memory, or a file that crashes the decoder): run the same command "
                        "again to go on, with --jobs 1 to see at which file it happens"
                    )
                else:
                    del ends[end]
            while waiting[turn % len(hands)]:
                yield waiting[turn % len(hands)].popleft()
                turn += 1
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _received(end: Any) -> Result | float | None:
    """The next result, or the seconds done, of a process; None where it has ended.

    Raises:
        SpeechsslError: the process sent one.
    """
    try:
        message: Result | float | SpeechsslError = end.recv()
    except EOFError:
        return None
    if isinstance(message, SpeechsslError):
        raise message
    return message


def _work(end: Connection, job: Job, hand: Sequence[Path], threads: int) -> None:
    """One process: send results, and between them how many seconds are done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        for result in _recognised(job, hand, end.send):
            end.send(result)
    except SpeechsslError as error:
        end.send(SpeechsslError(str(error)))  # not every subclass survives being sent
