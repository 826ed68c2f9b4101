"""What README and the guides show works.

Their Python lines run, and the files, commands and folders that they name exist.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.settings import as_toml
from support.speech import RATE, make_labelled, sentence, speak
from typer.core import TyperGroup
from typer.main import get_command

from speechssl.cli.main import app
from speechssl.cli.verbs import VERBS

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
WALK = (ROOT / "docs" / "guides" / "finetuning.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *GUIDES]


@pytest.mark.slow
def test_the_python_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", WALK, re.DOTALL)
    assert len(code.strip().splitlines()) <= 16

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
    exec(compile(code, "finetuning.md", "exec"), {})  # our own guide

    rate, text = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"\d+\.\d%", rate)

    # The lines of README use the recogniser that those of the guide have made.
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    Path("runs/b").rename("runs/words")
    exec(compile(code, "README.md", "exec"), {})  # our own page
    assert capsys.readouterr().out.splitlines() == [text, rate]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_it_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:recipes|docs|examples|tests|tools)/[\w./]+)`", text))
    linked = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text))

    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in linked if not (page.parent / link).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_it_shows_are_known_with_their_options(page: Path) -> None:
    """Every line of a shell block that calls speechssl, with the options that stand in it."""
    verbs = {name: get_command(app).get_command(None, name) for name in VERBS}  # type: ignore[attr-defined]
    unknown = []

    for line in shell_lines(page.read_text(encoding="utf-8")):
        call = re.search(r"\bspeechssl ([a-z][\w-]*)(.*)", line)
        if call is None or call[1] == "bench":
            continue
        verb, rest = call[1], call[2]
        if verb not in verbs:
            unknown.append(line)
            continue

        command = verbs[verb]
        if isinstance(command, TyperGroup):
            command = command.commands[rest.split()[0]]

        known = {option for given in command.params for option in given.opts}
        options = set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest))
        unknown += [f"{verb} {option}" for option in sorted(options - known - {"--help"})]

    assert unknown == []


def test_every_guide_is_linked_from_readme_and_in_the_pages() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    for guide in GUIDES:
        assert f"docs/guides/{guide.name}" in README
        assert f"guides/{guide.name}" in nav


def test_the_tree_is_that_of_the_package() -> None:
    """Each folder stands in README with the first line of its own docstring."""
    package = ROOT / "speechssl"
    shown = dict(re.findall(r"^  (\w+)/ +(\S.*)$", README, re.MULTILINE))
    folders = {path.name for path in package.iterdir() if path.is_dir()} - {"__pycache__"}
    assert shown.keys() == folders

    for path in package.glob("*/__init__.py"):
        purpose = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert shown[path.parent.name] == purpose.splitlines()[0]


def test_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 140


def test_import_is_light() -> None:
    heavy = "torch", "librosa", "matplotlib", "jiwer", "sentencepiece"
    code = f"import sys, speechssl; print([m for m in {heavy!r} if m in sys.modules])"
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert imported.stdout == "[]\n"


def shell_lines(markdown: str) -> list[str]:
    """Commands of all shell blocks, continued lines joined and comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", markdown, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0] for line in lines if not line.startswith("#")]
