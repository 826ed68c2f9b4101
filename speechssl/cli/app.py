"""The ``speechssl`` command: verbs in pipeline order, each parses, calls the library, prints. Exit codes live here.

0 done; 1 a problem with input or settings (one line on stderr); 2 wrong usage; 3 some inputs failed (of
prepare more than --max-bad-fraction), the rest are done; 4 all inputs failed; 130 interrupted, 143 SIGTERM, in training
after a checkpoint.
"""

import hashlib
import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import torch
import typer

from speechssl import __version__
from speechssl.analysis.benchmark import as_text, bench_prepare, bench_training, bench_transcribe
from speechssl.analysis.probing import as_text as probes_as_text
from speechssl.analysis.probing import probe, probe_stores, watch, write_probes
from speechssl.config import Table, as_table, build, parse_overrides
from speechssl.corpus.layouts import scan
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.decoding.arpa import arpa_lines, read_arpa, read_words
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import is_over_tokens, known_words, spellings, token_name
from speechssl.decoding.ngram import estimate, perplexity
from speechssl.encoder.encoder import load_encoder
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.interop.convert import Conversion, export_model, import_model
from speechssl.pictures import text_table
from speechssl.pretraining.pretrain import pretrain, pretrain_cost
from speechssl.pretraining.settings import pretrain_settings
from speechssl.recognition.evaluate import BATCH_SECONDS, beam_decoder, evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.language_model import LM_FOLDER, load_lm, read_texts, save_lm, tune
from speechssl.recognition.model import load_ctc
from speechssl.recognition.pseudo_labels import KEEP, label
from speechssl.recognition.settings import finetune_settings
from speechssl.runtime import distributed as ranks
from speechssl.runtime.device import pick_device
from speechssl.runtime.log import HoursProgress, log, one_line
from speechssl.scoring.compare import comparison, read_system
from speechssl.scoring.score_files import remove_score, write_score
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.checkpoint import RECORD, model_folder
from speechssl.storage.json_text import as_json
from speechssl.text.normalise import NORMALISERS, normalise
from speechssl.text.tokenizers import load_tokenizer
from speechssl.training.run_folder import start_anew
from speechssl.transcription.formats import FORMATS, CueLimits
from speechssl.transcription.output_folder import claim, outcome, plan_outputs
from speechssl.transcription.transcript import Failure
from speechssl.transcription.workers import Job, in_order, made_by, transcribe_files

SOME_FAILED, ALL_FAILED = 3, 4

HELP = """Learn speech representations without labels, recognise speech with few.

Exit codes: 0 done; 1 a problem with input or settings, in one line; 2 wrong usage; 3 some inputs failed (of
prepare more than --max-bad-fraction), the rest are done; 4 all inputs failed; 130 interrupted, 143 SIGTERM, in training
after a checkpoint."""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting, such as optim.lr=0.001 (repeatable).")
]
PROBES_HELP = "What to ask of which store: characters, keyword (first folder), digit (whole transcript) or speaker."
BatchSecondsOption = Annotated[float, typer.Option(help="Audio recognised at once, seconds: memory, not the texts.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Delete what is there and start anew.")]


class Features(StrEnum):
    """What a store holds."""

    logmel = "logmel"
    waveform = "waveform"


