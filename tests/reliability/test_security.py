"""No verb unpickles, starts a program, opens a socket, or writes outside its folders."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.folders import seal
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.settings import SETTINGS, as_toml
from support.speech import RATE, make_labelled
from support.warm import warm_command

from speechssl.storage.checkpoint import load_record, save_folder
from speechssl.storage.saved_folders import checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are told by /proc")
WATCHED = ROOT / "tests" / "support" / "watched.py"
# What numba compiled, beside the source: each machine does it once, which takes half a minute.
COMPILED = re.compile(r"/__pycache__(/[^/]+\.nb[ic](\.tmp\.\w+)?)?$")
HOSTILE = [
    "$(touch owned)",
    "; touch owned",
    "`touch owned`",
    "| touch owned",
    "-rf",
    "--help",
    "a\nb",
    "..",
    "%s%n",
    "~",
    "*",
]


class Watch:
    """Runs verbs in one folder, and looks at what they did.

    Args:
        command: what stands before the arguments.
        caches: a folder for what libraries keep.
    """

    def __init__(self, folder: Path, command: Sequence[object], caches: Path) -> None:
        self.folder = folder
        self.command = command
        self.caches = caches
        self.num_verbs = 0

    def __call__(self, *arguments: object, into: Sequence[str] = (), code: int = 0) -> str:
        """Run a verb that does nothing wrong and writes only there; returns its standard error."""
        wrong, message = self.wrong(*arguments, into=into, code=code)
        assert wrong == [], arguments
        self.num_verbs += 1
        return message

    def wrong(
        self, *arguments: object, into: Sequence[str] = (), code: int = 0
    ) -> tuple[list[list[str]], str]:
        """What it did that no verb may do, and its standard error."""
        log = self.folder / "audit.jsonl"
        command = [str(part) for part in (*self.command, *arguments)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | environment(self.folder, self.caches),
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stderr.decode())

        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        assert not list(self.folder.rglob("owned"))

        return [
            e for e in events if not (e[0] == "write" and self.may_write(e[1], into))
        ], done.stderr.decode()

    def may_write(self, path: str, into: Sequence[str]) -> bool:
        """The folders that are asked for, caches, and what becomes a file in the folder itself.

        Large counts lie for a while in a folder beside that file. The folder itself is allowed
        because mkdir names it.
        """
        root = os.path.realpath(self.folder)
        caches = os.path.realpath(self.caches)
        if path in (root, caches, "/dev/null") or COMPILED.search(path):
            return True

        if path.startswith(caches + "/"):
            return True

        if not path.startswith(root + "/"):
            return False

        top = path.removeprefix(root + "/").partition("/")[0]
        makes_a_file = any("." in name for name in into)
        return top in into or (top.startswith(".speechssl-") and makes_a_file)


def environment(folder: Path, caches: Path) -> dict[str, str]:
    """Of the verbs that are watched in ``folder``."""
    names = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "TMPDIR")
    return {name: str(caches) for name in names} | {
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "WATCHED_LOG": str(folder / "audit.jsonl"),
    }


@pytest.fixture(scope="module")
def watched_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A program that runs verbs under the audit hook, and its folder of caches."""
    programs = tmp_path_factory.mktemp("bin")
    caches = tmp_path_factory.mktemp("caches")
    with warm_command(programs, WATCHED, environment(programs, caches)) as command:
        yield command, caches


@pytest.fixture
def watch(tmp_path: Path, watched_command: tuple[Path, Path]) -> Watch:
    command, caches = watched_command
    return Watch(tmp_path, [command], caches)


BAD = """
import multiprocessing, os, pickle, socket, subprocess
from support import watched

def bad(of_whom):
    open(f"../{of_whom}", "w").close()
    os.rename(f"../{of_whom}", f"../{of_whom}2")
    pickle.loads(b"cposix\\ngetpid\\n.")
    subprocess.run(["true"])
    socket.socket().close()

if __name__ == "__main__":
    watched.listen()
    bad("parent")
    child = multiprocessing.get_context("spawn").Process(target=bad, args=("child",))
    child.start()
    child.join()
    assert child.exitcode == 0
elif __name__ == "__mp_main__":
    watched.listen()
"""


