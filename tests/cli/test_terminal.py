"""A command does the same with a terminal, without one, and without any standard stream."""

import os
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import children, terminal
from support.commands import call
from support.folders import files_of
from support.foreign import recogniser
from support.language_models import write_lm
from support.models import random_recogniser
from support.short_runs import learned, write_preset
from support.speech import make_labelled, sentence

from speechssl.cli.verbs import VERBS
from speechssl.data.prepare import prepare
from speechssl.interop.convert import export_model
from speechssl.recognition.model import save_ctc

SCRIPT = Path(terminal.__file__)

# Modes in which the verbs of OUT are tried, which need the most time; and those of the others.
STREAMS = ("as they are", "terminal", "closed", "reader gone")
WITHOUT_INPUT = ("no input", "input closed")


def commands(folder: Path, store: Path, model: Path) -> dict[str, list[object]]:
    """By verb, all arguments but the place of what is written, which comes last."""
    return {
        "prepare": ["prepare", folder, "--jobs", 2],
        "transcribe": [
            "transcribe", model, folder, "--jobs", 2, "--output-format", "json,srt",
        ],
        "evaluate": ["evaluate", model, store],
    }  # fmt: skip


OUT = {"prepare": [], "transcribe": ["--output-dir"], "evaluate": ["--out"]}


@pytest.mark.slow
@pytest.mark.parametrize("verb", list(OUT))
def test_the_streams_change_nothing(
    verb: str, labelled_folder: Path, labelled_store: Path, model: Path, tmp_path: Path
) -> None:
    command = commands(labelled_folder, labelled_store, model)[verb]
    written = {}
    for mode in STREAMS:
        out, log = tmp_path / mode / "out", tmp_path / f"{mode}.log"
        child = children.start_script(SCRIPT, [mode, "", *command, *OUT[verb], out], log, {})
        child.join()
        assert child.exitcode == 0, (mode, log.read_text())
        # The hidden list of what is done has the order in which two processes came to their ends.
        files = files_of(out)
        written[mode] = {name: files[name] for name in files if not name.startswith(".")}

    expected = written.pop("as they are")
    assert expected
    for mode, found in written.items():
        assert found == expected, mode


def other_commands(inputs: Path, out: Path, draws: random.Random) -> dict[str, list[object]]:
    """All arguments of the verbs that read nothing but files of ``inputs``, and write ``out``."""
    texts, words, store = inputs / "texts.txt", inputs / "own.dict", inputs / "store"
    two_updates = ["--preset", inputs / "tiny.toml", "--set", "train.steps=2", "--run", out]
    toolkit = draws.choice(["kaldi", "fairseq"])
    order = draws.randint(2, 3)
    split = draws.choice(["train", "dev"])
    seed = draws.randrange(9)

    return {
        "manifest": ["manifest", inputs / "recordings", out, "--to", toolkit],
        "lexicon make": ["lexicon", "make", texts, "--from", words, "--out", out],
        "lexicon check": ["lexicon", "check", words, texts],
        "lexicon extend": ["lexicon", "extend", words, texts, "--out", out],
        "lexicon show": ["lexicon", "show", words, "bed"],
        "pretrain": ["pretrain", store, *two_updates],
        "finetune": ["finetune", store, "--init-from", "none", *two_updates],
        "lm": ["lm", texts, store, "--order", order, "--held-out", store, "--out", out],
        "tune-lm": ["tune-lm", out, inputs / "texts.arpa", store],
        "label": ["label", inputs / "model", store, "--split", split, "--out", out],
        "compare": ["compare", inputs / "dev", inputs / "test"],
        "probe": [
            "probe", inputs / "model", f"speaker={store}", "--seed", seed, "--out", out,
        ],
        "export": ["export", inputs / "foreign", out, "--to", "torchaudio"],
        "import": ["import", inputs / "exported", out],
    }  # fmt: skip


OTHERS = list(other_commands(Path(), Path(), random.Random()))


def test_every_verb_has_a_command() -> None:
    """All but bench, whose results are times."""
    verbs = {name.split()[0] for name in OTHERS}
    assert verbs.union(OUT, ["bench"]) == set(VERBS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``other_commands`` reads."""
    folder = tmp_path_factory.mktemp("inputs")
    write_preset(folder)
    recordings = make_labelled(folder / "recordings", {"train": 9, "dev": 3, "test": 3})
    prepare(recordings, folder / "store")

    numbers = np.random.default_rng(0)
    texts = [sentence(numbers) for _ in range(40)]
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    write_lm(folder / "texts.arpa", [text.split() for text in texts], 2)

    words = ["bed", *{word: None for text in texts for word in text.split()}]
    lines = [f"{word}  {' '.join(word.upper())}\n" for word in words[::2]]
    (folder / "own.dict").write_text("".join(lines), encoding="utf-8")

    save_ctc(random_recogniser(), folder / "model", {})
    for split in ("dev", "test"):
        score = ("--split", split, "--out", folder / split)
        assert call("evaluate", folder / "model", folder / "store", *score).exit_code == 0

    save_ctc(recogniser("base"), folder / "foreign", {})
    export_model(folder / "foreign", folder / "exported", "torchaudio")
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_no_input_and_a_pipe_change_nothing(name: str, inputs: Path, tmp_path: Path) -> None:
    """Beside the same with a terminal: what is written, and what is printed."""
    draws = random.Random(name)
    out = tmp_path / "out"
    command = other_commands(inputs, out, draws)[name]
    without_input = draws.choice(WITHOUT_INPUT)

    made = {}
    for mode, ends in (("terminal", os.openpty()), (without_input, os.pipe())):
        if name == "tune-lm":
            shutil.copytree(inputs / "model", out)

        printed = printed_by(mode, ends, command, tmp_path / f"{mode}.log")
        made[mode] = printed, written(out, name)
        if out.exists():
            out.rename(tmp_path / mode)

    assert made[without_input] == made["terminal"]
    assert any(made["terminal"])


def printed_by(mode: str, ends: tuple[int, int], command: list[object], log: Path) -> bytes:
    """Run a command whose standard output is one end of a terminal or pipe; read the other one."""
    ours, theirs = ends
    stdout = f"/proc/{os.getpid()}/fd/{theirs}"
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all, ours)
        child = children.start_script(SCRIPT, [mode, stdout, *command], log, {})
        child.join()
        os.close(theirs)
        printed = reading.result()

    os.close(ours)
    assert child.exitcode == 0, (mode, log.read_text())
    lines = printed.replace(b"\r\n", b"\n")
    # The last number of a row of tune-lm's beams is a speed.
    return re.sub(rb" +\d+ \| (kept|    ) \|", rb" | \1 |", lines)


def read_all(handle: int) -> bytes:
    """Read until nobody can write any more: of a terminal, this is an error."""
    parts = []
    try:
        while part := os.read(handle, 1 << 16):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


def written(out: Path, name: str) -> object:
    """All that a command wrote; of a training, without its times."""
    if name in ("pretrain", "finetune"):
        return learned(out)
    if out.is_dir():
        return files_of(out)
    return out.read_bytes() if out.exists() else None
