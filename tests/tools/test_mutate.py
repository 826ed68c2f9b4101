"""The tool that plants mistakes: mutants fit the code, and only a failed test catches one."""

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.places import ROOT
from support.scripts import load_script

THING = "speechssl/thing.py"
TEST = """
from speechssl.thing import double

def test_zero():
    assert double(0) == 0

def test_double():
    assert double(3) == 6
"""


mutate = load_script(ROOT / "tools" / "mutate.py")
by_label = pytest.mark.parametrize("mutant", mutate.MUTANTS, ids=lambda mutant: mutant.label)


def test_all_seven_mistakes_are_there_each_form_once() -> None:
    assert {mutant.number for mutant in mutate.MUTANTS} == set(range(1, 8))
    labels = [mutant.label for mutant in mutate.MUTANTS]
    assert labels == sorted(set(labels))


@by_label
def test_a_mutant_fits_the_code(mutant: Any) -> None:
    """Its text stands once in the file, and what becomes of it is another program."""
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    after = mutate.mutated(mutant, ROOT)
    assert before.count(mutant.old) == 1
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))
    assert (ROOT / mutant.test_file).is_file()


@pytest.mark.slow
def test_a_copy_holds_what_its_tests_import(tmp_path: Path) -> None:
    tree = mutate.copy_tree(ROOT, tmp_path / "tree")
    test_files = sorted({mutant.test_file for mutant in mutate.MUTANTS})
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", *test_files],
        cwd=tree,
        env=mutate._environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )
    assert collected.returncode == 0, collected.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of the same name, so that an import of the installed one would be noticed."""
    (tmp_path / "speechssl").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "speechssl/__init__.py").write_text("")
    (tmp_path / THING).write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tests/test_thing.py").write_text(TEST)
    return tmp_path


def planted(old: str, new: str) -> Any:
    return mutate.Mutant("1a", "a mistake", THING, old, new)


@pytest.mark.parametrize(
    ("new", "result", "by"),
    [
        ("3 * x", "caught", "tests/test_thing.py::test_double"),
        ("2 * x + 1", "caught", "tests/test_thing.py::test_zero and 1 more"),
        ("x + x", "SURVIVED", ""),
        (
            "2 * y",
            "ERROR",
            "broken code, not a mistake: tests/test_thing.py::test_zero: NameError: name 'y'",
        ),
        ("2 * (x", "ERROR", "speechssl.thing does not import: SyntaxError"),
        ("2 * x\n\n1 / 0", "ERROR", "speechssl.thing does not import: ZeroDivisionError"),
        ("2 * x\n\ndel double", "ERROR", "no test failed, but pytest ended with 2"),
    ],
)
def test_only_a_test_that_fails_catches(tree: Path, new: str, result: str, by: str) -> None:
    outcome = mutate.run_mutant(planted("2 * x", new), tree)
    assert (outcome.result, outcome.by[: len(by)]) == (result, by), outcome
    assert result == "ERROR" or outcome.by == by
    assert (tree / THING).read_text() == "def double(x):\n    return 2 * x\n"


def test_a_fixture_that_fails_catches_nothing(tree: Path) -> None:
    fixture = (
        "import pytest\n@pytest.fixture(autouse=True)\ndef six():\n    assert double(3) == 6\n"
    )
    (tree / "tests/test_thing.py").write_text(TEST + fixture)
    outcome = mutate.run_mutant(planted("2 * x", "3 * x"), tree)
    assert outcome.result == "ERROR"
    assert outcome.by.startswith("no test failed, but pytest ended with 1: ")


def test_another_copy_of_the_package_is_noticed(tree: Path) -> None:
    """Python prefers a folder to a file of the same name."""
    elsewhere = tree / "speechssl/thing"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("def double(x):\n    return 2 * x\n")
    outcome = mutate.run_mutant(planted("2 * x", "3 * x"), tree)
    assert outcome.result == "ERROR"
    assert "thing/__init__.py, not from the copy" in outcome.by


@pytest.mark.parametrize(("old", "times"), [("4 * x", 0), ("x", 2)])
def test_a_mutant_that_does_not_fit_is_named(tree: Path, old: str, times: int) -> None:
    with pytest.raises(
        mutate.MutantError, match=rf"1a \(a mistake\): '.*' stands {times} times in {THING}"
    ):
        mutate.run_mutant(planted(old, "0"), tree)


def run_main(tree: Path, monkeypatch: pytest.MonkeyPatch, *mutants: Any) -> int:
    monkeypatch.setattr(mutate, "ROOT", tree)
    monkeypatch.setattr(mutate, "MUTANTS", mutants)
    return mutate.main([])


@pytest.mark.slow
def test_the_exit_code_is_zero_only_when_all_are_caught(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, same = planted("2 * x", "3 * x"), replace(planted("2 * x", "x + x"), label="2a")

    assert run_main(tree, monkeypatch, wrong) == 0
    assert capsys.readouterr().out.endswith(
        "planted: 1 of the mistakes in 1 forms; not caught: none\n"
    )

    assert run_main(tree, monkeypatch, wrong, same) == 1
    shown = capsys.readouterr().out
    assert "tests/test_thing.py::test_double\n" in shown
    assert shown.endswith("planted: 2 of the mistakes in 2 forms; not caught: 2a\n")

    (tree / "tests/test_thing.py").write_text(TEST.replace("== 6", "== 7"))
    assert run_main(tree, monkeypatch, wrong) == 1
    assert capsys.readouterr().out.startswith(
        "the tests fail without any mistake, so they show nothing: tests/"
    )


@pytest.mark.slow
def test_a_real_mistake_is_caught_and_none_is_not(tmp_path: Path) -> None:
    source = mutate.copy_tree(ROOT, tmp_path / "source")
    (mutant,) = (m for m in mutate.MUTANTS if m.label == "6a")
    found = mutate.run_mutant(mutant, source)
    assert found.result == "caught", found
    assert found.by.startswith("tests/training/test_optim.py::test_")
    comment = replace(mutant, new=f"{mutant.old}  # no decay")
    assert mutate.run_mutant(comment, source).result == "SURVIVED"
