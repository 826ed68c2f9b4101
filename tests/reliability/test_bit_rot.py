"""Flipped bits and truncations of stores, checkpoints and models are noticed before use."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.language_models import write_lm
from support.models import random_recogniser
from support.settings import SETTINGS

from speechssl.config import build
from speechssl.data.store import Store
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.errors import SpeechsslError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.language_model import load_lm, save_lm
from speechssl.recognition.model import load_ctc, save_ctc
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.saved_folders import checkpoints
from speechssl.text.character_tokenizer import CharTokenizer


def use_store(folder: Path) -> None:
    """As training and evaluation do: open, and read every chunk."""
    store = Store(folder)
    for k in range(len(store)):
        store.array(k), store.record(k)


def make_store(folder: Path, store: Path) -> Callable[[], object]:
    for path in store.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return lambda: use_store(folder)


def make_checkpoint(folder: Path, store: Path) -> Callable[[], object]:
    train = {"steps": 2, "save_every": 2, "device": "cpu"}
    pretrain([store], folder.parent / "run", build(PretrainSettings, SETTINGS | {"train": train}))
    for path in checkpoints(folder.parent / "run")[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return lambda: load_folder(folder)


def make_model(folder: Path, store: Path) -> Callable[[], object]:
    save_ctc(random_recogniser(), folder, {})
    return lambda: load_ctc(folder)


def make_language_model(folder: Path, store: Path) -> Callable[[], object]:
    tokenizer = CharTokenizer.train(["abcdef "])
    write_lm(folder.parent / "x.arpa", [["abc", "fed"], ["fed", "abc"]], 2)
    save_lm(folder, folder.parent / "x.arpa", ["abc", "fed"], BeamConfig(), {})
    return lambda: load_lm(folder, tokenizer)


@pytest.mark.parametrize("make", [make_store, make_checkpoint, make_model, make_language_model])
def test_damage_is_noticed(
    make: Callable[[Path, Path], Callable[[], object]],
    labelled_store: Path,
    tmp_path: Path,
    campaign: Any,
) -> None:
    folder, draws = tmp_path / "folder", random.Random(0)
    folder.mkdir()
    use = make(folder, labelled_store)

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    use()

    tries = campaign.size(40, 1000)
    for number in range(2 * tries):
        path = draws.choice(files)
        good = path.read_bytes()
        at = draws.randrange(len(good))

        flipped = bytearray(good)
        flipped[at] ^= 1 << draws.randrange(8)
        path.write_bytes(flipped if number % 2 else good[:at])

        with pytest.raises(SpeechsslError):
            use()
        path.write_bytes(good)

    use()
    campaign.figures |= {
        "tries": f"{tries} flips, {tries} truncations",
        "files": len(files),
        "failures": 0,
    }
