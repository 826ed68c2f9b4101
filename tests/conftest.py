"""Data that the tests make for themselves: words spoken in tones, prepared stores, a very small encoder; campaigns."""

import csv
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from speechssl.audio.reader import write_wav
from speechssl.config import build
from speechssl.data.prepare import prepare
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.text.tokenizers import CharTokenizer

# A shell that starts the tests in its background has them ignore it, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The tests run side by side: one thread each, and the same sums whatever the machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that they start

RATE = 16_000
PITCH_HZ = {"a": 300, "b": 480, "c": 760, "d": 1200, "e": 1900, "f": 3000}
SMALL_ENCODER = {
    "features": {"kind": "logmel"},
    "subsampling": 4,
    "channels": 32,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_width": 64,
    "norm": "pre",
    "pos_kernel": 8,
    "pos_groups": 4,
    "layer_drop": 0.1,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption(
        "--full", action="store_true", help="campaigns of tests/reliability with all their tries"
    )
    group.addoption(
        "--figures", metavar="FILE", help="JSONL file to add the figures of campaigns to"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: the end is waited for by all workers."""
    for item in items:
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


def load_script(path: Path) -> ModuleType:
    """A script beside the package as a module, named after its folder too: recipes have scripts of one name."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def random_recogniser() -> CtcModel:
    """Random weights, the same each time, and a head wide enough that its texts differ between recordings."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcdef "])
    model = CtcModel(
        Encoder(build(EncoderConfig, SMALL_ENCODER)), tokenizer, "basic-1", CtcConfig()
    )
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()


def speak(text: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A toy language: each letter is a tone of 120 to 180 ms with a gap after it, a space is 150 ms of quiet."""
    parts = []
    for letter in text:
        length = int(RATE * rng.uniform(0.12, 0.18))
        time = np.arange(length) / RATE
        tone = (
            0.0
            if letter == " "
            else 0.3 * np.sin(2 * np.pi * PITCH_HZ[letter] * rng.uniform(0.98, 1.02) * time)
        )
        parts += [tone * np.hanning(length), np.zeros(int(RATE * 0.03))]
    wave = np.concatenate(parts)
    return (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)


def sentence(rng: np.random.Generator, words: int = 4) -> str:
    """Random words of the toy language."""
    return " ".join(
        "".join(rng.choice(list(PITCH_HZ), size=rng.integers(2, 5))) for _ in range(words)
    )


def make_labelled(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder with ``metadata.csv`` and ``counts[split]`` recordings per split."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcription", "speaker", "split"])
        for split, count in counts.items():
            for number in range(count):
                text, name = sentence(rng), f"{split}{number:03d}.wav"
                write_wav(folder / name, speak(text, rng), RATE)
                table.writerow([name, text, f"speaker{number % 3}", split])
    return folder


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
def speech_folder() -> Path:
    """The recorded speech that results are made with; tests that need it are skipped where it is not."""
    folder = Path(
        os.environ.get("SPEECHSSL_SPEECH", Path(__file__).parents[2] / "shared" / "speech")
    )
    if not folder.is_dir():
        pytest.skip(f"RECORDED SPEECH NOT FOUND at {folder}: set SPEECHSSL_SPEECH to run this test")
    return folder
