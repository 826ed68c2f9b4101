"""The lock file of CI and the page of licences know what pyproject.toml asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *(r for own in EXTRAS.values() for r in own)]
]
LOCKED = dict(
    line.split("==")
    for line in (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_locked_version_is_one_that_is_asked_for(asked: Requirement) -> None:
    if asked.name != "speechssl":
        assert LOCKED[canonicalize_name(asked.name)] in asked.specifier


def test_every_locked_package_has_its_licence_on_the_page() -> None:
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^ ]+) \| ([^|]+) \|", page, flags=re.MULTILINE))
    rows.pop("package", None)
    assert rows.keys() == LOCKED.keys()
    assert all(rows.values())
