"""What all verbs share: the application, common options, exit codes, how data is printed."""

from dataclasses import dataclass
from typing import Annotated

import typer

from speechssl import __version__
from speechssl.cli.verbs import Verbs

# Exit codes when some inputs failed and the others are done, and when all failed.
SOME_FAILED = 3
ALL_FAILED = 4

HELP = """Learn speech representations without labels, recognise speech with few.

Exit codes: 0 done; 1 a problem with input or settings, in one line; 2 wrong usage; 3 some inputs
failed (of prepare more than --max-bad-fraction), the rest are done; 4 all inputs failed; 129 the
terminal was closed (SIGHUP), 130 interrupted, 143 SIGTERM, in training after a checkpoint."""
PROBES_HELP = (
    "What to ask of which store: characters, keyword (first folder), digit (whole transcript) "
    "or speaker."
)

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=HELP,
)


@dataclass
class GlobalOptions:
    """Options that stand before the verb.

    Attributes:
        debug: an error shows its traceback.
    """

    debug: bool = False


GLOBAL_OPTIONS = GlobalOptions()

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, such as optim.lr=0.001 (repeatable)."),
]
BatchSecondsOption = Annotated[
    float, typer.Option(help="Audio recognised at once, seconds: memory, not the texts.")
]
ReplaceOption = Annotated[bool, typer.Option("--force", help="Replace the file that is there.")]


def write_stdout(text: str) -> None:
    """Print data: in UTF-8 whatever the locale, and with the bytes of file names as they are."""
    typer.echo(text.encode("utf-8", "surrogateescape"), nl=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Learn speech representations without labels, and recognise speech with few."""
    GLOBAL_OPTIONS.debug = debug
