"""The names that ``import speechssl`` offers, and the version, which stands in two files."""

import tomllib
from importlib import import_module

import pytest
from support.places import ROOT

import speechssl


@pytest.mark.parametrize("name", sorted(speechssl._HOME))
def test_a_public_name_leads_to_the_file_that_defines_it(name: str) -> None:
    home = f"speechssl.{speechssl._HOME[name]}"
    found = getattr(speechssl, name)

    assert found is getattr(import_module(home), name)
    assert found.__module__ == home


def test_every_public_name_is_listed() -> None:
    assert set(speechssl._HOME) < set(speechssl.__all__)
    assert set(speechssl.__all__) <= set(dir(speechssl))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = speechssl.nonsense


def test_both_versions_are_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert speechssl.__version__ == project["version"]
