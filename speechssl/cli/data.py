"""``speechssl prepare`` and ``manifest``: recordings to a feature store, or to other toolkits.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

from collections import defaultdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechssl.cli.app import ALL_FAILED, SOME_FAILED, write_stdout
from speechssl.config import build
from speechssl.corpus.layouts import JSONL_SUFFIXES, scan
from speechssl.corpus.manifest import Manifest, printable, write_jsonl
from speechssl.data.rejects import first_few, read_rejects
from speechssl.data.settings import PrepareConfig
from speechssl.errors import ConfigError, ManifestError
from speechssl.runtime.log import HoursProgress, log

if TYPE_CHECKING:
    from speechssl.data.prepare import PrepareReport

# The options' defaults are those of the settings, so that each stands in one place.
DEFAULTS = PrepareConfig()

SourceArgument = Annotated[
    Path, typer.Argument(help="Audio folder, .jsonl, metadata.csv, Kaldi folder, fairseq .tsv.")
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="Folder of a JSONL manifest's or Kaldi folder's audio; else its own."),
]
IgnoreOption = Annotated[
    bool,
    typer.Option(
        "--ignore-transcripts",
        help="Go on although something looks like transcripts and is not read.",
    ),
]


class Features(StrEnum):
    """What a store holds."""

    logmel = "logmel"
    waveform = "waveform"


class ManifestFormat(StrEnum):
    """What other toolkits read."""

    jsonl = "jsonl"
    kaldi = "kaldi"
    fairseq = "fairseq"


def prepare_command(
    source: SourceArgument,
    store: Annotated[Path, typer.Argument(help="Folder to write.")],
    root: RootOption = None,
    features: Annotated[
        Features, typer.Option(help="What the encoder will read.")
    ] = Features.logmel,
    min_chunk: Annotated[
        float, typer.Option(help="Shortest chunk of unlabelled audio, seconds.")
    ] = DEFAULTS.min_chunk_s,
    max_chunk: Annotated[
        float, typer.Option(help="Longest chunk of unlabelled audio, seconds.")
    ] = DEFAULTS.max_chunk_s,
    silence_db: Annotated[
        float, typer.Option(help="Silence is this far below the loudest part around it, dB.")
    ] = DEFAULTS.top_db,
    max_duration: Annotated[
        float, typer.Option(help="A file longer than this is rejected, seconds.")
    ] = DEFAULTS.max_duration_s,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Share of bad files above which the exit code is 3.")
    ] = DEFAULTS.max_bad_fraction,
    dev_share: Annotated[
        float | None,
        typer.Option(help="Share of the transcribed audio for dev; else 0.1 where none is given."),
    ] = DEFAULTS.dev,
    test_share: Annotated[
        float | None,
        typer.Option(help="Share of the transcribed audio for test; else 0.1 where none is given."),
    ] = DEFAULTS.test,
    ignore_transcripts: IgnoreOption = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 1,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete the store that is there, finished or not, and make it anew. Other files "
            "of its folder stay.",
        ),
    ] = False,
) -> None:
    """Recordings -> validated manifest + feature store, every second accounted for."""
    table = {
        "features": {"kind": features.value},
        "min_chunk_s": min_chunk,
        "max_chunk_s": max_chunk,
        "top_db": silence_db,
        "max_duration_s": max_duration,
        "max_bad_fraction": max_bad_fraction,
        "dev": dev_share,
        "test": test_share,
    }
    config = build(PrepareConfig, table)

    with HoursProgress() as progress:
        given = scan(source, root, ignore_transcripts)

        from speechssl.audio.channels import channels_line
        from speechssl.data.prepare import prepare

        report = prepare(given, store, config, jobs=jobs, force=force, progress=progress)

    write_stdout(report.table() + "\n")
    _log_unused(report, store)
    channels = channels_line(report.num_files, report.num_dual_mono, report.num_averaged)
    if channels:
        log(channels)
    _log_levels(report)
    _log_left_out(report, config)

    nothing_kept = report.num_files > 0 and report.kept.chunks == 0
    if report.all_bad or nothing_kept:
        raise typer.Exit(ALL_FAILED)
    if report.too_many_bad:
        raise typer.Exit(SOME_FAILED)


def _log_unused(report: "PrepareReport", store: Path) -> None:
    """Say of which recordings nothing is used, by reason."""
    if not report.num_reject_lines:
        return

    log(
        f"{report.num_rejected} of {report.num_files} files rejected, "
        f"{report.num_reject_lines} lines in {store / 'rejects.jsonl'} (one for each recording or "
        "part of which nothing is used)"
    )

    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in read_rejects(store):
        by_reason[row["reason"]].append(row["audio"])

    for reason, audio in sorted(by_reason.items()):
        # A file with several parts has as many lines.
        names = list(dict.fromkeys(audio))
        log(f"{reason}: {len(audio)} ({first_few(names)})")


def _log_levels(report: "PrepareReport") -> None:
    """Say in how many chunks the level was changed."""
    if report.num_raised:
        log(
            f"quiet speech was raised in {report.num_raised} of {report.kept.chunks} chunks, by "
            f"up to {report.max_gain_db:.1f} dB"
        )
    if report.num_lowered:
        log(
            f"bangs were lowered in {report.num_lowered} of {report.kept.chunks} chunks, by "
            f"up to {report.max_lowering_db:.1f} dB"
        )


def _log_left_out(report: "PrepareReport", config: PrepareConfig) -> None:
    """Say how much was too short or silent, and why nothing was kept."""
    from speechssl.data.account import SILENCE, TOO_SHORT, Tally

    nothing = Tally()
    short_s = report.dropped.get(TOO_SHORT, nothing).samples / report.sample_rate_hz
    if round(short_s, 1) > 0:
        log(
            f"{short_s:.1f} s of speech were left out: chunks last {config.min_chunk_s:g} s or "
            "more (--min-chunk)"
        )

    silent_s = report.dropped.get(SILENCE, nothing).samples / report.sample_rate_hz
    if silent_s:
        log(
            f"{silent_s:.1f} s were left out as silence: {config.top_db:g} dB or more below the "
            "loudest part around (--silence-db)"
        )

    if report.num_files and not report.kept.chunks and not report.all_bad:
        log(
            "nothing was kept: chunks last "
            f"{config.min_chunk_s:g} s (--min-chunk) to {config.max_chunk_s:g} s (--max-chunk); "
            "the account above says what was dropped"
        )


def manifest_command(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="File (jsonl) or folder (kaldi, fairseq) to write.")],
    to: Annotated[ManifestFormat, typer.Option(help="What the other toolkit reads.")],
    root: RootOption = None,
    ignore_transcripts: IgnoreOption = False,
) -> None:
    """Recordings, or a manifest of them -> a manifest for another toolkit."""
    _check_target(out, to)
    manifest = scan(source, root, ignore_transcripts)
    _check_audio(manifest)

    from speechssl.corpus.export import write_fairseq, write_kaldi

    if to is ManifestFormat.jsonl:
        write_jsonl(manifest, out)
    elif to is ManifestFormat.kaldi:
        write_kaldi(manifest, out)
    else:
        write_fairseq(manifest, out)

    write_stdout(f"{out}\n")
    _log_what_is_left_out(manifest, out, to)


def _check_target(out: Path, to: ManifestFormat) -> None:
    """See that nothing is overwritten, and that ``prepare`` knows a JSONL manifest by its name."""
    is_empty_folder = out.is_dir() and not any(out.iterdir())
    may_be_there = is_empty_folder and to is not ManifestFormat.jsonl
    if out.exists() and not may_be_there:
        raise ConfigError(f"{out} is there already: remove it, or give another place to write to")

    if to is ManifestFormat.jsonl and out.suffix.lower() not in JSONL_SUFFIXES:
        allowed = " or ".join(JSONL_SUFFIXES)
        raise ConfigError(
            f"{out}: a JSONL manifest is known by its suffix: let it end in {allowed}"
        )


def _check_audio(manifest: Manifest) -> None:
    """See that the audio lies where the manifest says; the formats themselves do not tell."""
    paths = sorted({record.audio for record in manifest.records})
    missing = [path for path in paths if not (manifest.root / path).is_file()]
    if not missing:
        return

    example = printable(missing[0])
    if len(missing) == len(paths):
        raise ManifestError(
            f"none of the {len(paths)} recordings lies in {manifest.root}, {example} for one: give "
            "the audio's folder as --root, or move the manifest there"
        )
    log(f"{len(missing)} of {len(paths)} recordings are not there, {example} for one")


def _log_what_is_left_out(manifest: Manifest, out: Path, to: ManifestFormat) -> None:
    """Say what the written form does not hold."""
    splits = sorted({record.split for record in manifest.records if record.split is not None})
    if to is ManifestFormat.kaldi and len(splits) > 1:
        log(f"a Kaldi folder has no splits: those of the source ({', '.join(splits)}) are left out")

    audio_folder = manifest.root.resolve()
    is_below = audio_folder.is_relative_to(out.parent.resolve())
    if to is ManifestFormat.jsonl and not is_below:
        log(f"the audio lies elsewhere: prepare reads {out} with --root {audio_folder}")
