"""``speechssl lm``, ``tune-lm``, ``label``, ``evaluate``, ``transcribe``, ``compare``: a recogniser at work."""

import hashlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from speechssl.cli.app import ALL_FAILED, SOME_FAILED, BatchSecondsOption, ForceOption, _out
from speechssl.config import as_table
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.arpa import arpa_lines, read_arpa, read_words
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import is_over_tokens, known_words, spellings, token_name
from speechssl.decoding.ngram import estimate, perplexity
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import BATCH_SECONDS, beam_decoder, evaluate
from speechssl.recognition.language_model import LM_FOLDER, load_lm, read_texts, save_lm, tune
from speechssl.recognition.model import load_ctc
from speechssl.recognition.pseudo_labels import label
from speechssl.runtime.device import pick_device
from speechssl.runtime.log import HoursProgress, log
from speechssl.scoring.compare import comparison, read_system
from speechssl.scoring.score_files import remove_score, write_score
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.checkpoint import RECORD, model_folder
from speechssl.storage.json_text import as_json, ascii_json_line
from speechssl.tables import text_table
from speechssl.text.normalise import NORMALISERS, normalise
from speechssl.text.tokenizers import load_tokenizer
from speechssl.transcription.formats import FORMATS, CueLimits
from speechssl.transcription.output_folder import claim, outcome, plan_outputs
from speechssl.transcription.transcript import Failure
from speechssl.transcription.workers import Job, in_order, made_by, transcribe_files


