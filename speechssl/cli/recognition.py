"""The verbs of a recogniser: tune-lm, label, evaluate, compare and transcribe.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechssl.audio.threshold import TOP_DB
from speechssl.cli.app import (
    ALL_FAILED,
    SOME_FAILED,
    BatchSecondsOption,
    write_stdout,
)
from speechssl.cli.inputs import check_models, check_stores
from speechssl.cli.outputs import check_plain
from speechssl.data.store import Store
from speechssl.decoding.lm_unit import LmUnit
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.runtime.log import HoursProgress, log
from speechssl.scoring.compare import comparison, read_system
from speechssl.storage.saved_folders import model_folder
from speechssl.tables import text_table
from speechssl.text.normalise import NORMALISERS
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.formats import FORMATS

if TYPE_CHECKING:
    from speechssl.recognition.lm_weights import Tried, Tuned


class DeviceName(StrEnum):
    """Where a model may run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def tune_lm_command(
    model: Annotated[
        Path, typer.Argument(help="Run or model folder, which will hold the language model.")
    ],
    lm: Annotated[Path, typer.Argument(help="ARPA file, or KenLM binary with --words.")],
    store: Annotated[Path, typer.Argument(help="Prepared store with transcripts.")],
    split: Annotated[
        str, typer.Option(help="Split to tune on: never the one to measure on.")
    ] = "dev",
    words: Annotated[
        Path | None,
        typer.Option(help="Words to recognise, one a line; else those of the ARPA file."),
    ] = None,
    unknown_words: Annotated[
        bool,
        typer.Option(
            "--unknown-words",
            help="Recognise words that the language model lacks too, with the probability of "
            "<unk>: those of --words, else of the recogniser's lexicon.",
        ),
    ] = False,
    unit: Annotated[
        LmUnit | None,
        typer.Option(
            help="What the n-grams of the language model are of, where its entries do not show it. "
            "Those of speechssl lm say it themselves."
        ),
    ] = None,
) -> None:
    """Find the weights of a language model, and keep it in the model folder.

    Afterwards transcribe, evaluate and label use it. The best weights have the lowest sum of word
    and character error rate; of equal ones, they are the nearest to the middle of the grid, then
    the smallest. Where greedy decoding has a lower sum, nothing is kept. Over words, several widths
    of the beam are tried too: the widest is kept that is 20 times faster than real time.
    """
    folder = model_folder(model)
    check_stores([store])

    from speechssl.recognition.language_model import name_of_another_lm
    from speechssl.recognition.lm_tuning import tune_lm

    other = name_of_another_lm(folder, lm)
    if other is not None:
        log(f"{folder} has the language model of {other}, whose place {lm} takes if it is kept")

    tune_lm(model, lm, store, split, words, unknown_words, unit, report=_print_tried)


def _print_tried(tuned: "Tuned") -> None:
    greedy = tuned.greedy
    rows = [("greedy", "", "", f"{greedy.wer:.1%}", f"{greedy.cer:.1%}")]
    if greedy.unit == "phone":
        rows = [("greedy, phones", "", "", f"PER {greedy.wer:.1%}", "")]

    for point in tuned.tried:
        weights = point.config
        values = (weights.lm_weight, weights.prior_scale, weights.word_score)
        weight, prior_scale, word_score = [f"{value:g}" for value in values]
        rows.append((weight, prior_scale, word_score, *_rates(point)))
    write_stdout(text_table(("weight", "prior scale", "word score", "WER", "CER"), rows))

    beam_rows = []
    for point in tuned.beams:
        kept = "kept" if point is tuned.chosen else ""
        speed = f"{point.speed:.0f}"
        beam_rows.append((f"{point.config.beam_size:,}", *_rates(point), speed, kept))
    write_stdout(text_table(("beam", "WER", "CER", "x real time", ""), beam_rows))


def _rates(point: "Tried") -> tuple[str, str]:
    return f"{point.score.wer:.1%}", f"{point.score.cer:.1%}"


def label_command(
    model: Annotated[
        Path, typer.Argument(help="Run or model folder; its language model is used if it has one.")
    ],
    store: Annotated[
        Path, typer.Argument(help="Prepared store; its own transcripts are not looked at.")
    ],
    out: Annotated[
        Path, typer.Option(help="JSONL file for finetune --labels; the same command continues it.")
    ],
    split: Annotated[str, typer.Option(help="Split to listen to.")] = "train",
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
) -> None:
    """Label audio without transcripts by what a recogniser hears, for another fine-tuning."""
    check_plain(out)
    check_models(model)
    check_stores([store])

    from speechssl.transcription.recogniser import load_recogniser

    recogniser = load_recogniser(model)
    with HoursProgress() as progress:
        labels = recogniser.label(store, out, split, batch_seconds, progress)

    num_heard = sum(one.text != "" for one in labels)
    num_empty = len(labels) - num_heard
    log(f"{out} holds the words of {num_heard} chunks; in {num_empty} no word was recognised")
    write_stdout(f"{out}\n")


