"""The measures of density, counted by hand in a file that has one of each."""

from pathlib import Path

import pytest
from support.places import ROOT
from support.scripts import load_script

density = load_script(ROOT / "tools" / "density.py")

MADE = f'''"""A docstring
of two lines."""

# A comment.
a, b = 1, 2
c = [x for x in (a, b)]  # another
d = a if b else "# none"


def first():
    """A docstring.

    Its blank line divides no code.
    """
{("    print(b)" + chr(10)) * 15}

async def second():
    print(e := a)

{("    print(e)" + chr(10)) * 13}

def short():
    x, y = first()
    return {"x" * 100}
'''


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "made.py").write_text(MADE, encoding="utf-8")
    (tmp_path / "package" / "empty.py").write_text("", encoding="utf-8")
    (tmp_path / "package" / "link.py").symlink_to("made.py")
    (tmp_path / "package" / "notes.txt").write_text("a, b = 1, 2\n", encoding="utf-8")
    return tmp_path


def test_a_made_file_is_counted_as_by_hand(made: Path) -> None:
    counts = density.measure(made)
    assert counts.files == 2

    # Two lines of docstring, a comment, three assignments; 1 + 3 + 15; 1 + 1 + 13; 3.
    assert counts.lines == 6 + 19 + 15 + 3
    assert counts.code_lines == counts.lines - 1
    # The blank line within the second docstring is one of its lines.
    assert counts.docstring_lines == 2 + 4
    assert counts.long_lines == 1
    assert counts.comments == 2

    # The second function is long too, and has a blank line.
    assert counts.long_bodies == 2
    assert counts.unbroken_bodies == 1

    # x, y = first() unpacks one value.
    assert counts.paired_assignments == 1
    assert counts.comprehensions == 1
    assert counts.conditionals == 1
    assert counts.walruses == 1


def test_nodes_are_those_of_the_tree_without_reads_and_writes() -> None:
    counts = density.Counts()
    density.add_file(counts, "a = b\n")
    # Module, Assign, and a Name each.
    assert counts.nodes == 4
    assert counts.nodes_per_line == 4


def test_the_table_has_a_row_for_each_folder(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert density.main([str(made), str(made / "package")]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [own[0] for own in cells] == [str(made), str(made / "package")]
    assert cells[0][1:] == cells[1][1:]
    assert cells[0][3:6] == ["50", f"{100 / 42:.1f}", f"{1000 / 43:.1f}"]
