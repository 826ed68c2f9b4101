"""What the README shows works: its Python lines run as they stand, its files and verbs exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.settings import as_toml
from support.speech import RATE, make_labelled, sentence, speak

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 14
    few = {"train": {"steps": 4, "device": "cpu"}, "batch": {"seconds": 10}}
    preset = {"encoder": SMALL_ENCODER, "pretrain": few, "finetune": few}
    (tmp_path / "tiny.toml").write_text(as_toml(preset), encoding="utf-8")
    # The same lines with a smaller preset and fewer updates: what is shown must fit in a test.
    code = (
        code.replace('"tiny"', '"tiny.toml"')
        .replace('"steps": 600', '"steps": 4')
        .replace('"steps": 400', '"steps": 4')
    )
    make_labelled(tmp_path / "transcribed", {"": 30})
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "interview.mp3", speak(sentence(rng), rng), RATE)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # our own README
    rate, text = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"\d+\.\d%", rate)
    assert isinstance(text, str)


def test_what_it_names_exists() -> None:
    for name in set(re.findall(r"`((?:recipes|docs)/[\w./]+)`", README)):
        assert (ROOT / name).exists(), name
    from speechssl.cli import app as cli

    verbs = {command.name for command in cli.app.registered_commands}
    assert set(re.findall(r"^speechssl ([\w-]+)", README, re.MULTILINE)) <= verbs


def test_import_is_light() -> None:
    import subprocess
    import sys

    heavy = "torch", "librosa", "matplotlib", "jiwer", "sentencepiece"
    code = f"import sys, speechssl; print([m for m in {heavy!r} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
