"""Transcription in several processes: the results of one, in order, and no process stays."""

import multiprocessing
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import random_recogniser

from speechssl.errors import ConfigError, SpeechsslError
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.recognition.model import save_ctc
from speechssl.runtime.log import HoursProgress
from speechssl.storage.checkpoint import save_folder
from speechssl.storage.saved_folders import model_folder
from speechssl.transcription import workers
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.formats import FORMATS
from speechssl.transcription.recogniser import digests
from speechssl.transcription.transcript import Failure
from speechssl.transcription.workers import Job, Result, in_order, transcribe_files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_ctc(random_recogniser(), folder, {})
    return folder


@pytest.fixture
def files(labelled_folder: Path, tmp_path: Path) -> list[Path]:
    """Seven recordings of several lengths, and among them what is none."""
    found = sorted(labelled_folder.glob("train*.wav"))[:6]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"")
    return [*found[:3], bad, *found[3:]]


class Seen(HoursProgress):
    """What was said of the progress."""

    def __init__(self) -> None:
        super().__init__()
        self.hours: list[float] = []

    def __call__(self, done_h: float, total_h: float | None = None) -> None:
        self.hours.append(done_h)
        self.total_h = total_h


def shown(results: Iterable[Result]) -> list[str]:
    """As users see them: batches differ, and with them the last bits of a confidence."""
    return [r.error if isinstance(r, Failure) else FORMATS["json"](r, CueLimits()) for r in results]


def all_of(job: Job, files: list[Path]) -> list[Result]:
    return list(transcribe_files(job, files, HoursProgress()))


def test_a_process_killed_in_the_middle_of_a_message_has_ended() -> None:
    ours, theirs = Pipe(duplex=False)
    theirs.send(1.5)
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"half")
    theirs.close()
    assert [workers._received(ours), workers._received(ours)] == [1.5, None]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "count"), [(2, 7), (20, 4)])
def test_processes_give_what_one_gives(
    model: Path, files: list[Path], processes: int, count: int
) -> None:
    files = files[:count]
    expected, seen = all_of(Job(model, 40.0, device="cpu"), files), Seen()
    assert [type(result) is Failure for result in expected] == [k == 3 for k in range(count)]
    job = Job(model, 40.0, device="cpu", threads=20, processes=processes)
    found = list(in_order(transcribe_files(job, files, seen), files))
    assert shown(found) == shown(expected)
    assert seen.total_h is None  # a file says nothing
    assert seen.hours == sorted(seen.hours)
    heard_s = sum(result.duration_s for result in expected if not isinstance(result, Failure))
    assert seen.hours[-1] == pytest.approx(heard_s / 3600)
    assert not multiprocessing.active_children()


@given(st.permutations(range(6)), st.integers(0, 6))
def test_results_are_put_in_order_and_none_is_lost_with_an_error(
    order: list[int], count: int
) -> None:
    files = [Path(str(k)) for k in range(6)]

    def come() -> Iterator[Result]:
        yield from (Failure(str(k), "") for k in order[:count])
        if count < 6:
            raise SpeechsslError("no more")

    came: list[int] = []
    with pytest.raises(SpeechsslError) if count < 6 else nullcontext():
        for result in in_order(come(), files):
            came.append(int(result.path))
    assert came == sorted(order[:count])


def test_what_decides_the_transcripts(model: Path, tmp_path: Path) -> None:
    alone = digests(model)
    assert alone == digests(model, language_model=False)
    with_lm = Path(shutil.copytree(model, tmp_path / "m"))
    save_folder(model_folder(with_lm) / LM_FOLDER, {}, {"kind": "lm"})
    assert digests(with_lm).keys() == {"model", "language_model"}
    assert digests(with_lm, language_model=False) == alone


def test_more_processes_than_threads_are_refused_and_no_file_needs_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 jobs cannot share 2 threads"):
        all_of(Job(tmp_path, 40.0, threads=2, processes=3), [tmp_path])
    assert all_of(Job(tmp_path / "gone", 40.0), []) == []


@pytest.mark.slow
def test_errors_of_a_process_are_errors_here(
    model: Path, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SpeechsslError, match="neither a model folder"):
        all_of(Job(tmp_path, 40.0, processes=2), files)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_who_wants_no_more_results_ends_the_processes(model: Path, files: list[Path]) -> None:
    results: Iterator[Result] = transcribe_files(
        Job(model, 40.0, processes=2), files, HoursProgress()
    )
    next(results)
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


class Deadly(type(Path())):  # type: ignore[misc]
    """A path that kills the process it is sent to."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_after_all_that_others_do(
    model: Path, files: list[Path]
) -> None:
    deadly, found = [files[0], Deadly(files[1]), *files[2:]], list[str]()
    with pytest.raises(
        SpeechsslError, match=r"a process died .* before .*train001.wav was done.* --jobs 1"
    ):
        found.extend(
            result.path
            for result in transcribe_files(Job(model, 40.0, processes=2), deadly, HoursProgress())
        )
    assert not multiprocessing.active_children()
    assert found == [str(path) for path in deadly[::2]]
