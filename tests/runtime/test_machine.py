"""What is said of a machine: versions and names, as JSON, and nothing that tells whose it is."""

import json
import os
import platform
import socket
from pathlib import Path

import pytest
import torch

import speechssl
from speechssl.runtime.machine import describe_machine

CPU = torch.device("cpu")


def test_a_machine_is_described_in_json_values() -> None:
    found = describe_machine(CPU)

    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        "speechssl",
        "torch",
        "python",
        "processor",
        "cores",
        "threads",
        "wait_policy",
        "device",
    ]

    assert found["speechssl"] == speechssl.__version__
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["processor"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"


@pytest.mark.parametrize(("given", "expected"), [("passive", "passive"), (None, "default")])
def test_the_wait_policy_is_that_of_the_environment(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert describe_machine(CPU)["wait_policy"] == expected


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    assert describe_machine(torch.device("cuda", 1))["device"] == "a GPU, cuda:1"


def test_it_says_neither_host_nor_path() -> None:
    text = json.dumps(describe_machine())
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert f'"{socket.gethostname()}"' not in text
