"""Files of other libraries, read without running anything in them."""

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

J = TypeVar("J", dict[str, Any], list[Any])


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
            if not isinstance(table, dict) or not all(
                isinstance(shard, str) for shard in table.values()
            ):
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
            raise CheckpointError(
                f"{path} is not a safetensors file that can be read: {error}"
            ) from error
    loaded = load_torch(path)
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(
            f"{path} holds other things than tensors by name: give a file of weights"
        )
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
