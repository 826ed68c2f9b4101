"""JSON on disk: equal values give equal bytes, any path fits, a kill costs a line at most."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.storage.json_text import (
    Row,
    as_json,
    ascii_json_line,
    json_line,
    read_json_lines,
)

# Every character there is, lone surrogates among them.
ANY_TEXT = st.text(st.characters(exclude_categories=[]))


def test_settings_are_the_same_text_in_any_order() -> None:
    assert as_json({"b": 1, "a": "é"}) == as_json({"a": "é", "b": 1})
    assert as_json({"a": "é"}) == '{\n  "a": "é"\n}\n'


@pytest.mark.parametrize("write", [as_json, json_line, ascii_json_line])
@given(rows=st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.lists(ANY_TEXT)))
def test_what_is_written_is_utf8_and_reads_back_equal(
    write: Callable[[Row], str], rows: Row
) -> None:
    text = write(rows)

    assert text.endswith("\n")
    assert json.loads(text.encode("utf-8")) == rows


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_a_line_is_one_line_however_lines_are_told_apart(row: Row) -> None:
    assert json_line(row).count("\n") == 1
    assert len(ascii_json_line(row).splitlines()) == 1


def test_a_line_is_readable_where_it_can_be() -> None:
    assert json_line({"text": "é"}) == '{"text": "é"}\n'
    assert (
        json_line({"audio": "\udcff", "text": "é"}) == '{"audio": "\\udcff", "text": "\\u00e9"}\n'
    )
    assert ascii_json_line({"text": "é"}) == '{"text": "\\u00e9"}\n'


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": 1, "loss": 2.5}, {"step": 2}]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(map(json_line, rows)), encoding="utf-8")

    assert read_json_lines(path) == rows
    assert read_json_lines(tmp_path / "missing.jsonl") == []


def test_every_cut_of_the_file_gives_the_whole_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Row] = [{"step": i, "loss": 1.5, "note": "é"} for i in range(3)]
    content = "".join(map(json_line, rows)).encode()
    path = tmp_path / "m.jsonl"

    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        found = read_json_lines(path)
        assert found == rows[: len(found)]
        assert len(found) >= content[:cut].count(b"\n")

    assert not caplog.records


TORN = b'{"step": 1}\n{"ste{"step": 2}\n[3]\n\n{"step": 4}\n' + b"[" * 100_000 + b'\n{"step": 6}\n'


def test_lines_that_are_no_objects_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(TORN)

    with caplog.at_level(logging.WARNING):
        assert read_json_lines(path) == [{"step": 1}, {"step": 4}, {"step": 6}]

    numbers = [record.getMessage().split(" line ")[1][0] for record in caplog.records]
    assert numbers == ["2", "3", "6"]


def test_warnings_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "done.jsonl"
    path.write_bytes(TORN)

    with caplog.at_level(logging.WARNING):
        assert read_json_lines(path, warn=False) == [{"step": 1}, {"step": 4}, {"step": 6}]

    assert not caplog.records
