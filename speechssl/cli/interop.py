"""The verbs for models of other libraries: import and export.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechssl.cli.app import write_stdout
from speechssl.cli.inputs import check_models
from speechssl.runtime.log import log
from speechssl.storage.wrong_paths import check_exists

if TYPE_CHECKING:
    from speechssl.interop.convert import Conversion


class ExportFormat(StrEnum):
    """Who reads an exported model."""

    hf = "hf"
    torchaudio = "torchaudio"
    onnx = "onnx"


def import_command(
    source: Annotated[
        Path, typer.Argument(help="Hugging Face folder, torchaudio state_dict, or fairseq .pt.")
    ],
    model: Annotated[Path, typer.Argument(help="Model folder to write.")],
    language: Annotated[
        str | None, typer.Option(help="Adapter and vocabulary of an MMS model, such as deu.")
    ] = None,
) -> None:
    """Turn a model of another library into a model folder, and compare both on audio."""
    check_exists(source, "model")

    from speechssl.interop.convert import import_model

    _converted(import_model(source, model, language), model)


def export_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[
        ExportFormat, typer.Option(help="hf = transformers; onnx takes recognisers only.")
    ],
) -> None:
    """Write a model for transformers, torchaudio or onnxruntime, and compare both on audio."""
    check_models(model)

    from speechssl.interop.convert import export_model

    _converted(export_model(model, out, to.value), out)


def _converted(conversion: "Conversion", path: Path) -> None:
    log(
        f"{conversion.kind}: both models run on audio, "
        f"largest difference {conversion.difference:.1e}"
    )
    write_stdout(f"{path}\n")
