"""The verbs that measure: probe, and bench with a verb for each part.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from speechssl.analysis.probe_targets import PROBE_JSON, PROBE_PNG, probe_stores
from speechssl.cli.app import (
    PROBES_HELP,
    BatchSecondsOption,
    SetOption,
    write_stdout,
)
from speechssl.cli.data import Features
from speechssl.cli.inputs import check_models, check_stores
from speechssl.cli.outputs import check_output
from speechssl.config import Table, parse_overrides
from speechssl.errors import ConfigError
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.runtime.log import log
from speechssl.storage.atomic import check_is_file, write_atomic
from speechssl.storage.json_text import as_json


def probe_command(
    model: Annotated[
        Path, typer.Argument(help="Run or model folder, of pretraining or fine-tuned.")
    ],
    probes: Annotated[list[str], typer.Argument(metavar="TARGET=STORE...", help=PROBES_HELP)],
    minutes: Annotated[
        float, typer.Option(help="Labelled minutes that the probe of characters learns from.")
    ] = 10.0,
    seed: Annotated[
        int, typer.Option(help="Of the minutes, of what is held out, and of the random encoder.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for probe.json and probe.png.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the probe.json and probe.png that are there.")
    ] = False,
) -> None:
    """Probe what each layer of a frozen encoder knows, beside log-mel and random weights."""
    if out is not None:
        for name in (PROBE_JSON, PROBE_PNG):
            check_output(out / name, force)

    stores = probe_stores(probes)
    check_models(model)
    check_stores(stores.values())

    from speechssl.analysis.probe_report import as_text, write_probes
    from speechssl.analysis.probing import probe
    from speechssl.encoder.encoder import load_encoder
    from speechssl.runtime.device import pick_device

    results = probe(
        load_encoder(model).to(pick_device("auto")), stores, minutes, seed, progress=log
    )
    if out is not None:
        write_probes(
            results,
            out,
            {"model": str(model)} | {target: str(path) for target, path in stores.items()},
        )
    write_stdout(as_text(results))


def _require_new(path: Path | None) -> Path | None:
    """Refuse a file that exists, before anything is measured."""
    if path is not None:
        check_is_file(path, "--json")
        if path.exists():
            raise ConfigError(f"{path} is there already: give another --json, or remove it")
    return path


bench = typer.Typer(
    no_args_is_help=True,
    help="How fast it is here, how much memory it takes, where the time goes, and how far it is "
    "from the best of the machine.",
)
PresetOption = Annotated[
    str, typer.Option(help="minutes, tiny, small, base, large, or a .toml file.")
]
SecondsOption = Annotated[float, typer.Option(help="Synthetic audio to work on, seconds.")]
UpdatesOption = Annotated[
    int, typer.Option("--repeats", help="Updates to time, after two of warm-up.")
]
RepeatsOption = Annotated[int, typer.Option(help="Times to repeat it, after one of warm-up.")]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", callback=_require_new, help="New file to write the measures to."),
]


@bench.command("prepare")
def bench_prepare_command(
    source: Annotated[
        Path | None, typer.Argument(help="What prepare reads; else synthetic recordings.")
    ] = None,
    features: Annotated[
        Features, typer.Option(help="What the encoder will read.")
    ] = Features.logmel,
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes beside this one; they take seconds to start.")
    ] = 0,
    seconds: SecondsOption = 1800.0,
    repeats: RepeatsOption = 5,
    json_: JsonOption = None,
) -> None:
    """Recordings -> feature store, beside a loop that only decodes them."""
    from speechssl.analysis.bench_prepare import bench_prepare

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
        from speechssl.analysis.bench_training import bench_training

        _measured(
            bench_training(verb, preset, parse_overrides(set_ or []), seconds, repeats), json_
        )

    return command


bench.command(
    "pretrain",
    help="Updates of pretraining. An update takes batch.seconds of the audio: set less of it for "
    "large models on a CPU.",
)(_bench_training_command("pretrain"))
bench.command("finetune", help="Updates of fine-tuning, once more than the head learns.")(
    _bench_training_command("finetune")
)


@bench.command("transcribe")
def bench_transcribe_command(
    model: Annotated[
        Path | None, typer.Option(help="Run or model folder; else random weights of --preset.")
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="File or folder (repeatable); else synthetic audio.")
    ] = None,
    preset: PresetOption = "tiny",
    seconds: SecondsOption = 600.0,
    batch_seconds: BatchSecondsOption = BATCH_SECONDS,
    repeats: RepeatsOption = 5,
    json_: JsonOption = None,
) -> None:
    """Files -> text."""
    check_models(model)

    from speechssl.analysis.bench_transcription import bench_transcribe

    _measured(bench_transcribe(model, audio or [], preset, seconds, batch_seconds, repeats), json_)


def _measured(table: Table, path: Path | None) -> None:
    from speechssl.analysis.benchmark import as_text

    write_stdout(as_text(table))
    if path:
        write_atomic(path, as_json(table))
