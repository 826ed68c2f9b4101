"""The ``speechssl`` command: verbs in pipeline order, each parses, calls the library, prints. Exit codes live here.

0 done; 1 a problem with input or settings (one line on stderr); 2 wrong usage; 3 some inputs failed, the rest are done;
4 all inputs failed; 143 SIGTERM, after a checkpoint.
"""

import re
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from speechssl import __version__, ranks
from speechssl.batching import Dataset
from speechssl.bench import as_text, bench_prepare, bench_training, bench_transcribe
from speechssl.checkpoint import model_folder
from speechssl.compare import comparison, read_system
from speechssl.config import Table, as_json, as_table, build, parse_overrides
from speechssl.convert import Conversion, export_model, import_model
from speechssl.ctc import load_ctc
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.experiments import finetune, load_encoder, pretrain, pretrain_cost
from speechssl.formats import FORMATS, Transcript, common_root, output_path, write_atomic
from speechssl.preparing import PrepareConfig, prepare
from speechssl.probing import TARGETS, Target, probe, watch, write_probes
from speechssl.probing import as_text as probes_as_text
from speechssl.recognise import Failure, evaluate, find_audio, transcribe, write_score
from speechssl.runtime import HoursProgress, log, pick_device
from speechssl.settings import finetune_settings, pretrain_settings
from speechssl.store import Store

SOME_FAILED, ALL_FAILED = 3, 4

HELP = """Learn speech representations without labels, recognise speech with few.

Exit codes: 0 done; 1 a problem with input or settings, in one line; 2 wrong usage; 3 some inputs failed, the rest are
done; 4 all inputs failed; 143 SIGTERM, after a checkpoint."""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting, such as optim.lr=0.001 (repeatable).")
]
PROBES_HELP = "What to ask of which store: characters, keyword, digit or speaker."
ForceOption = Annotated[bool, typer.Option("--force", help="Delete what is there and start anew.")]


class Features(StrEnum):
    """What a store holds."""

    logmel = "logmel"
    waveform = "waveform"


class ExportTarget(StrEnum):
    """Who reads an exported model."""

    hf = "hf"
    torchaudio = "torchaudio"
    onnx = "onnx"


@app.command("prepare")
def prepare_command(
    source: Annotated[Path, typer.Argument(help="Audio folder, .jsonl, metadata.csv, Kaldi folder, fairseq .tsv.")],
    store: Annotated[Path, typer.Argument(help="Folder to write.")],
    features: Annotated[Features, typer.Option(help="What the encoder will read.")] = Features.logmel,
    min_chunk: Annotated[float, typer.Option(help="Shortest chunk of unlabelled audio, seconds.")] = 2.0,
    max_chunk: Annotated[float, typer.Option(help="Longest chunk of unlabelled audio, seconds.")] = 15.0,
    max_duration: Annotated[float, typer.Option(help="A file longer than this is rejected, seconds.")] = 21600.0,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of bad files above which the exit code is 3.")] = 0.05,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    force: ForceOption = False,
) -> None:
    """Recordings -> validated manifest + feature store, every second accounted for."""
    table = {
        "features": {"kind": features.value},
        "min_chunk_s": min_chunk,
        "max_chunk_s": max_chunk,
        "max_duration_s": max_duration,
        "max_bad_fraction": max_bad_fraction,
    }
    config = build(PrepareConfig, table)
    with HoursProgress() as progress:
        report = prepare(source, store, config, jobs=jobs, force=force, progress=progress)
    _out(report.table() + "\n")
    if report.num_rejected:
        log(f"{report.num_rejected} of {report.num_files} files rejected, see {store / 'rejects.jsonl'}")
    if report.all_bad:
        raise typer.Exit(ALL_FAILED)
    if report.too_many_bad:
        raise typer.Exit(SOME_FAILED)


