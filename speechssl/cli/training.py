"""The verbs that train: pretrain and finetune.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechssl.analysis.probe_targets import probe_stores
from speechssl.cli.app import PROBES_HELP, SetOption, write_stdout
from speechssl.cli.inputs import check_models, check_stores
from speechssl.config import Table, merge, parse_overrides
from speechssl.errors import ConfigError
from speechssl.recognition.defaults import BUDGET_PRESET, KEEP
from speechssl.runtime.log import log
from speechssl.storage.json_text import as_json_lines
from speechssl.text.tokenizers import PHONES

if TYPE_CHECKING:
    from speechssl.pretraining.settings import PretrainSettings
    from speechssl.recognition.settings import FinetuneSettings

# Updates between two times that --probe measures, where the user does not say.
PROBE_EVERY = 500


def pretrain_command(
    stores: Annotated[list[Path], typer.Argument(help="Prepared stores.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[
        Path | None, typer.Option(help="Run or model folder to go on from; else random weights.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="minutes, tiny, small, base, large, or a .toml file; else that of --init-from, or "
            "tiny."
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Splits to learn from (repeatable); else train.")
    ] = None,
    set_: SetOption = None,
    probes: Annotated[
        list[str] | None,
        typer.Option(
            "--probe", metavar="TARGET=STORE", help=f"{PROBES_HELP} On the way (repeatable)."
        ),
    ] = None,
    probe_every: Annotated[
        int | None,
        typer.Option(min=1, help=f"Updates between two times of --probe; else {PROBE_EVERY}."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the settings that the run reads; time a few updates and say what it will "
            "take.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Delete the run folder with all that is in it, and start anew."
        ),
    ] = False,
) -> None:
    """Learn an encoder from unlabelled audio (by default with wav2vec 2.0's task)."""
    if probe_every and not probes:
        raise ConfigError(
            "--probe-every without a --probe: give one, such as --probe characters=STORE"
        )
    probed = probe_stores(probes or [])
    check_stores([*stores, *probed.values()])
    check_models(init_from)

    from speechssl.analysis.probing import watch
    from speechssl.pretraining.pretrain import pretrain, pretrain_cost
    from speechssl.pretraining.settings import pretrain_settings
    from speechssl.runtime import distributed, ranks
    from speechssl.runtime.device import pick_device
    from speechssl.training.run_folder import start_anew

    overrides = parse_overrides(set_ or [])
    if probed:
        overrides = merge({"train": {"validate_every": probe_every or PROBE_EVERY}}, overrides)
    settings = pretrain_settings(init_from, preset, overrides)
    measure = watch(probed, settings.encoder) if probed else None
    splits = split or ["train"]

    if dry_run:
        write_stdout(as_json_lines(settings.in_use()))
        cost = pretrain_cost(stores, settings, splits)
        log(f"{cost}; the probes come on top" if probed else cost)
        return

    teacher = settings.hidden_units.teacher if settings.task == "hidden_units" else None
    distributed.start(pick_device(settings.train.device))
    with distributed.fail_on_all_ranks():
        read = [*stores, *probed.values()]
        files = [init_from, Path(teacher) if teacher else None, *_files_of(settings)]
        start_anew(run, force, read, *files)

    if not probed:
        ranks.log_once(
            "nothing held out is measured, and the last model is kept: --probe measures on the "
            "way, and keeps the best"
        )

    made = pretrain(stores, run, settings, splits, init_from, measure)
    # Only training shares its work: the other verbs print in every process, whoever started it.
    if ranks.rank() == 0:
        write_stdout(f"{made}\n")


def finetune_command(
    stores: Annotated[
        list[Path], typer.Argument(help="Stores with transcripts; among them splits train and dev.")
    ],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[
        str,
        typer.Option(
            help="Run or model folder that the encoder comes from; none = train from scratch."
        ),
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Labelled minutes to use, a seeded choice; else all.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="chars, bpe:N, unigram:N, phones:LEXICON or phones:espeak-ng:LANGUAGE."),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option(help="ctc, or ctc-crf: CTC first, then CTC-CRF.")
    ] = None,
    freeze_encoder: Annotated[
        bool, typer.Option("--freeze-encoder", help="Only the head learns.")
    ] = False,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="Stores to label with --lm: a second recogniser learns from these labels. "
            "May be given again, and be the labelled store."
        ),
    ] = None,
    lm: Annotated[
        Path | None, typer.Option(help="ARPA file for the labels of --unlabelled.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How often --unlabelled labels and trains; else 1. A second round takes half as "
            "long again, and may make a few errors less.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="What label wrote: transcripts for chunks of train that have none."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help=f"Share of the labels to learn from, the most confident; else {KEEP}."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time that training may take on this machine, such as 90s, 15m or 1.5h; it "
            "chooses the preset and the number of updates."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="minutes, tiny, small, base, large, or a .toml file; else that of --init-from, or "
            "tiny (with --budget: minutes)."
        ),
    ] = None,
    set_: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete the run folder with all that is in it, with --unlabelled those of all "
            "rounds, and start anew.",
        ),
    ] = False,
) -> None:
    """Train a CTC recogniser on a small transcribed subset, and on audio without transcripts."""
    if keep is not None and labels is None:
        raise ConfigError("--keep is of the labels: give these as --labels, or leave --keep out")

    if bool(unlabelled) != (lm is not None):
        raise ConfigError("--unlabelled and --lm belong together: give both, or none")
    if rounds is not None and not unlabelled:
        raise ConfigError("--rounds are of --unlabelled: give both, or leave --rounds out")
    if unlabelled and labels is not None:
        raise ConfigError("--unlabelled makes labels of its own: leave --labels out")

    origin = None if init_from == "none" else Path(init_from)
    budget_s = None if budget is None else _seconds(budget)
    check_stores([*stores, *(unlabelled or ())])
    check_models(origin)

    from speechssl.recognition.finetune import finetune
    from speechssl.recognition.settings import begun_settings, finetune_settings
    from speechssl.runtime import distributed, ranks
    from speechssl.runtime.device import pick_device
    from speechssl.self_training.second_recogniser import (
        finetune_with_unlabelled,
        first_run,
        runs_before,
    )
    from speechssl.training.run_folder import start_anew

    options: Table = {}
    if minutes is not None:
        options["minutes"] = minutes
    if tokenizer is not None:
        options["tokenizer"] = tokenizer
    if not force:
        options |= begun_settings(first_run(run)) | begun_settings(run)

    ctc: Table = {}
    if criterion is not None:
        ctc["criterion"] = criterion
    if freeze_encoder:
        ctc["frozen"] = True
    options = merge(options, {"ctc": ctc})

    overrides = merge(options, parse_overrides(set_ or []))
    if budget_s is not None:
        given = overrides.get("train")
        if isinstance(given, dict) and "steps" in given:
            raise ConfigError("--budget chooses train.steps: leave one of the two out")
        if origin is None:
            preset = preset or BUDGET_PRESET

    settings = finetune_settings(origin, preset, overrides)
    distributed.start(pick_device(settings.train.device))

    num_rounds = rounds or 1
    others = runs_before(run, num_rounds) if unlabelled else []
    read = [*stores, *(unlabelled or ())]
    files = [origin, labels, lm, *_files_of(settings)]

    def begin() -> None:
        with distributed.fail_on_all_ranks():
            start_anew(run, force, read, *files, with_runs=others)

    if unlabelled and lm is not None:
        finetune_with_unlabelled(
            stores, unlabelled, lm, run, settings, origin, begin, budget_s, num_rounds
        )
        write_stdout(f"{run / 'model'}\n")
        return

    share = KEEP if keep is None else keep
    finetune(stores, run, settings, origin, labels, share, begin, budget_s)
    if ranks.rank() == 0:
        write_stdout(f"{run / 'model'}\n")


def _files_of(settings: "PretrainSettings | FinetuneSettings") -> list[Path]:
    """Give the files that settings name: a preset, and a pronunciation lexicon."""
    from speechssl.recognition.settings import FinetuneSettings

    names = [settings.preset]
    if isinstance(settings, FinetuneSettings):
        names.append(settings.tokenizer.removeprefix(PHONES))
    return [Path(name) for name in names if Path(name).is_file()]


def _seconds(budget: str) -> float:
    """Read a time with its unit."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = budget[:-1], budget[-1:]
    try:
        seconds = float(number) * units[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--budget {budget}: give a time with its unit, such as 90s, 15m or 1.5h")
    return seconds