def test_the_watch_sees_what_it_must_in_spawned_processes_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "bad.py").write_text(BAD)
    command = [sys.executable, tmp_path / "bad.py"]
    (tmp_path / "caches").mkdir()
    wrong, _ = Watch(tmp_path / "run", command, tmp_path / "caches").wrong()
    written = [
        [os.path.basename(e[1]) for e in wrong if e[0] == "write" and who in e[1]]
        for who in ("parent", "child")
    ]
    assert written == [["parent", "parent", "parent2"], ["child", "child", "child2"]]
    others = [e[0] for e in wrong if e[0] != "write"]
    assert others == ["pickle.find_class", "subprocess.Popen", "socket.__new__"] * 2


def test_what_every_verb_does(watch: Watch, tmp_path: Path, campaign: Any) -> None:
    make_labelled(tmp_path / "in", {"train": 12, "dev": 4, "test": 4})
    train = {"steps": 3, "save_every": 2, "device": "cpu"}
    pretrain = {k: v for k, v in SETTINGS.items() if k != "encoder"} | {"train": train}
    finetune = {"train": train, "batch": {"seconds": 12}}
    preset = tmp_path / "p.toml"
    preset.write_text(
        as_toml({"encoder": SMALL_ENCODER, "pretrain": pretrain, "finetune": finetune}),
        encoding="utf-8",
    )

    watch("prepare", "in", "store", into=["store"])
    watch("pretrain", "store", "--run", "a", "--preset", preset, into=["a"])
    watch("finetune", "store", "--run", "b", "--preset", preset, "--init-from", "a", into=["b"])
    watch("evaluate", "b", "store", "--out", "score", into=["score"])
    watch("lm", "store", "--out", "x.arpa", "--order", 2, into=["x.arpa"])
    watch("tune-lm", "b", "x.arpa", "store", into=["b"])
    watch(
        "transcribe",
        "b",
        "in",
        "--output-dir",
        "texts",
        "--output-format",
        "txt,srt,json",
        into=["texts"],
    )
    watch("probe", "a", "characters=store", "--out", "probes", into=["probes"])
    watch("compare", "score", "score")

    campaign.figures |= {"tries": watch.num_verbs, "failures": 0}


def test_hostile_names_through_the_commands(watch: Watch, tmp_path: Path, campaign: Any) -> None:
    make_labelled(tmp_path / "good", {"train": 1})
    (tmp_path / "in").mkdir()
    for number, name in enumerate([*HOSTILE, os.fsdecode(b"\xff\xfe")]):
        folder = tmp_path / "in" / f"{number}{name}" if name != ".." else tmp_path / "in" / "...."
        folder.mkdir()
        shutil.copy(tmp_path / "good/train000.wav", folder / f"{name}.wav")

    watch("prepare", "in", "store", "--min-chunk", 0.5, into=["store"])

    preset = tmp_path / "p.toml"
    train = {"steps": 1, "save_every": 1, "device": "cpu"}
    pretrain = {k: v for k, v in SETTINGS.items() if k != "encoder"} | {"train": train}
    table = {"encoder": SMALL_ENCODER, "pretrain": pretrain, "finetune": {"train": train}}
    preset.write_text(as_toml(table), encoding="utf-8")
    watch("pretrain", "store", "--run", "a", "--preset", preset, into=["a"])

    make_labelled(tmp_path / "labelled", {"train": 4, "dev": 2})
    watch("prepare", "labelled", "labels", into=["labels"])
    watch("finetune", "labels", "--run", "b", "--preset", preset, "--init-from", "none", into=["b"])

    report = "report.jsonl"
    watch(
        "transcribe", "b", "in", "--output-dir", "texts", "--report", report, into=["texts", report]
    )
    assert len(list((tmp_path / "texts").rglob("*.txt"))) == len(HOSTILE) + 1

    campaign.figures |= {"tries": len(HOSTILE) + 1, "failures": 0}


class Evil:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