class DeviceName(StrEnum):
    """Where a model may run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def lm_command(
    texts: Annotated[
        list[Path],
        typer.Argument(help="Text files, a sentence a line, and stores with transcripts."),
    ],
    out: Annotated[Path, typer.Option(help="ARPA file to write.")],
    order: Annotated[int, typer.Option(help="Length of the longest n-grams, 2 to 6.")] = 4,
    split: Annotated[str, typer.Option(help="Whose transcripts to take of a store.")] = "train",
    normaliser: Annotated[
        str | None,
        typer.Option(
            help="What is done to the text; else what the model of --tokens-of does, or basic-1."
        ),
    ] = None,
    tokens_of: Annotated[
        Path | None,
        typer.Option(help="Run or model folder: n-grams of its tokens instead of words."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Text or store to measure the perplexity of.")
    ] = None,
    held_out_split: Annotated[
        str, typer.Option(help="Whose transcripts to take of that store.")
    ] = "dev",
) -> None:
    """Text -> an n-gram language model (modified Kneser-Ney), as an ARPA file."""
    tokenizer = load_tokenizer(model_folder(tokens_of)) if tokens_of else None
    normaliser = normaliser or (
        load_ctc(model_folder(tokens_of)).normaliser if tokens_of else "basic-1"
    )

    def sentences(paths: Sequence[Path], split: str) -> Iterator[list[str]]:
        lost = used = 0
        for text in read_texts(paths, split):
            line, used = normalise(text, normaliser), used + 1
            if tokenizer and tokenizer.has_unknown(line):
                lost += 1
            else:
                yield (
                    [token_name(tokenizer.texts[i]) for i in tokenizer.encode(line)]
                    if tokenizer
                    else line.split()
                )
        if lost:
            log(f"{lost} sentences hold characters that the recogniser does not have: left out")
        log(f"{used - lost} sentences of {', '.join(map(str, paths))}")

    model = estimate(sentences(texts, split), order)
    write_atomic(out, arpa_lines(model))
    log(f"{out} holds n-grams of up to {order} {'tokens' if tokenizer else 'words'}")
    counts = [
        (k, len(found.word), *(f"{d:.3f}" for d in found.discounts))
        for k, found in enumerate(model.orders, 1)
    ]
    _out(text_table(("length", "n-grams", "discount of 1", "of 2", "of 3 and more"), counts))
    if held_out:
        found = perplexity(read_arpa(out), sentences([held_out], held_out_split))
        _out(
            f"\nperplexity of {held_out}: {found.excluding_unknown:.1f} without the {found.num_unknown} of "
            f"{found.num_words} words that the model does not have, {found.including_unknown:.1f} with them\n"
        )


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
) -> None:
    """Find the weights of a language model, and keep it in the model folder: transcribe and evaluate then use it.

    The best have the lowest sum of word and character error rate. Where greedy decoding's is lower, nothing is kept.
    """
    folder = model_folder(model)
    recogniser = load_ctc(folder).to(pick_device("auto"))
    listed = read_words(lm, words)
    over_tokens = is_over_tokens(recogniser.tokenizer, listed)
    known = (
        None if over_tokens else known_words(recogniser.tokenizer, recogniser.normaliser, listed)
    )
    lexicon = None if known is None else spellings(recogniser.tokenizer, known)
    config = BeamConfig(unit="tokens" if over_tokens else "words")
    tuned = tune(
        recogniser,
        Dataset([Store(store)], [split]),
        config,
        lambda weights, prior: BeamSearch(
            recogniser.tokenizer, lm, lexicon, weights, log_prior=prior
        ),
    )
    best = tuned.tried[0]
    rows = [("greedy", "", "", f"{tuned.greedy.wer:.1%}", f"{tuned.greedy.cer:.1%}")]
    for weights, found in tuned.tried:
        weight, prior, score = (
            f"{w:g}" for w in (weights.lm_weight, weights.prior_scale, weights.word_score)
        )
        rows.append((weight, prior, score, f"{found.wer:.1%}", f"{found.cer:.1%}"))
    _out(text_table(("weight", "prior scale", "word score", "WER", "CER"), rows))
    if best.score.wer + best.score.cer > tuned.greedy.wer + tuned.greedy.cer:
        before = "; the one that is there stays" if (folder / LM_FOLDER).exists() else ""
        log(
            f"no weight makes the language model as good as greedy decoding: it is not kept{before}"
        )
        return
    about = {
        "lm": str(lm),
        "store": str(store),
        "split": split,
        "wer": best.score.wer,
        "greedy_wer": tuned.greedy.wer,
    }
    save_lm(folder, lm, known, tuned.best, about, tuned.log_prior)
    log(
        f"{folder / LM_FOLDER} holds the language model over {best.config.unit} with the best of these weights"
    )


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
    if (
        out.exists()
        and not (out / "score.json").exists()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise ConfigError(f"{out} is there already and holds no scores: give a new folder as --out")
    result = evaluate(recogniser, dataset, batch_seconds, normaliser=normaliser)
    if empty := sum(not utterance.reference for utterance in result.utterances):
        log(
            f"{empty} transcripts hold nothing that {normaliser} keeps: whatever is heard there counts as inserted"
        )
    _out(write_score(result, out, about))
    remove_score(out / LM_FOLDER)  # of an evaluation before this one: the two must not be mixed
    if beam:
        result = evaluate(recogniser, dataset, batch_seconds, beam_decoder(beam), normaliser)
        weights = {"lm": as_table(beam.config)}
        _out(
            f"\nWith the language model:\n{write_score(result, out / LM_FOLDER, about | weights)}\n"
        )
        _out(
            comparison(
                [
                    read_system("greedy", [out]),
                    read_system("with language model", [out / LM_FOLDER]),
                ]
            )
        )


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
    force: ForceOption = False,
) -> None:
    """Files and folders -> text, with the language model that tune-lm put into the model folder."""
    limits = CueLimits(line_chars=max_line_chars, seconds=max_cue_seconds)
    job = Job(
        model, batch_seconds, greedy=greedy, device=device.value, threads=threads, processes=jobs
    )
    with TemporaryDirectory() as spool, HoursProgress() as progress:
        outputs = plan_outputs(paths, output_format.split(","), limits, output_dir, Path(spool))
        files = outputs.files
        if output_dir:
            remove_leftovers(output_dir)
            claim(output_dir, made_by(job), force)
        waiting = list(files) if force else outputs.waiting()
        if len(waiting) < len(files):
            log(
                f"{len(files) - len(waiting)} of {len(files)} files are done already; --force does them again"
            )
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
            write_atomic(report, map(ascii_json_line, rows.values()))
    if failed:
        log(f"{failed} of {len(files)} files could not be transcribed")
        raise typer.Exit(ALL_FAILED if failed == len(files) else SOME_FAILED)


def compare_command(
    scores: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that evaluate wrote; NAME=FOLDER names a row, the same NAME again pools runs."
        ),
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
