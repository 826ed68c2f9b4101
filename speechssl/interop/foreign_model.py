"""A model of another library on its way into ours: its files of weights, its order of tokens."""

import json
import pickle  # only the class of its error: nothing is unpickled here
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from speechssl.config import Table
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import CheckpointError

J = TypeVar("J", dict[str, Any], list[Any])
NEVER = -1e4  # logit of a token that another library's head does not have: its probability is 0 in float32


@dataclass(frozen=True)
class Foreign:
    """A model of another library, read as one of ours."""

    encoder: EncoderConfig
    tensors: Mapping[str, Tensor]
    """under our names, ``encoder.`` before the encoder's; with a head a recogniser, with a codebook an objective"""
    run: Callable[[Tensor], tuple[Tensor, ...]]
    """(S,) float32 samples -> what the original computes of them, as ``convert.outputs`` lists it for ours"""
    tokens: tuple[str, ...] = ()
    """of a recogniser: texts by id, the blank and the unknown token first"""
    settings: Table | None = None
    """of an objective: tables ``quantizer`` and ``objective``"""


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder: ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards with an index.

    Raises:
        CheckpointError: there are none, or a file is damaged or holds anything but tensors.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return read_weights(folder / name)
        if index.exists():
            table = read_json(index, dict).get("weight_map")
            if not isinstance(table, dict) or not all(isinstance(shard, str) for shard in table.values()):
                raise CheckpointError(f"{index} has no weight_map from names to files")
            shards = sorted(set(table.values()))
            if any(Path(shard).name != shard for shard in shards):
                raise CheckpointError(f"{index} names files outside its folder")
            return {key: t for shard in shards for key, t in read_weights(folder / shard).items()}
    raise CheckpointError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, whole or in shards"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors or torch file; of the latter only tensors are loaded, nothing else is run.

    Raises:
        CheckpointError: damaged, or it holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path} is not a safetensors file that can be read: {error}") from error
    loaded = load_torch(path)
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path} holds other things than tensors by name: give a file of weights")
    return loaded


def load_torch(path: Path, allowed: tuple[type, ...] = ()) -> Any:
    """What ``torch.save`` wrote: tensors, containers of them, and objects of the ``allowed`` classes.

    Raises:
        CheckpointError: damaged, or an object of any other class, which is refused before anything of it is run.
    """
    try:
        # Its warnings, of old formats, are followed by an error that says as much.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([*allowed]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"an object of {named[1]}" if named else "something that is no tensor"
        raise CheckpointError(
            f"{path} is refused: it holds {what}, and only weights are read; nothing was run"
        ) from error
    except Exception as error:  # on what it did not write, torch ends in errors of many classes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a torch file that can be read: {reason}") from error


def read_json(path: Path, kind: type[J]) -> J:
    """What a JSON file holds: a table (``dict``) or a list.

    Raises:
        CheckpointError: it is missing, no JSON, or holds another kind of value.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def our_token_order(names: Sequence[str], blank: int, unknown: int) -> tuple[tuple[str, ...], list[int]]:
    """Tokens with the blank at 0 and the unknown token at 1, the others in their order.

    Args:
        names: text of each row of a foreign head.
        blank, unknown: their rows; -1 = there is none.

    Returns:
        the texts in our order, and for each its row; -1 for an unknown token that is not there.

    Raises:
        CheckpointError: there is no row for the blank.
    """
    if blank < 0:
        raise CheckpointError("the vocabulary has no id within the CTC head for its padding token, which is the blank")
    rows = [blank, unknown, *(row for row in range(len(names)) if row not in (blank, unknown))]
    return tuple(names[row] if row >= 0 else "<unk>" for row in rows), rows


def take_rows(values: Tensor, rows: Sequence[int], absent: float) -> Tensor:
    """``values[..., rows]`` along the last axis, with ``absent`` where the row is -1."""
    taken = values[..., [max(0, row) for row in rows]]
    return taken.masked_fill(torch.tensor([row < 0 for row in rows]), absent)


def with_rows(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Our tensors with the rows of the head in this order; -1 becomes a token that is never recognised."""
    weight = take_rows(tensors["head.weight"].T, rows, 0.0).T.contiguous()
    return {**tensors, "head.weight": weight, "head.bias": take_rows(tensors["head.bias"], rows, NEVER)}