def test_malicious_files_through_the_commands(watch: Watch, tmp_path: Path, campaign: Any) -> None:
    """Each is refused in one line, or is a reject; nothing of it is run."""
    evil = pickle.dumps(Evil())
    (tmp_path / "evil.pt").write_bytes(evil)
    torch.save({"model": Evil(), "args": Evil()}, tmp_path / "zipped.pt")

    save_folder(tmp_path / "model", {}, {"kind": "ctc"})
    (tmp_path / "model/tensors.safetensors").write_bytes(evil)
    sums = {"tensors.safetensors": sha256(evil).hexdigest()}
    seal(tmp_path / "model", {"kind": "ctc", "encoder": SMALL_ENCODER, "files": sums})

    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text(
        '{"model_type": "wav2vec2", "auto_map": {"AutoModel": "evil.Evil"}}'
    )
    (tmp_path / "hf/evil.py").write_text("import os; os.system('touch owned')")
    (tmp_path / "hf/pytorch_model.bin").write_bytes(evil)

    make_labelled(tmp_path / "in", {"train": 2, "dev": 1})
    watch("prepare", "in", "store", into=["store"])

    (tmp_path / "named.toml").write_text("[encoder]\nnorm = 'os.system'\n")
    (tmp_path / "extra.toml").write_text("[pretrain]\n__class__ = 'os.system'\n")
    (tmp_path / "out.jsonl").write_text(
        json.dumps({"audio_filepath": "../../../../etc/hostname"}) + "\n"
    )

    units = ("--set", "task=hidden_units", "--set", "hidden_units.teacher=../../../etc")
    commands: dict[tuple[str, ...], str] = {
        ("transcribe", "model", "in"): "is not a safetensors file",
        ("transcribe", "evil.pt", "in"): "neither a model folder",
        ("import", "evil.pt", "m"): "it holds something that is no tensor",
        ("import", "zipped.pt", "m"): "it holds an object of posix.system",
        ("import", "hf", "m"): "it holds something that is no tensor",
        ("finetune", "store", "--run", "r", "--init-from", "model"): "is not a safetensors file",
        (
            "pretrain",
            "store",
            "--run",
            "r",
            "--preset",
            "named.toml",
        ): "setting norm: Input should be",
        ("pretrain", "store", "--run", "r", "--preset", "extra.toml"): "unknown setting",
        ("pretrain", "store", "--run", "r", *units): "is neither a model folder",
        ("prepare", "out.jsonl", "s2"): "leads outside",
        ("evaluate", "model", "store", "--out", "score"): "is not a safetensors file",
    }

    for number, (command, reason) in enumerate(commands.items()):
        if campaign.full or number % 4 == 0:
            said = watch(*command, code=1)
            assert len(said.splitlines()) <= 2, (command, said)
            assert said.splitlines()[-1].startswith("speechssl: "), (command, said)
            assert reason in said, (command, said)
    tries = watch.num_verbs - 1
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros(30 * 60 * RATE, np.float32), RATE, format="FLAC")
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb/bomb.flac").write_bytes(bomb.getvalue())
    watch("prepare", "bomb", "s3", "--max-duration", 60, into=["s3"], code=4)
    (row,) = [json.loads(line) for line in (tmp_path / "s3/rejects.jsonl").read_text().splitlines()]
    assert row["reason"] == "too long"
    campaign.figures |= {"tries": tries + 1, "failures": 0}


def test_a_pickle_as_checkpoint_is_passed_over(watch: Watch, tmp_path: Path) -> None:
    make_labelled(tmp_path / "in", {"train": 8, "dev": 1})
    watch("prepare", "in", "store", into=["store"])

    train = {"steps": 2, "save_every": 1, "device": "cpu"}
    pretrain = {k: v for k, v in SETTINGS.items() if k != "encoder"} | {"train": train}
    (tmp_path / "p.toml").write_text(
        as_toml({"encoder": SMALL_ENCODER, "pretrain": pretrain}), encoding="utf-8"
    )
    command = ("pretrain", "store", "--run", "run", "--preset", "p.toml")
    watch(*command, into=["run"])

    evil = pickle.dumps(Evil())
    for path in checkpoints(tmp_path / "run"):
        (path / "tensors.safetensors").write_bytes(evil)
        seal(path, load_record(path) | {"files": {"tensors.safetensors": sha256(evil).hexdigest()}})

    said = watch(*command, into=["run"])
    assert said.count("passing over a checkpoint") == said.count("is not a safetensors file") == 2
    assert "no checkpoint can be read" in said
