"""``speechssl prepare``: recordings to a feature store."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speechssl.cli.app import ALL_FAILED, SOME_FAILED, ForceOption, write_stdout
from speechssl.config import build
from speechssl.corpus.layouts import scan
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.runtime.log import HoursProgress, log


class Features(StrEnum):
    """What a store holds."""

    logmel = "logmel"
    waveform = "waveform"


def prepare_command(
    source: Annotated[
        Path, typer.Argument(help="Audio folder, .jsonl, metadata.csv, Kaldi folder, fairseq .tsv.")
    ],
    store: Annotated[Path, typer.Argument(help="Folder to write.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of a JSONL manifest's or Kaldi folder's audio; else its own."),
    ] = None,
    features: Annotated[
        Features, typer.Option(help="What the encoder will read.")
    ] = Features.logmel,
    min_chunk: Annotated[
        float, typer.Option(help="Shortest chunk of unlabelled audio, seconds.")
    ] = 2.0,
    max_chunk: Annotated[
        float, typer.Option(help="Longest chunk of unlabelled audio, seconds.")
    ] = 15.0,
    max_duration: Annotated[
        float, typer.Option(help="A file longer than this is rejected, seconds.")
    ] = 21600.0,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Share of bad files above which the exit code is 3.")
    ] = 0.05,
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
    write_stdout(report.table() + "\n")
    if report.num_reject_lines:
        whole, lines = (
            f"{report.num_rejected} of {report.num_files} files rejected",
            report.num_reject_lines,
        )
        log(f"{whole}, {lines} lines in {store / 'rejects.jsonl'} (one for each part of a file)")
    if report.all_bad:
        raise typer.Exit(ALL_FAILED)
    if report.too_many_bad:
        raise typer.Exit(SOME_FAILED)
