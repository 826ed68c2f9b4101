"""``transcribe_inputs``: what the command ``speechssl transcribe`` does with its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.runtime.log import HoursProgress, log
from speechssl.storage.atomic import check_is_file, remove_leftovers, write_atomic
from speechssl.storage.json_text import ascii_json_line, read_json_lines
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.formats import WITH_CONFIDENCES
from speechssl.transcription.output_folder import Outputs, claim, outcome, plan_outputs
from speechssl.transcription.recogniser import digests
from speechssl.transcription.totals import Totals
from speechssl.transcription.transcript import Failure
from speechssl.transcription.workers import Job, in_order, transcribe_files


@dataclass(frozen=True)
class Summary:
    """How many files there were, and how many could not be transcribed."""

    num_files: int
    num_failed: int


def transcribe_inputs(
    job: Job,
    paths: Sequence[Path],
    formats: Sequence[str],
    emit: Callable[[str], None],
    limits: CueLimits,
    folder: Path | None = None,
    report: Path | None = None,
    force: bool = False,
) -> Summary:
    """Transcribe files, folders and standard input, into a folder or to ``emit``.

    Files whose transcripts are in the folder already are passed over. Each transcript is written
    as soon as it is known; text to print comes in the order of the inputs.

    Args:
        formats: keys of ``formats.FORMATS``.
        emit: called with text to print; there is none where ``folder`` is given.
        folder: mirrors the tree of the inputs; None prints.
        report: JSONL file to write, a line on what became of each input.
        force: transcribes again what is done already.

    Raises:
        ConfigError: inputs, formats, folder or report cannot be used.
        SpeechsslError: the model cannot be used, or a process died.
    """
    with TemporaryDirectory() as spool, HoursProgress() as progress:
        if report is not None:
            _check_report(report)
        outputs = plan_outputs(paths, formats, limits, folder, Path(spool))
        waiting = _waiting(job, outputs, force)

        rows: dict[Path, Table] = {path: outcome(outputs, path, None) for path in outputs.files}
        num_failed = 0
        transcripts = Totals()

        results = transcribe_files(job, waiting, progress)
        if folder is None:
            results = in_order(results, waiting)

        for result in results:
            path = Path(result.path)
            rows[path] = outcome(outputs, path, result)
            if isinstance(result, Failure):
                num_failed += 1
                log(f"{outputs.name(path)}: {result.error}")
            else:
                emit(outputs.put(result))
                transcripts.add(replace(result, path=outputs.name(result.path)))

        if report is not None:
            write_atomic(report, map(ascii_json_line, rows.values()))

    with_confidences = not set(formats).isdisjoint(WITH_CONFIDENCES)
    for line in transcripts.lines(with_confidences):
        log(line)
    if num_failed:
        log(f"{num_failed} of {len(outputs.files)} files could not be transcribed")

    return Summary(len(outputs.files), num_failed)


def _check_report(report: Path) -> None:
    """See that a report replaces nothing but a report, as when the command is given again."""
    check_is_file(report, "--report")
    if not report.exists() or not report.stat().st_size:
        return

    rows = read_json_lines(report, warn=False)
    are_outcomes = all({"path", "status"} <= row.keys() for row in rows)
    if not rows or not are_outcomes:
        raise ConfigError(
            f"{report} is there already and holds no report: give another file as --report"
        )


def _waiting(job: Job, outputs: Outputs, force: bool) -> list[Path]:
    """Find the files to transcribe, once the folder is known to be of this model."""
    if outputs.folder is not None:
        if not force:
            outputs.check_unclaimed()
        remove_leftovers(outputs.folder)
        claim(outputs.folder, digests(job.model, language_model=not job.greedy), force)

    if force:
        outputs.forget()
        return list(outputs.files)

    waiting = outputs.waiting()
    num_done = len(outputs.files) - len(waiting)
    if num_done:
        log(f"{num_done} of {len(outputs.files)} files are done already; --force does them again")
    return waiting
