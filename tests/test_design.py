"""docs/design.md names files, functions and folders as they are."""

import re

from support.places import ROOT

DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "speechssl"


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"`(\w+/\w+\.py)`", DESIGN))
    places = [PACKAGE, ROOT]

    assert len(named) > 30
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_every_function_stands_in_the_file_that_it_gives() -> None:
    found = re.findall(r"`(\w+)`\s+in\s+`(\w+/\w+\.py)`", DESIGN)
    wrong = []

    for name, file in found:
        code = (PACKAGE / file).read_text(encoding="utf-8")
        if not re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE):
            wrong.append(f"{name} in {file}")

    assert len(found) > 30
    assert wrong == []


def test_its_table_has_every_folder() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DESIGN, re.MULTILINE)

    assert sorted(rows) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