@app.command("pretrain")
def pretrain_command(
    stores: Annotated[list[Path], typer.Argument(help="Prepared stores.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[Path | None, typer.Option(help="Run or model folder to go on from; random weights.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="tiny, small, base, large, or a .toml file; tiny, or that of --init-from.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to learn from (repeatable); train.")] = None,
    set_: SetOption = None,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", metavar="TARGET=STORE", help=f"{PROBES_HELP} On the way (repeatable)."),
    ] = None,
    probe_every: Annotated[int | None, typer.Option(min=1, help="Updates between two times of --probe; 500.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings; time a few updates and say what the run will take.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Learn an encoder from unlabelled audio (by default with wav2vec 2.0's task)."""
    if probe_every and not probes:
        raise ConfigError("--probe-every without a --probe: give one, such as --probe characters=STORE")
    every = [f"train.validate_every={probe_every or 500}"] if probes else []
    settings = pretrain_settings(init_from, preset, parse_overrides([*(set_ or []), *every]))
    measure = watch(_probe_stores(probes)) if probes else None
    if dry_run:
        _out(as_json(as_table(settings)))
        log(pretrain_cost(stores, settings, split or ["train"]) + ("; the probes come on top" if probes else ""))
        return
    teacher = settings.units.teacher if settings.task == "units" else None
    _start_anew(run, force, stores, init_from, Path(teacher) if teacher else None)
    made = pretrain(stores, run, settings, split or ["train"], init_from, measure)
    if ranks.rank() == 0:  # the other verbs share no work: there every process prints, whoever started it
        _out(f"{made}\n")


@app.command("finetune")
def finetune_command(
    stores: Annotated[list[Path], typer.Argument(help="Stores with transcripts; among them splits train and dev.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[str, typer.Option(help="Run or model folder the encoder comes from; none = random weights.")],
    minutes: Annotated[float | None, typer.Option(help="Labelled minutes to use, a seeded choice; all.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="chars, bpe:N or unigram:N.")] = None,
    freeze_encoder: Annotated[bool, typer.Option("--freeze-encoder", help="Only the head learns.")] = False,
    preset: Annotated[str | None, typer.Option(help="Default: what the encoder was pretrained with.")] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train a CTC recogniser on a small transcribed subset."""
    flags = [f"minutes={minutes}"] if minutes is not None else []
    flags += [f"tokenizer={tokenizer}"] if tokenizer is not None else []
    flags += ["ctc.frozen=true"] if freeze_encoder else []
    origin = None if init_from == "none" else Path(init_from)
    settings = finetune_settings(origin, preset, parse_overrides([*flags, *(set_ or [])]))
    _start_anew(run, force, stores, origin)
    finetune(stores, run, settings, origin)
    if ranks.rank() == 0:
        _out(f"{run / 'model'}\n")


@app.command("evaluate")
def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    store: Annotated[Path, typer.Argument(help="Prepared store with transcripts.")],
    out: Annotated[Path, typer.Option(help="Folder for score.json, utterances.jsonl, report.txt.")],
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    batch_seconds: Annotated[float, typer.Option(help="Audio recognised at once.")] = 120.0,
) -> None:
    """Word and character error rate of greedy decoding, with its interval and its errors."""
    recogniser = load_ctc(model_folder(model)).to(pick_device("auto"))
    dataset = Dataset([Store(store)], [split])
    result = evaluate(recogniser, dataset, batch_seconds)
    about = {"model": str(model), "store": str(store), "split": split, "normaliser": recogniser.normaliser}
    _out(write_score(result, out, about))


@app.command("transcribe")
def transcribe_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    paths: Annotated[list[Path], typer.Argument(help="Audio files and folders.")],
    output_format: Annotated[str, typer.Option(help="Comma-separated: txt, json.")] = "txt",
    output_dir: Annotated[Path | None, typer.Option(help="Write files here; without it, print to stdout.")] = None,
    batch_seconds: Annotated[float, typer.Option(help="Audio recognised at once.")] = 120.0,
    force: ForceOption = False,
) -> None:
    """Files and folders -> text."""
    names = output_format.split(",")
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--output-format {unknown[0]!r} is unknown: allowed are {', '.join(FORMATS)}")
    if output_dir is None and len(names) > 1:
        raise ConfigError("stdout takes one format: give one --output-format, or an --output-dir")
    files = find_audio(paths)
    if not files:
        raise ConfigError(f"no audio found in {', '.join(map(str, paths))}")
    root = common_root(paths)  # as given: where a result goes must not depend on what else a folder holds

    def targets(path: Path) -> list[Path]:
        return [output_path(path, root, output_dir, f".{name}") for name in names] if output_dir else []

    waiting = [f for f in files if force or output_dir is None or not all(t.exists() for t in targets(f))]
    if len(waiting) < len(files):
        log(f"{len(files) - len(waiting)} of {len(files)} files are done already; --force does them again")
    recogniser = load_ctc(model_folder(model)).to(pick_device("auto"))
    failed = 0
    with HoursProgress() as progress:
        for result in transcribe(recogniser, waiting, model.name, batch_seconds, lambda s: progress(s / 3600, None)):
            if isinstance(result, Failure):
                failed += 1
                log(f"{result.path}: {result.error}")
                continue
            for name, target in zip(names, targets(Path(result.path)), strict=False):
                write_atomic(target, FORMATS[name](result))
            if output_dir is None:
                _print(result, names[0], len(files) > 1)
    if failed:
        log(f"{failed} of {len(waiting)} files could not be transcribed")
        raise typer.Exit(ALL_FAILED if failed == len(files) else SOME_FAILED)


def _print(result: Transcript, name: str, several: bool) -> None:
    """One result on stdout; with several files a text line starts with its path, line breaks and tabs escaped."""
    if name == "txt" and several:
        path = re.sub(r"[\t\n\r]", lambda found: repr(found[0])[1:-1], result.path)
        _out(f"{path}\t{result.text}\n")
    else:
        _out(FORMATS[name](result))


def _out(text: str) -> None:
    """Data to stdout: UTF-8 whatever the locale, and the bytes of file names as they are."""
    typer.echo(text.encode("utf-8", "surrogateescape"), nl=False)


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(help="Hugging Face folder, torchaudio state_dict, or fairseq .pt.")],
    model: Annotated[Path, typer.Argument(help="Model folder to write.")],
    language: Annotated[str | None, typer.Option(help="Adapter and vocabulary of an MMS model, such as deu.")] = None,
) -> None:
    """A model of another library -> a model folder, after running both on audio."""
    _converted(import_model(source, model, language), model)


@app.command("export")
def export_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[ExportTarget, typer.Option(help="hf = transformers; onnx takes recognisers only.")],
) -> None:
    """A model folder -> a folder for transformers, torchaudio or onnxruntime, after running both on audio."""
    _converted(export_model(model, out, to.value), out)


def _converted(conversion: Conversion, path: Path) -> None:
    log(f"{conversion.kind}: both models run on audio, largest difference {conversion.difference:.1e}")
    _out(f"{path}\n")


@app.command("probe")
def probe_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder, of pretraining or fine-tuned.")],
    probes: Annotated[list[str], typer.Argument(metavar="TARGET=STORE...", help=PROBES_HELP)],
    minutes: Annotated[float, typer.Option(help="Labelled minutes that the probe of characters learns from.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the minutes, of what is held out, and of the random encoder.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for probe.json and probe.png.")] = None,
) -> None:
    """What every layer of the frozen encoder knows, beside log-mel and an encoder of random weights."""
    stores = _probe_stores(probes)
    results = probe(load_encoder(model).to(pick_device("auto")), stores, minutes, seed)
    if out is not None:
        write_probes(results, out, {"model": str(model)} | {target: str(path) for target, path in stores.items()})
    _out(probes_as_text(results))


def _probe_stores(probes: Sequence[str]) -> dict[Target, Path]:
    stores: dict[Target, Path] = {}
    for given in probes:
        name, _, path = given.partition("=")
        target = next((target for target in TARGETS if target == name), None)
        if target is None or not path:
            raise ConfigError(f"a probe is {', '.join(f'{t}=STORE' for t in TARGETS)}, not {given!r}")
        if target in stores:
            raise ConfigError(f"{target} is asked of two stores: give one of them")
        stores[target] = Path(path)
    return stores


@app.command("compare")
def compare_command(
    scores: Annotated[
        list[Path],
        typer.Argument(help="Folders that evaluate wrote; NAME=FOLDER names a row, the same NAME again pools runs."),
    ],
) -> None:
    """One table from several evaluations, and how each differs from the first on the same utterances."""
    short = [given.name for given in scores]
    rows: dict[str, list[Path]] = {}
    for given in scores:
        # A folder's own name may hold "=", as in lr=0.1; of equal last names, such as test, none says enough.
        named, _, folder = ("", "", str(given)) if given.is_dir() else str(given).rpartition("=")
        name = named or (str(given) if short.count(given.name) > 1 else given.name)
        rows.setdefault(name, []).append(Path(folder))
    _out(comparison([read_system(name, folders) for name, folders in rows.items()]))


bench = typer.Typer(
    no_args_is_help=True,
    help="How fast it is here, how much memory it takes, where the time goes, how far from the best of the machine.",
)
app.add_typer(bench, name="bench")
PresetOption = Annotated[str, typer.Option(help="tiny, small, base, large, or a .toml file.")]
SecondsOption = Annotated[float, typer.Option(help="Synthetic audio to work on, seconds.")]
UpdatesOption = Annotated[int, typer.Option("--repeats", help="Updates to time, after two of warm-up.")]
RepeatsOption = Annotated[int, typer.Option(help="Times to repeat it, after one of warm-up.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="File to write the measures to.")]


@bench.command("prepare")
def bench_prepare_command(
    source: Annotated[Path | None, typer.Argument(help="What prepare reads; synthetic recordings.")] = None,
    features: Annotated[Features, typer.Option(help="What the encoder will read.")] = Features.logmel,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; they take seconds to start: give hours then.")] = 1,
    seconds: SecondsOption = 1800.0,
    repeats: RepeatsOption = 5,
    json_: JsonOption = None,
) -> None:
    """Recordings -> feature store, beside a loop that only decodes them."""
    _measured(bench_prepare(source, features.value, jobs, seconds, repeats), json_)


def _bench_training_command(verb: Literal["pretrain", "finetune"]) -> Callable[..., None]:
    def command(
        preset: PresetOption = "tiny",
        set_: SetOption = None,
        seconds: Annotated[float | None, typer.Option(help="Synthetic audio, seconds; enough for 20 updates.")] = None,
        repeats: UpdatesOption = 10,
        json_: JsonOption = None,
    ) -> None:
        _measured(bench_training(verb, preset, parse_overrides(set_ or []), seconds, repeats), json_)

    return command


bench.command(
    "pretrain",
    help="Updates of pretraining. An update takes batch.seconds of the audio: less of it for large models on a CPU.",
)(_bench_training_command("pretrain"))
bench.command("finetune", help="Updates of fine-tuning, once more than the head learns.")(
    _bench_training_command("finetune")
)


@bench.command("transcribe")
def bench_transcribe_command(
    model: Annotated[Path | None, typer.Option(help="Run or model folder; random weights of --preset.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="File or folder (repeatable); synthetic audio.")] = None,
    preset: PresetOption = "tiny",
    seconds: SecondsOption = 600.0,
    batch_seconds: Annotated[float, typer.Option(help="Audio recognised at once.")] = 120.0,
    repeats: RepeatsOption = 5,
    json_: JsonOption = None,
) -> None:
    """Files -> text."""
    _measured(bench_transcribe(model, audio or [], preset, seconds, batch_seconds, repeats), json_)


def _measured(table: Table, path: Path | None) -> None:
    _out(as_text(table))
    if path:
        write_atomic(path, as_json(table))


def _start_anew(run: Path, force: bool, stores: Sequence[Path] = (), *models: Path | None) -> None:
    """With ``force``, delete the run, once what the new one reads is known to be there and not inside it."""
    if not force or not run.exists() or ranks.rank():  # the other ranks meet the first one in fit, when this is done
        return
    if not run.is_dir() or (any(run.iterdir()) and not (run / "settings.json").exists()):
        raise ConfigError(f"--force deletes run folders only, and {run} has no settings.json: remove it by hand")
    for path in (*stores, *filter(None, models)):
        if path.resolve().is_relative_to(run.resolve()):
            raise ConfigError(f"--force would delete {path}, which this command reads: give another --run")
    for path in stores:
        Store(path)
    shutil.rmtree(run)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


DEBUG = False


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Learn speech representations without labels, and recognise speech with few."""
    globals()["DEBUG"] = debug


def main() -> None:
    """Entry point: errors that a user can cause become one line and exit code 1."""
    try:
        app()
    except SpeechsslError as error:
        _fail(str(error))
    except OSError as error:  # a disk that is full, a folder that is a file, a permission
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except torch.OutOfMemoryError as error:
        _fail(f"out of memory: lower batch.micro_seconds or --batch-seconds, the result stays the same ({error})")


def _fail(message: str) -> None:
    if DEBUG:
        traceback.print_exc()
    print("speechssl: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
