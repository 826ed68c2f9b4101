"""``speechssl pretrain`` and ``finetune``: training runs."""

from pathlib import Path
from typing import Annotated

import typer

from speechssl.analysis.probing import probe_stores, watch
from speechssl.cli.app import PROBES_HELP, ForceOption, SetOption, _out
from speechssl.config import as_table, parse_overrides
from speechssl.errors import ConfigError
from speechssl.pretraining.pretrain import pretrain, pretrain_cost
from speechssl.pretraining.settings import pretrain_settings
from speechssl.recognition.finetune import finetune
from speechssl.recognition.pseudo_labels import KEEP
from speechssl.recognition.settings import finetune_settings
from speechssl.runtime import distributed
from speechssl.runtime.device import pick_device
from speechssl.runtime.log import log
from speechssl.storage.json_text import as_json
from speechssl.training.run_folder import start_anew


def pretrain_command(
    stores: Annotated[list[Path], typer.Argument(help="Prepared stores.")],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[
        Path | None, typer.Option(help="Run or model folder to go on from; else random weights.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="tiny, small, base, large, or a .toml file; else that of --init-from, or tiny."
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
        int | None, typer.Option(min=1, help="Updates between two times of --probe; else 500.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the settings; time a few updates and say what the run will take.",
        ),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Learn an encoder from unlabelled audio (by default with wav2vec 2.0's task)."""
    if probe_every and not probes:
        raise ConfigError(
            "--probe-every without a --probe: give one, such as --probe characters=STORE"
        )
    every = [f"train.validate_every={probe_every or 500}"] if probes else []
    settings = pretrain_settings(init_from, preset, parse_overrides([*every, *(set_ or [])]))
    measure = watch(probe_stores(probes), settings.encoder) if probes else None
    if dry_run:
        _out(as_json(as_table(settings)))
        log(
            pretrain_cost(stores, settings, split or ["train"])
            + ("; the probes come on top" if probes else "")
        )
        return
    teacher = settings.hidden_units.teacher if settings.task == "hidden_units" else None
    distributed.start(pick_device(settings.train.device))
    with distributed.fail_on_all_ranks():
        start_anew(run, force, stores, init_from, Path(teacher) if teacher else None)
    made = pretrain(stores, run, settings, split or ["train"], init_from, measure)
    if (
        distributed.rank() == 0
    ):  # the other verbs share no work: there every process prints, whoever started it
        _out(f"{made}\n")


def finetune_command(
    stores: Annotated[
        list[Path], typer.Argument(help="Stores with transcripts; among them splits train and dev.")
    ],
    run: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    init_from: Annotated[
        str, typer.Option(help="Run or model folder the encoder comes from; none = random weights.")
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Labelled minutes to use, a seeded choice; else all.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="chars, bpe:N or unigram:N.")] = None,
    freeze_encoder: Annotated[
        bool, typer.Option("--freeze-encoder", help="Only the head learns.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="What label wrote: transcripts for chunks of train that have none."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help=f"Share of the labels to learn from, the most confident; else {KEEP}."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Default: what the encoder was pretrained with.")
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train a CTC recogniser on a small transcribed subset."""
    flags = [f"minutes={minutes}"] if minutes is not None else []
    flags += [f"tokenizer={tokenizer}"] if tokenizer is not None else []
    flags += ["ctc.frozen=true"] if freeze_encoder else []
    origin = None if init_from == "none" else Path(init_from)
    settings = finetune_settings(origin, preset, parse_overrides([*flags, *(set_ or [])]))
    distributed.start(pick_device(settings.train.device))
    if keep is not None and labels is None:
        raise ConfigError("--keep is of the labels: give these as --labels, or leave --keep out")

    def begin() -> None:
        with distributed.fail_on_all_ranks():
            start_anew(run, force, stores, origin, labels)

    finetune(stores, run, settings, origin, labels, KEEP if keep is None else keep, begin)
    if distributed.rank() == 0:
        _out(f"{run / 'model'}\n")