class DeviceName(StrEnum):
    """Where a model may run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ExportTarget(StrEnum):
    """Who reads an exported model."""

    hf = "hf"
    torchaudio = "torchaudio"
    onnx = "onnx"


@app.command("prepare")
def prepare_command(
    source: Annotated[Path, typer.Argument(help="Audio folder, .jsonl, metadata.csv, Kaldi folder, fairseq .tsv.")],
    store: Annotated[Path, typer.Argument(help="Folder to write.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder of a JSONL manifest's or Kaldi folder's audio; else its own.")
    ] = None,
    features: Annotated[Features, typer.Option(help="What the encoder will read.")] = Features.logmel,
    min_chunk: Annotated[float, typer.Option(help="Shortest chunk of unlabelled audio, seconds.")] = 2.0,
    max_chunk: Annotated[float, typer.Option(help="Longest chunk of unlabelled audio, seconds.")] = 15.0,
    max_duration: Annotated[float, typer.Option(help="A file longer than this is rejected, seconds.")] = 21600.0,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of bad files above which the exit code is 3.")] = 0.05,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 1,
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
        given = source if root is None else scan(source, root)
        report = prepare(given, store, config, jobs=jobs, force=force, progress=progress)
    _out(report.table() + "\n")
    if report.num_reject_lines:
        whole, lines = f"{report.num_rejected} of {report.num_files} files rejected", report.num_reject_lines
        log(f"{whole}, {lines} lines in {store / 'rejects.jsonl'} (one for each part of a file)")
    if report.all_bad:
        raise typer.Exit(ALL_FAILED)
    if report.too_many_bad:
        raise typer.Exit(SOME_FAILED)


@app.command("pretrain")
def pretrain_command(
    stores: Annotated[list[Path], typer.Argument(help="Prepared stores.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[
        Path | None, typer.Option(help="Run or model folder to go on from; else random weights.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="tiny, small, base, large, or a .toml file; else that of --init-from, or tiny.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to learn from (repeatable); else train.")] = None,
    set_: SetOption = None,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", metavar="TARGET=STORE", help=f"{PROBES_HELP} On the way (repeatable)."),
    ] = None,
    probe_every: Annotated[
        int | None, typer.Option(min=1, help="Updates between two times of --probe; else 500.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings; time a few updates and say what the run will take.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Learn an encoder from unlabelled audio (by default with wav2vec 2.0's task)."""
    if probe_every and not probes:
        raise ConfigError("--probe-every without a --probe: give one, such as --probe characters=STORE")
    every = [f"train.validate_every={probe_every or 500}"] if probes else []
    settings = pretrain_settings(init_from, preset, parse_overrides([*every, *(set_ or [])]))
    measure = watch(probe_stores(probes), settings.encoder) if probes else None
    if dry_run:
        _out(as_json(as_table(settings)))
        log(pretrain_cost(stores, settings, split or ["train"]) + ("; the probes come on top" if probes else ""))
        return
    teacher = settings.units.teacher if settings.task == "units" else None
    ranks.start(pick_device(settings.train.device))
    with ranks.together():
        start_anew(run, force, stores, init_from, Path(teacher) if teacher else None)
    made = pretrain(stores, run, settings, split or ["train"], init_from, measure)
    if ranks.rank() == 0:  # the other verbs share no work: there every process prints, whoever started it
        _out(f"{made}\n")


