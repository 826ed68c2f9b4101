"""Pictures: the same bytes each time, and nothing imported for them that is not drawn."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speechssl.pictures import plot_errors, plot_training


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))


def test_training_picture(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"step": i, "loss": 5 - i / 10, "chance": 4.6} for i in range(20)
    ]
    plot_training(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "new/one.png")
    with_codes: list[dict[str, object]] = [
        row | {"code_perplexity": 30 + i} for i, row in enumerate(rows)
    ]
    plot_training(write_rows(tmp_path / "m.jsonl", with_codes), tmp_path / "two.png")
    one, two = pixels(tmp_path / "new/one.png"), pixels(tmp_path / "two.png")
    assert two.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert one.std() > 0.01  # something is drawn
    plot_training(tmp_path / "m.jsonl", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_replayed_steps_are_drawn_once(tmp_path: Path) -> None:
    clean: list[dict[str, object]] = [{"step": i, "loss": float(i)} for i in range(6)]
    stale: list[dict[str, object]] = [{"step": 3, "loss": 99.0}, {"step": 4, "loss": 98.0}]
    plot_training(write_rows(tmp_path / "a.jsonl", clean), tmp_path / "a.png")
    plot_training(
        write_rows(tmp_path / "b.jsonl", clean[:3] + stale + clean[3:]), tmp_path / "b.png"
    )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_wer_picture(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": i, "loss": 1.0} for i in range(5)]
    plot_errors(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "none.png")
    plot_errors(
        write_rows(tmp_path / "m.jsonl", [*rows, {"step": 9, "dev_wer": 0.4, "dev_cer": 0.2}]),
        tmp_path / "one.png",
    )
    plot_errors(
        write_rows(tmp_path / "m.jsonl", [*rows, {"step": 9, "probe_digit": 0.4}]),
        tmp_path / "probe.png",
    )
    for name in ("one", "probe"):
        assert pixels(tmp_path / f"{name}.png").std() > pixels(tmp_path / "none.png").std()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"{}\n",
        b'{"step": 1, "loss": NaN}\n{"step": 2, "loss": null}\n{"loss": 3}\n',
    ],
)
def test_empty_or_odd_metrics_do_not_crash(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_bytes(content)
    plot_training(path, tmp_path / "training.png")
    plot_errors(path, tmp_path / "wer.png")
    assert pixels(tmp_path / "training.png").size > 0
    assert pixels(tmp_path / "wer.png").size > 0


def test_importing_stays_light() -> None:
    modules = (
        "speechssl.pictures, speechssl.text.tokenizers, speechssl.scoring.score, "
        "speechssl.transcription.formats"
    )
    heavy = ("matplotlib", "sentencepiece", "jiwer", "torch")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_plotting_leaves_pyplot_alone(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot_errors(tmp_path / "none.jsonl", tmp_path / "x.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
