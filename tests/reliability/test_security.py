"""No verb unpickles, starts a program, opens a socket, or writes outside the folders that it was given."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, SMALL_ENCODER, make_labelled
from test_checkpoint import seal
from test_train import SETTINGS, _toml

from speechssl.checkpoint import save_folder

WATCHED = Path(__file__).parent / "watched.py"
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
    """Runs verbs in one folder, and looks at what they did."""

    def __init__(self, folder: Path, script: Path = WATCHED) -> None:
        self.folder, self.script, self.num_verbs = folder, script, 0

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run a verb that does nothing wrong; returns its standard error."""
        wrong, message = self.wrong(*arguments, code=code)
        assert wrong == [], arguments
        self.num_verbs += 1
        return message

    def wrong(self, *arguments: object, code: int = 0) -> tuple[list[list[str]], str]:
        """What it did that no verb may do, and its standard error."""
        log = self.folder / "audit.jsonl"
        command = [sys.executable, str(self.script), *map(str, arguments)]
        caches = {
            name: str(self.folder / "caches")
            for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR")
        }
        caches |= {"WATCHED_LOG": str(log), "PYTHONPATH": str(WATCHED.parent)}
        caches |= {"PYTHONDONTWRITEBYTECODE": "1", "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "caches/inductor")}
        (self.folder / "caches").mkdir(exist_ok=True)
        done = subprocess.run(command, cwd=self.folder, env=os.environ | caches, capture_output=True, check=False)
        assert done.returncode == code, (arguments, done.stderr.decode())
        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        assert not list(self.folder.rglob("owned"))
        root = os.path.realpath(self.folder) + "/"
        wrong = [e for e in events if not (e[0] == "write" and ((e[1] + "/").startswith(root) or e[1] == "/dev/null"))]
        return wrong, done.stderr.decode()


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


BAD = """
import multiprocessing, os, pickle, socket, subprocess
import watched

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
    wrong, _ = Watch(tmp_path / "run", tmp_path / "bad.py").wrong()
    written = [
        [os.path.basename(e[1]) for e in wrong if e[0] == "write" and who in e[1]] for who in ("parent", "child")
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
    preset.write_text(_toml({"encoder": SMALL_ENCODER, "pretrain": pretrain, "finetune": finetune}), encoding="utf-8")
    watch("prepare", "in", "store")
    watch("pretrain", "store", "--run", "a", "--preset", preset)
    watch("finetune", "store", "--run", "b", "--preset", preset, "--init-from", "a")
    watch("evaluate", "b", "store", "--out", "score")
    watch("lm", "store", "--out", "x.arpa", "--order", 2)
    watch("tune-lm", "b", "x.arpa", "store")
    watch("transcribe", "b", "in", "--output-dir", "texts", "--output-format", "txt,srt,json")
    watch("probe", "a", "characters=store", "--out", "probes")
    watch("compare", "score", "score")
    campaign.figures |= {"tries": watch.num_verbs, "failures": 0}


def test_hostile_names_through_the_commands(watch: Watch, tmp_path: Path, campaign: Any) -> None:
    make_labelled(tmp_path / "good", {"train": 1})
    (tmp_path / "in").mkdir()
    for number, name in enumerate([*HOSTILE, os.fsdecode(b"\xff\xfe")]):
        folder = tmp_path / "in" / f"{number}{name}" if name != ".." else tmp_path / "in" / "...."
        folder.mkdir()
        shutil.copy(tmp_path / "good/train000.wav", folder / f"{name}.wav")
    watch("prepare", "in", "store", "--min-chunk", 0.5)
    preset = tmp_path / "p.toml"
    train = {"steps": 1, "save_every": 1, "device": "cpu"}
    preset.write_text(_toml({"encoder": SMALL_ENCODER, "finetune": {"train": train}}), encoding="utf-8")
    make_labelled(tmp_path / "labelled", {"train": 4, "dev": 2})
    watch("prepare", "labelled", "labels")
    watch("finetune", "labels", "--run", "b", "--preset", preset, "--init-from", "none")
    watch("transcribe", "b", "in", "--output-dir", "texts", "--report", "report.jsonl")
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
    seal(tmp_path / "model", {"kind": "ctc", "files": {"tensors.safetensors": sha256(evil).hexdigest()}})
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text('{"model_type": "wav2vec2", "auto_map": {"AutoModel": "evil.Evil"}}')
    (tmp_path / "hf/evil.py").write_text("import os; os.system('touch owned')")
    (tmp_path / "hf/pytorch_model.bin").write_bytes(evil)
    make_labelled(tmp_path / "in", {"train": 2, "dev": 1})
    watch("prepare", "in", "store")
    (tmp_path / "named.toml").write_text("[encoder]\nnorm = 'os.system'\n")
    (tmp_path / "extra.toml").write_text("[pretrain]\n__class__ = 'os.system'\n")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    shutil.copytree(tmp_path / "model", tmp_path / "run/checkpoints/step-00000001")
    (tmp_path / "out.jsonl").write_text(json.dumps({"audio_filepath": "../../../../etc/hostname"}) + "\n")
    commands: list[tuple[object, ...]] = [
        ("transcribe", "model", "in"),
        ("transcribe", "evil.pt", "in"),
        ("import", "evil.pt", "m"),
        ("import", "zipped.pt", "m"),
        ("import", "hf", "m"),
        ("finetune", "store", "--run", "r", "--init-from", "model"),
        ("pretrain", "store", "--run", "r", "--preset", "named.toml"),
        ("pretrain", "store", "--run", "r", "--preset", "extra.toml"),
        ("pretrain", "store", "--run", "r", "--set", "task=units", "--set", "units.teacher=../../../etc"),
        ("pretrain", "store", "--run", "run"),
        ("prepare", "out.jsonl", "s2"),
        ("evaluate", "model", "store", "--out", "score"),
    ]
    for command in commands if campaign.full else commands[::4]:
        said = watch(*command, code=1)
        assert len(said.splitlines()) <= 2, (command, said)
        assert said.splitlines()[-1].startswith("speechssl: "), (command, said)
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros(30 * 60 * RATE, np.float32), RATE, format="FLAC")
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb/bomb.flac").write_bytes(bomb.getvalue())
    watch("prepare", "bomb", "s3", "--max-duration", 60, code=4)
    (row,) = [json.loads(line) for line in (tmp_path / "s3/rejects.jsonl").read_text().splitlines()]
    assert row["reason"] == "too long"
    campaign.figures |= {"tries": watch.num_verbs, "failures": 0}
