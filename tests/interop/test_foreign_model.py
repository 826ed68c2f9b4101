"""The order of tokens, and the rows of a head in it."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import CheckpointError
from speechssl.interop.foreign_model import NEVER, our_token_order, take_rows, with_rows
from speechssl.interop.safe_loading import read_json, read_tensors


@given(st.data(), st.integers(3, 9))
def test_every_row_is_there_once_the_blank_first_the_unknown_token_second(
    data: st.DataObject, size: int
) -> None:
    names = [f"token {i}" for i in range(size)]
    blank = data.draw(st.integers(0, size - 1))
    unknown = data.draw(st.integers(-1, size - 1).filter(lambda row: row != blank))
    texts, rows = our_token_order(names, blank, unknown)
    assert rows[:2] == [blank, unknown]
    assert sorted(row for row in rows if row >= 0) == list(range(size))
    assert rows[2:] == sorted(rows[2:])
    assert list(texts) == [names[row] if row >= 0 else "<unk>" for row in rows]


def test_a_vocabulary_without_a_blank_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the blank"):
        our_token_order(["a", "b", "c"], -1, 0)


def test_rows_are_taken_and_an_absent_one_is_never_heard() -> None:
    values = torch.arange(6.0).view(2, 3)
    assert take_rows(values, [2, -1, 0], 9.0).tolist() == [[2, 9, 0], [5, 9, 3]]
    head = {
        "head.weight": torch.arange(6.0).view(3, 2),
        "head.bias": torch.arange(3.0),
        "other": torch.ones(1),
    }
    found = with_rows(head, [2, -1, 0])
    assert found["head.weight"].tolist() == [[4, 5], [0, 0], [0, 1]]
    assert found["head.bias"].tolist() == [2, NEVER, 0]
    assert found["other"] is head["other"]


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
