"""Tables as text, for the terminal and for Markdown files."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Markdown takes no fewer dashes below a title.
MIN_WIDTH = 3


def text_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write an aligned table that is also Markdown; columns of numbers are right-aligned.

    Args:
        header: titles of the columns, turned into text by ``str``.
        rows: cells, turned into text by ``str``; each row as long as the header.

    Returns:
        The table, which ends in a newline. Without rows there is none: an empty text.
    """
    titles = [_cell(title) for title in header]
    body = []
    for row in rows:
        cells = [_cell(value) for value in row]
        assert len(cells) == len(titles), "every row of a table needs one cell per column"
        body.append(cells)
    if not body:
        return ""

    columns = []
    rule = []
    for title, *cells in zip(titles, *body, strict=True):
        longest = max(map(len, (title, *cells)))
        width = max(MIN_WIDTH, longest)
        is_numeric = all(map(_is_number, cells))

        column = _Column(width, is_numeric)
        columns.append(column)

        dashes = "-" * (width - 1)
        # In Markdown a colon at its end makes a column right-aligned.
        end = ":" if is_numeric else "-"
        rule.append(dashes + end)

    lines = [_line(cells, columns) for cells in (titles, rule, *body)]
    return "".join(lines)


class _Column(NamedTuple):
    """How the cells of a column are laid out: width in characters, and at which side."""

    width: int
    is_right_aligned: bool


def _line(cells: Sequence[str], columns: Sequence[_Column]) -> str:
    aligned = []
    for cell, column in zip(cells, columns, strict=True):
        if column.is_right_aligned:
            aligned.append(cell.rjust(column.width))
        else:
            aligned.append(cell.ljust(column.width))

    line = " | ".join(aligned)
    return f"| {line} |\n"


def _cell(value: object) -> str:
    r"""Write a cell on one line, and ``|`` as ``\|``, because ``|`` would end it."""
    words = str(value).split()
    text = " ".join(words)
    return text.replace("|", r"\|")


def _is_number(text: str) -> bool:
    number = text.removesuffix("%").removesuffix(" ")
    try:
        float(number)
    except ValueError:
        return False

    return True