def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    store: Annotated[Path, typer.Argument(help="Prepared store with transcripts.")],
    out: Annotated[Path, typer.Option(help="Folder for score.json, utterances.jsonl, report.txt.")],
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    normaliser: Annotated[
        str | None,
        typer.Option(help=f"Of both sides: {', '.join(NORMALISERS)}; else the recogniser's."),
    ] = None,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the scores of another evaluation, those of OUT/lm too. Other files stay.",
        ),
    ] = False,
) -> None:
    """Measure the word and character error rate: greedy, and with the model's language model.

    The scores of greedy decoding go to OUT, those with the language model to OUT/lm.
    """
    check_models(model)
    check_stores([store])

    from speechssl.recognition.evaluation_files import DIGESTS, check_score_folder, write_evaluation
    from speechssl.transcription.recogniser import load_recogniser

    recogniser = load_recogniser(model)
    about = {
        "model": str(model),
        "store": str(store),
        "split": split,
        "normaliser": normaliser or recogniser.model.normaliser,
        DIGESTS: recogniser.made_by() | {"store": Store(store).plan},
    }
    check_score_folder(out, about, force)

    evaluation = recogniser.evaluate(store, split, normaliser, batch_seconds)
    write_stdout(write_evaluation(evaluation, out, about, recogniser.about_language_model()))


def transcribe_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    paths: Annotated[
        list[Path], typer.Argument(help="Audio files and folders; - is standard input.")
    ],
    output_format: Annotated[
        str, typer.Option(help=f"Comma-separated: {', '.join(FORMATS)}.")
    ] = "txt",
    output_dir: Annotated[
        Path | None, typer.Option(help="Write files here; without it, print to stdout.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="JSONL file: what became of each input.")
    ] = None,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
    max_line_chars: Annotated[
        int, typer.Option(help="Most characters in a line of a subtitle.")
    ] = CueLimits.line_chars,
    max_cue_seconds: Annotated[
        float, typer.Option(help="Longest time that a subtitle stays.")
    ] = CueLimits.seconds,
    min_cue_seconds: Annotated[
        float,
        typer.Option(help="Shortest time that a subtitle stays, unless the next one begins."),
    ] = CueLimits.least_seconds,
    silence_db: Annotated[
        float,
        typer.Option(min=1, help="Silence is this far below the loudest part around it, dB."),
    ] = TOP_DB,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Without the model folder's language model.")
    ] = False,
    device: Annotated[
        DeviceName, typer.Option(help="Where the model runs; auto = a GPU if there is one.")
    ] = (DeviceName.auto),
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of all jobs together; else all cores.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with the whole model.")] = 1,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Transcribe all inputs again, and replace what lies where their transcripts go: "
            "those of another model, and files of yours. Other files stay.",
        ),
    ] = False,
) -> None:
    """Transcribe files and folders, with the language model that the model folder holds."""
    check_models(model)

    from speechssl.transcription.transcribe_inputs import transcribe_inputs
    from speechssl.transcription.workers import Job

    job = Job(
        model, batch_seconds, greedy, device.value, threads, processes=jobs, top_db=silence_db
    )
    summary = transcribe_inputs(
        job,
        paths,
        output_format.split(","),
        emit=write_stdout,
        limits=CueLimits(
            line_chars=max_line_chars, seconds=max_cue_seconds, least_seconds=min_cue_seconds
        ),
        folder=output_dir,
        report=report,
        force=force,
    )

    if summary.num_failed == summary.num_files:
        raise typer.Exit(ALL_FAILED)
    if summary.num_failed:
        raise typer.Exit(SOME_FAILED)


def compare_command(
    scores: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that evaluate wrote. NAME=FOLDER names a row; the same NAME again "
            "pools runs."
        ),
    ],
) -> None:
    """Show several evaluations in a table, and how each differs from the first."""
    last_names = [given.name for given in scores]
    rows: dict[str, list[Path]] = {}

    for given in scores:
        # A folder's own name may hold "=", as in lr=0.1.
        name, folder = "", given
        if not given.is_dir():
            named, _, path = str(given).rpartition("=")
            name, folder = named, Path(path)

        if not name:
            # Of several folders with one last name, such as test, that name says too little.
            is_unique = last_names.count(given.name) == 1
            name = given.name if is_unique else str(given)
        rows.setdefault(name, []).append(folder)

    systems = [read_system(name, folders) for name, folders in rows.items()]
    write_stdout(comparison(systems))
