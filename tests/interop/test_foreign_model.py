"""The order of tokens, and the rows of a head in it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import CheckpointError
from speechssl.interop.foreign_model import NEVER, our_token_order, take_rows, with_rows


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
