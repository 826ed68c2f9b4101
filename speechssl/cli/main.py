"""The ``speechssl`` command: all verbs in pipeline order, and errors as one line."""

import signal
import sys
import traceback

import torch

from speechssl.cli import analysis, data, interop, lexicon, recognition, training
from speechssl.cli.app import GLOBAL_OPTIONS, app
from speechssl.errors import SpeechsslError
from speechssl.runtime.log import one_line

# In the order in which --help lists them: the order of the pipeline.
app.command("prepare")(data.prepare_command)
app.command("manifest")(data.manifest_command)
app.add_typer(lexicon.lexicon, name="lexicon")
app.command("pretrain")(training.pretrain_command)
app.command("finetune")(training.finetune_command)
app.command("lm")(recognition.lm_command)
app.command("tune-lm")(recognition.tune_lm_command)
app.command("label")(recognition.label_command)
app.command("evaluate")(recognition.evaluate_command)
app.command("compare")(recognition.compare_command)
app.command("transcribe")(recognition.transcribe_command)
app.command("probe")(analysis.probe_command)
app.command("import")(interop.import_command)
app.command("export")(interop.export_command)
app.add_typer(analysis.bench, name="bench")


def main() -> None:
    """Run the command; an error that a user can cause becomes one line and exit code 1."""
    try:
        app()
    except SystemExit as leaving:
        if leaving.code == 128 + signal.SIGINT:
            advice = "give the command again, without --force"
            print(f"speechssl: interrupted: {advice}", file=sys.stderr)
        raise
    except (SpeechsslError, OSError, torch.OutOfMemoryError) as error:
        if GLOBAL_OPTIONS.debug:
            traceback.print_exc()
        print(f"speechssl: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
