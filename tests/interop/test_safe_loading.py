"""Files of strangers that are damaged, hostile or of another kind: each is one error."""

import json
from pathlib import Path

import pytest

from speechssl.errors import CheckpointError
from speechssl.interop.safe_loading import read_json, read_tensors


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_tensors(folder)


@pytest.mark.parametrize("table", [{"weight_map": ["a"]}, {"weight_map": {"a": 1}}, {"x": 1}])
def test_an_index_without_a_table_is_refused(tmp_path: Path, table: dict[str, object]) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="no weight_map from names to files"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04N.", b"PK\x03\x04"])
def test_what_is_no_torch_file_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"not a torch file|is refused|other things than tensors"
    ):
        read_tensors(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_what_is_no_json_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        read_json(tmp_path / "config.json", dict)


def test_another_kind_of_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match="holds a dict, not a list"):
        read_json(tmp_path / "labels.json", list)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_tensors(tmp_path)
