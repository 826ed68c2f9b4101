"""Entry point of the ``speechssl`` command: all verbs, and errors as one line."""

import signal
import sys
import traceback

import torch

from speechssl.cli import analysis, data, interop, recognition, training
from speechssl.cli.app import DEBUG, app
from speechssl.errors import SpeechsslError
from speechssl.runtime.log import one_line


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
