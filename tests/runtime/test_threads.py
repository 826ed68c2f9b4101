"""OpenMP threads wait passively unless the user has chosen; to ask for it loads nothing heavy."""

import os
import subprocess
import sys

import pytest

from speechssl.runtime.threads import WAIT_SETTINGS, wait_passively


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a choice, put back after the test."""
    for name in WAIT_SETTINGS:
        # Set first: the old value comes back also where the test itself sets the variable.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_threads_wait_passively() -> None:
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "1000"), ("KMP_BLOCKTIME", "200")],
)
def test_a_choice_of_the_user_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    wait_passively()
    chosen = {other: os.environ[other] for other in WAIT_SETTINGS if other in os.environ}
    assert chosen == {name: value}


def test_nothing_is_loaded_that_reads_the_variable_first() -> None:
    code = (
        "import sys; from speechssl.runtime.threads import wait_passively; wait_passively(); "
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown == "[]\n"
