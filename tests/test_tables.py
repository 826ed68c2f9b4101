"""Tables as text: aligned, and Markdown that reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.tables import text_table


def test_table() -> None:
    assert text_table(["model", "WER"], [["tiny", "12.5 %"], ["base, long", "9.0 %"]]) == (
        "| model      |    WER |\n"
        "| ---------- | -----: |\n"
        "| tiny       | 12.5 % |\n"
        "| base, long |  9.0 % |\n"
    )  # fmt: skip
    # A header that nothing follows says nothing.
    assert text_table(["a"], []) == ""


CELLS = st.text(st.characters(exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_table_reads_back_as_markdown(rows: list[tuple[str, str]]) -> None:
    lines = text_table(["one", "two"], rows).split("\n")
    assert lines.pop() == ""
    assert len({len(line) for line in lines}) == 1
    for row, line in zip(rows, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.replace(r"\|", "\0")[1:-1].split("|")]
        assert [cell.replace("\0", "|") for cell in cells] == [
            " ".join(cell.split()) for cell in row
        ]


def test_table_needs_whole_rows() -> None:
    with pytest.raises(AssertionError):
        text_table(["a", "b"], [["only one"]])
