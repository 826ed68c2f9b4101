"""The ``speechssl`` command: all verbs, and errors as one line."""

import signal
import sys
import traceback

from speechssl.cli.app import GLOBAL_OPTIONS, app
from speechssl.errors import SpeechsslError
from speechssl.runtime.log import is_out_of_memory, one_line
from speechssl.runtime.processes import exit_on_end_signals

# Verbs that --force starts anew, and that go on from there without it.
GOES_ON = ("prepare", "pretrain", "finetune", "transcribe")


def main() -> None:
    """Run the command; an error that a user can cause becomes one line and exit code 1."""
    with exit_on_end_signals():
        _run()


def _run() -> None:
    try:
        app()
    except SystemExit as leaving:
        if leaving.code == 128 + signal.SIGINT:
            advice = "give the command again"
            verb = next((one for one in sys.argv[1:] if not one.startswith("-")), None)
            if verb in GOES_ON:
                advice += ", without --force"
            print(f"speechssl: interrupted: {advice}", file=sys.stderr)
        raise
    except (SpeechsslError, OSError, RuntimeError) as error:
        # Of torch's errors, which are RuntimeErrors, a user can cure this one only.
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise

        if GLOBAL_OPTIONS.debug:
            traceback.print_exc()
        print(f"speechssl: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
