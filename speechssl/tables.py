"""Tables as text, for the terminal and for Markdown files."""

from collections.abc import Iterable, Sequence

# Markdown takes no fewer dashes below a title.
MIN_WIDTH = 3


def text_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write an aligned table that is also Markdown; columns of numbers are right-aligned.

    Args:
        header: titles of the columns, turned into text by ``str``.
        rows: cells, turned into text by ``str``; each row as long as the header.

    Returns:
        The table, which ends in a newline.
    """
    titles = [_cell(title) for title in header]
    body = []
    for row in rows:
        cells = [_cell(value) for value in row]
        assert len(cells) == len(titles), "every row of a table needs one cell per column"
        body.append(cells)

    widths = []
    numeric = []
    rule = []
    for title, *cells in zip(titles, *body, strict=True):
        width = max(MIN_WIDTH, *map(len, (title, *cells)))
        # Without rows, all() would call every column one of numbers.
        is_numeric = bool(cells) and all(map(_is_number, cells))

        widths.append(width)
        numeric.append(is_numeric)
        # In Markdown a colon at its end makes a column right-aligned.
        rule.append("-" * (width - 1) + (":" if is_numeric else "-"))

    lines = [_line(cells, widths, numeric) for cells in (titles, rule, *body)]
    return "".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = []
    for cell, width, is_right in zip(cells, widths, numeric, strict=True):
        aligned.append(cell.rjust(width) if is_right else cell.ljust(width))
    return f"| {' | '.join(aligned)} |\n"


def _cell(value: object) -> str:
    r"""The text of a cell: on one line, and ``|`` as ``\|``, which would end it."""
    return " ".join(str(value).split()).replace("|", r"\|")


def _is_number(text: str) -> bool:
    try:
        float(text.removesuffix("%").removesuffix(" "))
    except ValueError:
        return False
    return True
