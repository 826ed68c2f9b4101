"""The ``speechssl`` command: verbs in pipeline order, each parses, calls the library, prints. Exit codes live here.

0 done; 1 a problem with input or settings (one line on stderr); 2 wrong usage; 3 some inputs failed (of
prepare more than --max-bad-fraction), the rest are done; 4 all inputs failed; 130 interrupted, 143 SIGTERM, in training
after a checkpoint.
"""

from typing import Annotated

import typer

from speechssl import __version__

SOME_FAILED, ALL_FAILED = 3, 4

HELP = """Learn speech representations without labels, recognise speech with few.

Exit codes: 0 done; 1 a problem with input or settings, in one line; 2 wrong usage; 3 some inputs failed (of
prepare more than --max-bad-fraction), the rest are done; 4 all inputs failed; 130 interrupted, 143 SIGTERM, in training
after a checkpoint."""
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP
)
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, such as optim.lr=0.001 (repeatable)."),
]
PROBES_HELP = "What to ask of which store: characters, keyword (first folder), digit (whole transcript) or speaker."
BatchSecondsOption = Annotated[
    float, typer.Option(help="Audio recognised at once, seconds: memory, not the texts.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Delete what is there and start anew.")]


def _out(text: str) -> None:
    """Data to stdout: UTF-8 whatever the locale, and the bytes of file names as they are."""
    typer.echo(text.encode("utf-8", "surrogateescape"), nl=False)


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