@app.command("finetune")
def finetune_command(
    stores: Annotated[list[Path], typer.Argument(help="Stores with transcripts; among them splits train and dev.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[str, typer.Option(help="Run or model folder the encoder comes from; none = random weights.")],
    minutes: Annotated[float | None, typer.Option(help="Labelled minutes to use, a seeded choice; else all.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="chars, bpe:N or unigram:N.")] = None,
    freeze_encoder: Annotated[bool, typer.Option("--freeze-encoder", help="Only the head learns.")] = False,
    labels: Annotated[
        Path | None, typer.Option(help="What label wrote: transcripts for chunks of train that have none.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help=f"Share of the labels to learn from, the most confident; else {KEEP}.")
    ] = None,
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
    ranks.start(pick_device(settings.train.device))
    if keep is not None and labels is None:
        raise ConfigError("--keep is of the labels: give these as --labels, or leave --keep out")

    def begin() -> None:
        with ranks.together():
            start_anew(run, force, stores, origin, labels)

    finetune(stores, run, settings, origin, labels, KEEP if keep is None else keep, begin)
    if ranks.rank() == 0:
        _out(f"{run / 'model'}\n")


@app.command("lm")
def lm_command(
    texts: Annotated[list[Path], typer.Argument(help="Text files, a sentence a line, and stores with transcripts.")],
    out: Annotated[Path, typer.Option(help="ARPA file to write.")],
    order: Annotated[int, typer.Option(help="Length of the longest n-grams, 2 to 6.")] = 4,
    split: Annotated[str, typer.Option(help="Whose transcripts to take of a store.")] = "train",
    normaliser: Annotated[
        str | None, typer.Option(help="What is done to the text; else what the model of --tokens-of does, or basic-1.")
    ] = None,
    tokens_of: Annotated[
        Path | None, typer.Option(help="Run or model folder: n-grams of its tokens instead of words.")
    ] = None,
    held_out: Annotated[Path | None, typer.Option(help="Text or store to measure the perplexity of.")] = None,
    held_out_split: Annotated[str, typer.Option(help="Whose transcripts to take of that store.")] = "dev",
) -> None:
    """Text -> an n-gram language model (modified Kneser-Ney), as an ARPA file."""
    tokenizer = load_tokenizer(model_folder(tokens_of)) if tokens_of else None
    normaliser = normaliser or (load_ctc(model_folder(tokens_of)).normaliser if tokens_of else "basic-1")

    def sentences(paths: Sequence[Path], split: str) -> Iterator[list[str]]:
        lost = used = 0
        for text in read_texts(paths, split):
            line, used = normalise(text, normaliser), used + 1
            if tokenizer and tokenizer.has_unknown(line):
                lost += 1
            else:
                yield [token_name(tokenizer.texts[i]) for i in tokenizer.encode(line)] if tokenizer else line.split()
        if lost:
            log(f"{lost} sentences hold characters that the recogniser does not have: left out")
        log(f"{used - lost} sentences of {', '.join(map(str, paths))}")

    model = estimate(sentences(texts, split), order)
    write_atomic(out, arpa_lines(model))
    log(f"{out} holds n-grams of up to {order} {'tokens' if tokenizer else 'words'}")
    counts = [(k, len(found.word), *(f"{d:.3f}" for d in found.discounts)) for k, found in enumerate(model.orders, 1)]
    _out(text_table(("length", "n-grams", "discount of 1", "of 2", "of 3 and more"), counts))
    if held_out:
        found = perplexity(read_arpa(out), sentences([held_out], held_out_split))
        _out(
            f"\nperplexity of {held_out}: {found.excluding_unknown:.1f} without the {found.num_unknown} of "
            f"{found.num_words} words that the model does not have, {found.including_unknown:.1f} with them\n"
        )


@app.command("tune-lm")
def tune_lm_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder, which will hold the language model.")],
    lm: Annotated[Path, typer.Argument(help="ARPA file, or KenLM binary with --words.")],
    store: Annotated[Path, typer.Argument(help="Prepared store with transcripts.")],
    split: Annotated[str, typer.Option(help="Split to tune on: never the one to measure on.")] = "dev",
    words: Annotated[
        Path | None, typer.Option(help="Words to recognise, one a line; else those of the ARPA file.")
    ] = None,
) -> None:
    """Find the weights of a language model, and keep it in the model folder: transcribe and evaluate then use it.

    The best have the lowest sum of word and character error rate. Where greedy decoding's is lower, nothing is kept.
    """
    folder = model_folder(model)
    recogniser = load_ctc(folder).to(pick_device("auto"))
    listed = read_words(lm, words)
    over_tokens = is_over_tokens(recogniser.tokenizer, listed)
    known = None if over_tokens else known_words(recogniser.tokenizer, recogniser.normaliser, listed)
    lexicon = None if known is None else spellings(recogniser.tokenizer, known)
    config = BeamConfig(unit="tokens" if over_tokens else "words")
    tuned = tune(
        recogniser,
        Dataset([Store(store)], [split]),
        config,
        lambda weights, prior: BeamSearch(recogniser.tokenizer, lm, lexicon, weights, log_prior=prior),
    )
    best = tuned.tried[0]
    rows = [("greedy", "", "", f"{tuned.greedy.wer:.1%}", f"{tuned.greedy.cer:.1%}")]
    for weights, found in tuned.tried:
        weight, prior, score = (f"{w:g}" for w in (weights.lm_weight, weights.prior_scale, weights.word_score))
        rows.append((weight, prior, score, f"{found.wer:.1%}", f"{found.cer:.1%}"))
    _out(text_table(("weight", "prior scale", "word score", "WER", "CER"), rows))
    if best.score.wer + best.score.cer > tuned.greedy.wer + tuned.greedy.cer:
        before = "; the one that is there stays" if (folder / LM_FOLDER).exists() else ""
        log(f"no weight makes the language model as good as greedy decoding: it is not kept{before}")
        return
    about = {"lm": str(lm), "store": str(store), "split": split, "wer": best.score.wer, "greedy_wer": tuned.greedy.wer}
    save_lm(folder, lm, known, tuned.best, about, tuned.log_prior)
    log(f"{folder / LM_FOLDER} holds the language model over {best.config.unit} with the best of these weights")


@app.command("label")
def label_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder; its language model is used if it has one.")],
    store: Annotated[Path, typer.Argument(help="Prepared store; its own transcripts are not looked at.")],
    out: Annotated[Path, typer.Option(help="JSONL file for finetune --labels; the same command continues it.")],
    split: Annotated[str, typer.Option(help="Split to listen to.")] = "train",
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
) -> None:
    """What a recogniser hears in audio without transcripts, for another fine-tuning to learn from (self-training)."""
    folder = model_folder(model)
    recogniser = load_ctc(folder).to(pick_device("auto"))
    beam = load_lm(folder, recogniser.tokenizer)
    decoder, dataset = beam_decoder(beam) if beam else None, Dataset([Store(store)], [split])
    heard_by = hashlib.sha256(as_json(made_by(Job(model, batch_seconds))).encode()).hexdigest()[:16]
    with HoursProgress() as progress:
        found = label(recogniser, dataset, out, heard_by, decoder, batch_seconds, progress)
    heard = sum(one.text != "" for one in found)
    if not heard:
        raise ConfigError(f"{model} hears nothing in {store}: train it longer")
    log(f"{out} holds the words of {heard} chunks; in {len(found) - heard} nothing was heard")
    _out(f"{out}\n")


@app.command("evaluate")
def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    store: Annotated[Path, typer.Argument(help="Prepared store with transcripts.")],
    out: Annotated[Path, typer.Option(help="Folder for score.json, utterances.jsonl, report.txt.")],
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    normaliser: Annotated[
        str | None, typer.Option(help=f"Of both sides: {', '.join(NORMALISERS)}; else the recogniser's.")
    ] = None,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
) -> None:
    """Word and character error rate with interval and errors: greedy, and with the model folder's language model.

    What the language model gives goes to OUT/lm, as greedy decoding to OUT.
    """
    folder = model_folder(model)
    recogniser = load_ctc(folder).to(pick_device("auto"))
    beam = load_lm(folder, recogniser.tokenizer)
    dataset = Dataset([Store(store)], [split])
    normaliser = normaliser or recogniser.normaliser
    about = {"model": str(model), "store": str(store), "split": split, "normaliser": normaliser}
    if (out / RECORD).exists():
        raise ConfigError(f"{out} holds a model: give another --out for the scores")
    if out.exists() and not (out / "score.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and holds no scores: give a new folder as --out")
    result = evaluate(recogniser, dataset, batch_seconds, normaliser=normaliser)
    if empty := sum(not utterance.reference for utterance in result.utterances):
        log(f"{empty} transcripts hold nothing that {normaliser} keeps: whatever is heard there counts as inserted")
    _out(write_score(result, out, about))
    remove_score(out / LM_FOLDER)  # of an evaluation before this one: the two must not be mixed
    if beam:
        result = evaluate(recogniser, dataset, batch_seconds, beam_decoder(beam), normaliser)
        weights = {"lm": as_table(beam.config)}
        _out(f"\nWith the language model:\n{write_score(result, out / LM_FOLDER, about | weights)}\n")
        _out(comparison([read_system("greedy", [out]), read_system("with language model", [out / LM_FOLDER])]))


@app.command("transcribe")
def transcribe_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    paths: Annotated[list[Path], typer.Argument(help="Audio files and folders; - is standard input.")],
    output_format: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(FORMATS)}.")] = "txt",
    output_dir: Annotated[Path | None, typer.Option(help="Write files here; without it, print to stdout.")] = None,
    report: Annotated[Path | None, typer.Option(help="JSONL file: what became of each input.")] = None,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
    max_line_chars: Annotated[
        int, typer.Option(help="Most characters in a line of a subtitle.")
    ] = CueLimits.line_chars,
    max_cue_seconds: Annotated[float, typer.Option(help="Longest time that a subtitle stays.")] = CueLimits.seconds,
    greedy: Annotated[bool, typer.Option("--greedy", help="Without the model folder's language model.")] = False,
    device: Annotated[DeviceName, typer.Option(help="Where the model runs; auto = a GPU if there is one.")] = (
        DeviceName.auto
    ),
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of all jobs together; else all cores.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with the whole model.")] = 1,
    force: ForceOption = False,
) -> None:
    """Files and folders -> text, with the language model that tune-lm put into the model folder."""
    limits = CueLimits(line_chars=max_line_chars, seconds=max_cue_seconds)
    job = Job(model, batch_seconds, greedy=greedy, device=device.value, threads=threads, processes=jobs)
    with TemporaryDirectory() as spool, HoursProgress() as progress:
        outputs = plan_outputs(paths, output_format.split(","), limits, output_dir, Path(spool))
        files = outputs.files
        if output_dir:
            remove_leftovers(output_dir)
            claim(output_dir, made_by(job), force)
        waiting = list(files) if force else outputs.waiting()
        if len(waiting) < len(files):
            log(f"{len(files) - len(waiting)} of {len(files)} files are done already; --force does them again")
        rows = {path: outcome(outputs, path, None) for path in files}
        failed = 0
        results = transcribe_files(job, waiting, progress)
        for result in results if output_dir else in_order(results, waiting):
            path = Path(result.path)
            rows[path] = outcome(outputs, path, result)
            if isinstance(result, Failure):
                failed += 1
                log(f"{outputs.name(path)}: {result.error}")
            else:
                _out(outputs.put(result))
        if report:
            write_atomic(report, (json.dumps(row) + "\n" for row in rows.values()))
    if failed:
        log(f"{failed} of {len(files)} files could not be transcribed")
        raise typer.Exit(ALL_FAILED if failed == len(files) else SOME_FAILED)


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
    stores = probe_stores(probes)
    results = probe(load_encoder(model).to(pick_device("auto")), stores, minutes, seed, progress=log)
    if out is not None:
        write_probes(results, out, {"model": str(model)} | {target: str(path) for target, path in stores.items()})
    _out(probes_as_text(results))


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
    source: Annotated[Path | None, typer.Argument(help="What prepare reads; else synthetic recordings.")] = None,
    features: Annotated[Features, typer.Option(help="What the encoder will read.")] = Features.logmel,
    jobs: Annotated[int, typer.Option(min=0, help="Processes beside this one; they take seconds to start.")] = 0,
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
        seconds: Annotated[
            float | None, typer.Option(help="Synthetic audio, seconds; else enough for 20 updates.")
        ] = None,
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
    model: Annotated[Path | None, typer.Option(help="Run or model folder; else random weights of --preset.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="File or folder (repeatable); else synthetic audio.")] = None,
    preset: PresetOption = "tiny",
    seconds: SecondsOption = 600.0,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
    repeats: RepeatsOption = 5,
    json_: JsonOption = None,
) -> None:
    """Files -> text."""
    _measured(bench_transcribe(model, audio or [], preset, seconds, batch_seconds, repeats), json_)


def _measured(table: Table, path: Path | None) -> None:
    _out(as_text(table))
    if path:
        write_atomic(path, as_json(table))


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
    except SystemExit as leaving:
        if leaving.code == 128 + signal.SIGINT:
            print("speechssl: interrupted: give the command again, without --force", file=sys.stderr)
        raise
    except (SpeechsslError, OSError, torch.OutOfMemoryError) as error:
        if DEBUG:
            traceback.print_exc()
        print(f"speechssl: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
