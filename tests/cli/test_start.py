"""The command starts at once: help and refusals load no library that computes."""

import json
import subprocess
import sys
from pathlib import Path

from speechssl.cli.verbs import VERBS

MOST_MEMORY_MB = 60
HEAVY = ("torch", "torchaudio", "scipy", "numba", "librosa", "jiwer", "sentencepiece", "matplotlib")

# Runs the command with each of the argument lists, in one process, and tells what that took.
PROGRAM = f"""
import contextlib, io, json, sys
from speechssl.cli.app import app
from speechssl.errors import SpeechsslError
from speechssl.runtime.memory import peak_memory_mb

codes = []
for arguments in json.load(sys.stdin):
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            app(arguments)
    except SystemExit as leaving:
        codes.append(leaving.code)
    except SpeechsslError as error:
        codes.append(str(error))

heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([codes, heavy, peak_memory_mb()]))
"""

# Of each verb, a command whose first path is not there.
MISSING = {
    "prepare": ["prepare", "missing", "store"],
    "manifest": ["manifest", "missing", "out", "--to", "kaldi"],
    "lexicon check": ["lexicon", "check", "missing", "text"],
    "lexicon show": ["lexicon", "show", "missing", "word"],
    "pretrain": ["pretrain", "missing", "--run", "run"],
    "pretrain --probe": ["pretrain", "{store}", "--run", "run", "--probe", "speaker=missing"],
    "finetune": ["finetune", "missing", "--run", "run", "--init-from", "none"],
    "finetune --init-from": ["finetune", "{store}", "--run", "run", "--init-from", "missing"],
    "lm --tokens-of": ["lm", "text", "--out", "out.arpa", "--tokens-of", "missing"],
    "tune-lm": ["tune-lm", "missing", "lm.arpa", "store"],
    "label": ["label", "missing", "store", "--out", "out"],
    "evaluate": ["evaluate", "missing", "store", "--out", "out"],
    "compare": ["compare", "missing"],
    "transcribe": ["transcribe", "missing", "audio.wav"],
    "probe": ["probe", "missing", "speaker=store"],
    "import": ["import", "missing", "model"],
    "export": ["export", "missing", "out", "--to", "hf"],
    "bench transcribe": ["bench", "transcribe", "--model", "missing"],
}


def start(commands: list[list[str]], folder: Path) -> tuple[list[int | str], list[str], float]:
    """Return exit codes or errors, which heavy libraries were loaded, and the peak memory, MB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    codes, heavy, memory_mb = json.loads(done.stdout)
    return codes, heavy, memory_mb


def test_the_help_of_every_verb_is_light(tmp_path: Path) -> None:
    verbs = [[verb] for verb in VERBS]
    parts = [["lexicon", "check"], ["bench", "prepare"], ["bench", "transcribe"]]
    wrong = [[verb, "--no-such-option"] for verb in VERBS]

    asked = [["--help"], ["--version"], *([*verb, "--help"] for verb in (*verbs, *parts))]
    codes, heavy, memory_mb = start([*asked, *wrong], tmp_path)

    assert codes == [0] * len(asked) + [2] * len(wrong)
    assert heavy == []
    assert memory_mb < MOST_MEMORY_MB


def test_a_path_that_is_not_there_is_refused_before_libraries_are_loaded(
    tmp_path: Path, labelled_store: Path
) -> None:
    (tmp_path / "text").write_text("a line\n")
    commands = [
        [argument.format(store=labelled_store) for argument in command]
        for command in MISSING.values()
    ]

    codes, heavy, _ = start(commands, tmp_path)

    assert {command.split()[0] for command in MISSING} == VERBS.keys()
    for command, code in zip(MISSING, codes, strict=True):
        assert isinstance(code, str), command
        assert "missing" in code, command
    assert heavy == []
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
