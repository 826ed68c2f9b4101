"""Data that the tests make for themselves, and the campaigns of tests/reliability."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from support import children
from support.speech import make_labelled
from support.warm import start_workers_by, warm_command

from speechssl.data.prepare import prepare

# A shell that starts the tests in its background has them ignore the first, nohup the second, and
# what they start ignores them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The tests run side by side: one thread each, and the same sums whatever the machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that they start
# A busy machine takes longer over an example, which says nothing about the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
start_workers_by(children.CONTEXT)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption(
        "--full", action="store_true", help="campaigns of tests/reliability with all their tries"
    )
    group.addoption(
        "--figures", metavar="FILE", help="JSONL file to add the figures of campaigns to"
    )


# Fixtures that take more than 3 seconds: processes that share updates, exported graphs, whole runs.
SLOW_FIXTURES = {"alone", "exported", "pair", "undisturbed"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: the end is waited for by all workers."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if item.path.parent.name == "reliability":
            item.add_marker(pytest.mark.reliability)
    items.sort(key=lambda item: not item.keywords.keys() & {"slow", "reliability"})


class Campaign:
    """How much a test of tests/reliability tries, in short or with --full, and what came of it."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.figures: dict[str, Any] = {}

    def size(self, short: int, full: int) -> int:
        """How many tries."""
        return full if self.full else short


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """Its figures become a line of --figures."""
    found, started = Campaign(request.config.getoption("full")), time.monotonic()
    yield found
    path = request.config.getoption("figures")
    if path and found.figures:
        row = {
            "campaign": request.node.name,
            **found.figures,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(
        tmp_path_factory.mktemp("corpus") / "labelled", {"train": 40, "dev": 8, "test": 8}
    )


@pytest.fixture(scope="session")
def labelled_store(labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "labelled"
    prepare(labelled_folder, store)
    return store


@pytest.fixture(scope="session")
def speechssl_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that does what the command does, and starts at once."""
    with warm_command(tmp_path_factory.mktemp("bin")) as command:
        yield command


@pytest.fixture(scope="session")
def speech_folder() -> Path:
    """Recorded speech, which results are made with; tests that need it are skipped without."""
    folder = Path(
        os.environ.get("SPEECHSSL_SPEECH", Path(__file__).parents[2] / "shared" / "speech")
    )
    if not folder.is_dir():
        pytest.skip(f"RECORDED SPEECH NOT FOUND at {folder}: set SPEECHSSL_SPEECH to run this test")
    return folder
