"""Measure how densely Python code is written: one row of a table for each folder.

    python tools/density.py FOLDER...

The measures, over all files below a folder:

* nodes per code line: nodes of the syntax tree, on lines that are not blank, comment or docstring;
* unbroken functions: bodies of 15 lines or more without a blank line, in % of bodies of 15 or more;
* long lines: over 100 characters, in % of all lines that are neither blank nor comment;
* paired assignments (``a, b = x, y``), comprehensions, conditional expressions and assignment
  expressions, each per 1,000 lines;
* comments, per 100 lines.

"Lines" of the last two are all that are not blank. The measures tell where to look, no more: code
can have good numbers and be hard to read.
"""

import argparse
import ast
import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechssl.tables import text_table

# Lines of a body from which on a function is expected to have a blank line.
LONG_BODY = 15
# Characters of a line, as the formatter is set.
WIDEST = 100

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WITH_DOCSTRING = (*FUNCTIONS, ast.ClassDef, ast.Module)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Whether a name is read or written: a node of its own in Python's tree, but nothing to read.
CONTEXTS = (ast.Load, ast.Store)

HEADER = (
    "folder",
    "files",
    "nodes per code line",
    "unbroken functions, %",
    "long lines, %",
    "paired assignments",
    "comprehensions",
    "conditional expressions",
    "assignment expressions",
    "comments",
)


@dataclass
class Counts:
    """What is counted in files; the counts of several files are added up."""

    files: int = 0
    lines: int = 0
    """not blank"""
    code_lines: int = 0
    """neither blank nor comment; docstrings are among them"""
    docstring_lines: int = 0
    long_lines: int = 0
    comments: int = 0
    nodes: int = 0
    long_bodies: int = 0
    unbroken_bodies: int = 0
    paired_assignments: int = 0
    comprehensions: int = 0
    conditionals: int = 0
    walruses: int = 0

    @property
    def nodes_per_line(self) -> float:
        return self.nodes / max(1, self.code_lines - self.docstring_lines)

    @property
    def unbroken_percent(self) -> float:
        return 100 * self.unbroken_bodies / max(1, self.long_bodies)

    @property
    def long_lines_percent(self) -> float:
        return 100 * self.long_lines / max(1, self.code_lines)

    @property
    def comments_per_100(self) -> float:
        return 100 * self.comments / max(1, self.lines)

    def per_1000(self, count: int) -> float:
        return 1000 * count / max(1, self.lines)


def measure(folder: Path) -> Counts:
    """Count in all Python files below a folder."""
    counts = Counts()
    for path in sorted(folder.rglob("*.py")):
        if not path.is_symlink():
            add_file(counts, path.read_text(encoding="utf-8", errors="replace"))
    return counts


def add_file(counts: Counts, text: str) -> None:
    """Count in the text of one file."""
    lines = text.splitlines()
    counts.files += 1

    for line in lines:
        is_blank = not line.strip()
        is_comment = line.strip().startswith("#")
        counts.lines += not is_blank
        if not is_blank and not is_comment:
            counts.code_lines += 1
            counts.long_lines += len(line) > WIDEST

    # Comments at the end of a line too, and no "#" within a string.
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        counts.comments += token.type == tokenize.COMMENT

    for node in ast.walk(ast.parse(text)):
        add_node(counts, node)
        add_docstring(counts, node)
        if isinstance(node, FUNCTIONS):
            add_body(counts, node, lines)


def add_node(counts: Counts, node: ast.AST) -> None:
    """Count a node by its kind."""
    counts.nodes += not isinstance(node, CONTEXTS)
    counts.comprehensions += isinstance(node, COMPREHENSIONS)
    counts.conditionals += isinstance(node, ast.IfExp)
    counts.walruses += isinstance(node, ast.NamedExpr)

    if isinstance(node, ast.Assign):
        several_names = isinstance(node.targets[0], ast.Tuple)
        several_values = isinstance(node.value, ast.Tuple)
        counts.paired_assignments += several_names and several_values


def add_docstring(counts: Counts, node: ast.AST) -> None:
    """Count the lines of the node's docstring, if it has one."""
    docstring = docstring_of(node)
    if docstring is not None:
        assert docstring.end_lineno is not None
        counts.docstring_lines += docstring.end_lineno - docstring.lineno + 1


def add_body(
    counts: Counts, function: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]
) -> None:
    """Count a function whose body is long, and whether no blank line divides it."""
    body = function.body
    # A docstring's blank lines divide no code. A body of a docstring alone stays as it is.
    if docstring_of(function) is not None and len(body) > 1:
        body = body[1:]

    assert function.end_lineno is not None
    body_lines = lines[body[0].lineno - 1 : function.end_lineno]
    if len(body_lines) >= LONG_BODY:
        counts.long_bodies += 1
        counts.unbroken_bodies += all(line.strip() for line in body_lines)


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """Find the statement that is the docstring of a module, class or function."""
    if not isinstance(node, WITH_DOCSTRING) or not node.body:
        return None

    first = node.body[0]
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return None
    return first if isinstance(first.value.value, str) else None


def row(folder: Path, counts: Counts) -> list[object]:
    """Write the measures of a folder as cells of the table."""
    return [
        folder,
        counts.files,
        f"{counts.nodes_per_line:.1f}",
        f"{counts.unbroken_percent:.0f}",
        f"{counts.long_lines_percent:.1f}",
        f"{counts.per_1000(counts.paired_assignments):.1f}",
        f"{counts.per_1000(counts.comprehensions):.0f}",
        f"{counts.per_1000(counts.conditionals):.0f}",
        f"{counts.per_1000(counts.walruses):.1f}",
        f"{counts.comments_per_100:.1f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    options = parser.parse_args(arguments)

    rows = [row(folder, measure(folder)) for folder in options.folders]
    print(text_table(HEADER, rows), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
