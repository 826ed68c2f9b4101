"""The verbs in pipeline order. Each is imported when it is called: some need no torch."""

import re
from importlib import import_module
from typing import Any

from typer import BadParameter, Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from speechssl.errors import ConfigError

# File of this folder and name in it, in the order in which --help lists the verbs.
VERBS = {
    "prepare": ("data", "prepare_command"),
    "manifest": ("data", "manifest_command"),
    "lexicon": ("lexicon", "lexicon"),
    "pretrain": ("training", "pretrain_command"),
    "finetune": ("training", "finetune_command"),
    "lm": ("lm", "lm_command"),
    "tune-lm": ("recognition", "tune_lm_command"),
    "label": ("recognition", "label_command"),
    "evaluate": ("recognition", "evaluate_command"),
    "compare": ("recognition", "compare_command"),
    "transcribe": ("recognition", "transcribe_command"),
    "probe": ("analysis", "probe_command"),
    "import": ("interop", "import_command"),
    "export": ("interop", "export_command"),
    "bench": ("analysis", "bench"),
}


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Verb(TyperCommand):
    """A verb, which says of an option that is missing what to give."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; the message of a missing option ends in the option's help.

        Raises:
            ConfigError: a path is an address: as an output it would become a folder "s3:".
        """
        for argument in args:
            value = argument.partition("=")[2] if argument.startswith("--") else argument
            if _ADDRESS.match(value):
                raise ConfigError(
                    f"{value} is an address, and only files on this machine are read and written: "
                    "download what it names first, and give paths"
                )

        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            # Of errors in a value, the message says what is wrong. Of a missing one there is none.
            if not error.message:
                error.message = getattr(error.param, "help", None) or ""
            raise


class Verbs(TyperGroup):
    """All verbs of the command line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the verbs in order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one verb; None if there is none of this name."""
        if cmd_name not in VERBS:
            return None

        file, name = VERBS[cmd_name]
        module = import_module(f"speechssl.cli.{file}")
        verb = getattr(module, name)

        # lexicon and bench are applications with verbs of their own.
        if not isinstance(verb, Typer):
            alone = Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(cmd_name)(verb)
            verb = alone

        for registered in verb.registered_commands:
            registered.cls = Verb

        command = get_command(verb)
        command.name = cmd_name
        return command
