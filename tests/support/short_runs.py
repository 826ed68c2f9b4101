"""Runs of about a second, and everything that such a run learned."""

from pathlib import Path

from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines
from support.models import SMALL_ENCODER
from support.settings import SETTINGS, as_toml

SAVE_EVERY = 4
STEPS = 40


def write_preset(folder: Path) -> Path:
    """Small enough that a run takes about a second."""
    train = {
        "steps": STEPS,
        "log_every": 1,
        "save_every": SAVE_EVERY,
        "validate_every": 13,
        "device": "cpu",
    }
    pretrain = {k: v for k, v in SETTINGS.items() if k != "encoder"} | {"train": train}
    finetune = {"train": train, "batch": {"seconds": 12}}

    path = folder / "tiny.toml"
    path.write_text(
        as_toml({"encoder": SMALL_ENCODER, "pretrain": pretrain, "finetune": finetune}),
        encoding="utf-8",
    )

    return path


def learned(run: Path) -> object:
    """Metrics without times, as hexadecimal floats; every byte of the weights; their record."""
    rows = [
        {k: v for k, v in row.items() if k not in ("data_s", "time_s")}
        for row in read_json_lines(run / "metrics.jsonl")
    ]
    numbers = [{name: float(value).hex() for name, value in row.items()} for row in rows]
    tensors, record = load_folder(run / "model")
    return numbers, {name: value.numpy().tobytes() for name, value in tensors.items()}, record


def num_logged(run: Path) -> int:
    """Updates that the metrics know."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
