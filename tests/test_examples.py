"""The examples run, and use nothing of speechssl but its public names."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from support.models import random_recogniser
from support.places import ROOT

import speechssl
from speechssl.recognition.model import save_ctc

FOLDER = ROOT / "examples"
FEW = {"train": 12, "dev": 3, "test": 3}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imports an example by its name, as Python does that starts one."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return import_module(name)

    yield load
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def corpus(tmp_path: Path, example) -> Path:  # type: ignore[no-untyped-def]
    """A few recordings of made-up speech."""
    return example("made_up_speech").make_corpus(tmp_path / "corpus", FEW)


@pytest.fixture
def store(tmp_path: Path, corpus: Path) -> Path:
    speechssl.prepare(corpus, tmp_path / "store")
    return tmp_path / "store"


def a_model(folder: Path) -> Path:
    save_ctc(random_recogniser(), folder, {})
    return folder


def test_made_up_speech_is_the_same_each_time(tmp_path: Path, corpus: Path, example) -> None:  # type: ignore[no-untyped-def]
    again = example("made_up_speech").make_corpus(tmp_path / "again", FEW)

    names = sorted(path.name for path in corpus.iterdir())
    assert len(names) == sum(FEW.values()) + 1
    for name in names:
        assert (corpus / name).read_bytes() == (again / name).read_bytes()


def test_prepare_and_look(tmp_path: Path, corpus: Path, example, capsys) -> None:  # type: ignore[no-untyped-def]
    example("prepare_and_look").main(corpus, tmp_path / "store")

    shown = capsys.readouterr().out
    assert "18 recordings" in shown
    assert "its features: (" in shown
    assert "train: " in shown


@pytest.mark.slow
def test_pretrain_and_finetune(tmp_path: Path, corpus: Path, store: Path, example, capsys) -> None:  # type: ignore[no-untyped-def]
    module = example("pretrain_and_finetune")
    module.main(tmp_path, 2, 2)

    assert "word error rate " in capsys.readouterr().out
    assert (tmp_path / "recogniser" / "model" / "record.json").is_file()


def test_transcribe_file(tmp_path: Path, corpus: Path, example, capsys) -> None:  # type: ignore[no-untyped-def]
    model = a_model(tmp_path / "model")
    example("transcribe_file").main(model, [corpus / "test000.wav", corpus / "test001.wav"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{corpus / 'test000.wav'} (")
    assert any(line.startswith("  ") and ".." in line for line in lines)


def test_compare_two(tmp_path: Path, store: Path, example, capsys) -> None:  # type: ignore[no-untyped-def]
    a = a_model(tmp_path / "a")
    b = a_model(tmp_path / "b")
    example("compare_two").main(a, b, store)

    shown = capsys.readouterr().out
    assert "A: WER " in shown
    assert "A in 0 utterances, B in 0, equal in 3" in shown


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_uses_public_names_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("speechssl")
        if isinstance(node, ast.Import):
            assert all(not alias.name.startswith("speechssl.") for alias in node.names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ssl":
            assert node.attr in speechssl.__all__


def test_every_example_has_a_test() -> None:
    own = Path(__file__).read_text(encoding="utf-8")

    for path in FOLDER.glob("*.py"):
        assert f'example("{path.stem}")' in own
