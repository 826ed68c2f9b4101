"""The verbs for models of other libraries: import and export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speechssl.cli.app import write_stdout
from speechssl.interop.convert import Conversion, export_model, import_model
from speechssl.runtime.log import log


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
    _converted(import_model(source, model, language), model)


def export_command(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[
        ExportFormat, typer.Option(help="hf = transformers; onnx takes recognisers only.")
    ],
) -> None:
    """Write a model for transformers, torchaudio or onnxruntime, and compare both on audio."""
    _converted(export_model(model, out, to.value), out)


def _converted(conversion: Conversion, path: Path) -> None:
    log(
        f"{conversion.kind}: both models run on audio, "
        f"largest difference {conversion.difference:.1e}"
    )
    write_stdout(f"{path}\n")
