"""Read weights and settings from files of other libraries without running any code in them."""

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from speechssl.errors import CheckpointError
from speechssl.storage.text_files import read_text

# Files of weights in a Hugging Face folder, the preferred one first.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

J = TypeVar("J", dict[str, Any], list[Any])


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a folder, which are in one file or in shards with an index.

    The files are ``model.safetensors`` or ``pytorch_model.bin``.

    Raises:
        CheckpointError: there are none, or a file is damaged or holds anything but tensors.
    """
    for name in _WEIGHT_FILES:
        if (folder / name).exists():
            return read_weights(folder / name)

        index = folder / f"{name}.index.json"
        if index.exists():
            return _read_shards(index)

    raise CheckpointError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, "
        "whole or in shards"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one safetensors or torch file, of which only tensors are loaded.

    Raises:
        CheckpointError: damaged, or it holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path} is not a safetensors file that can be read: {error}"
            ) from error

    loaded = load_torch(path)
    only_tensors = isinstance(loaded, dict) and all(isinstance(t, Tensor) for t in loaded.values())
    if not only_tensors:
        raise CheckpointError(
            f"{path} holds other things than tensors by name: give a file of weights"
        )
    return dict(loaded)


def load_torch(path: Path, allowed: tuple[type, ...] = ()) -> Any:
    """Load what ``torch.save`` wrote: tensors, their containers, objects of ``allowed`` classes.

    Raises:
        CheckpointError: damaged, or an object of any other class, which is refused before any of
            its code is run.
    """
    try:
        # Torch warns of old formats; an error follows that says as much.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([*allowed]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused_class = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused_class:
            what = f"an object of {refused_class[1]}"
        else:
            what = "something that is no tensor"

        raise CheckpointError(
            f"{path} is refused: it holds {what}, and only weights are read; nothing was run"
        ) from error
    # On what it did not write, torch ends in errors of many classes.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a torch file that can be read: {reason}") from error


def read_json(path: Path, kind: type[J]) -> J:
    """Read a JSON file that holds a table (``dict``) or a list.

    Raises:
        CheckpointError: it is missing, no JSON, or holds another kind of value.
    """
    text = read_text(path, "JSON", CheckpointError)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error

    if not isinstance(value, kind):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the weights of all files that an index names."""
    file_of_weight: Any = read_json(index, dict).get("weight_map")
    is_table = isinstance(file_of_weight, dict) and all(
        isinstance(shard, str) for shard in file_of_weight.values()
    )
    if not is_table:
        raise CheckpointError(f"{index} has no weight_map from names to files")

    shards = sorted(set(file_of_weight.values()))
    # A path in a name could reach any file of this machine.
    if any(Path(shard).name != shard for shard in shards):
        raise CheckpointError(f"{index} names files outside its folder")

    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= read_weights(index.parent / shard)
    return tensors
