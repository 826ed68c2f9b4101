"""The tools that compare us with other libraries: what they promise to show, and that a difference does not pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_script

from speechssl.audio import write_wav

ROOT = Path(__file__).parents[1]


differences, same_texts = (load_script(ROOT / "tools" / f"{name}.py") for name in ("differences", "same_texts"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools set torch's threads for the whole process, tests of other files included."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


# --- differences -------------------------------------------------------------------------------------------------

ENCODER = {"encoder output, alone", "CTC logits"}
PADDED = "encoder output, padded batch"
OTHERS = {"CTC loss per token", "contrastive loss per masked frame", "diversity", "code perplexity"}
COUNTED = {"greedy tokens, different of", "gradients of"}  # with numbers behind
PROMISED = {
    ("BASE, small", "transformers"): ENCODER | OTHERS | COUNTED,
    ("BASE, small", "torchaudio"): ENCODER,
    ("LARGE, small", "transformers"): ENCODER | OTHERS | COUNTED | {PADDED},
    ("LARGE, small", "torchaudio"): ENCODER | {PADDED},
    ("LARGE with adapters, small", "transformers"): ENCODER | OTHERS | COUNTED | {PADDED},
}


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quantity(shown: str) -> str:
    return next((start for start in COUNTED if shown.startswith(start)), shown)


def test_the_table_has_every_quantity_of_every_style_and_all_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    assert differences.main([]) == 0
    rows = table(capsys.readouterr().out)
    found: dict[tuple[str, str], set[str]] = {}
    for style, library, shown, difference, allowed, ok in rows:
        found.setdefault((style, library), set()).add(quantity(shown))
        assert ok == "yes"
        assert float(difference) <= float(allowed) <= 1e-3
    assert found == PROMISED
    counts = [int(row[2].split()[-1]) for row in rows if row[2].startswith("greedy")]
    assert all(count > 30 for count in counts)


@pytest.fixture
def only_base(monkeypatch: pytest.MonkeyPatch) -> None:
    (base,) = (style for style in differences.styles(full=False) if style.name == "BASE, small")
    monkeypatch.setattr(differences, "styles", lambda full: [base])


@pytest.mark.usefixtures("only_base")
def test_a_weight_that_is_not_the_same_shows_in_its_rows_and_in_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = differences.ctc_twin

    def wrong(model: Any) -> Any:
        theirs = real(model)
        with torch.no_grad():
            theirs.wav2vec2.encoder.layers[0].attention.k_proj.weight[0, 0] += 0.1
        return theirs

    monkeypatch.setattr(differences, "ctc_twin", wrong)
    assert differences.main([]) == 1
    wrong_rows = {(row[1], quantity(row[2])) for row in table(capsys.readouterr().out) if row[-1] == "NO"}
    assert {("transformers", "encoder output, alone"), ("transformers", "CTC logits")} <= wrong_rows
    assert not wrong_rows & {("torchaudio", "CTC logits"), ("transformers", "gradients of")}


@pytest.mark.usefixtures("only_base")
def test_a_gradient_that_is_not_the_same_shows_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = differences.gradients

    def wrong(model: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = real(model)
        found["encoder.norm.bias"] *= 1.01
        return found

    monkeypatch.setattr(differences, "gradients", wrong)
    assert differences.main([]) == 1
    assert [quantity(r[2]) for r in table(capsys.readouterr().out) if r[-1] == "NO"] == ["gradients of"]


def test_nan_is_a_difference() -> None:
    nan = torch.full((2, 3), float("nan"))
    assert not differences.Row("", "", "", differences.largest([nan], [torch.zeros(2, 3)]), 1e-5).ok


# --- same_texts --------------------------------------------------------------------------------------------------


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Gliding tones in noise, not on the grid of 16 bits until the file rounds them."""
    rng, folder = np.random.default_rng(2), tmp_path / "audio"
    folder.mkdir()
    for number, seconds in enumerate((1.3, 0.9)):
        time = np.arange(round(16_000 * seconds)) / 16_000
        wave = 0.2 * np.sin(2 * np.pi * (300 + 500 * time) * time) + 0.02 * rng.standard_normal(len(time))
        write_wav(folder / f"{number}.wav", wave.astype(np.float32), 16_000)
    return folder


@pytest.mark.parametrize("style", ["base", "large"])
def test_an_imported_model_says_what_their_pipeline_says(
    style: str, tmp_path: Path, audio: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing of transformers' own output is in the way."""
    folders = [str(tmp_path / "theirs"), str(tmp_path / "ours")]
    assert same_texts.main([*folders, str(audio), "--random", style]) == 0
    shown = capfd.readouterr()
    assert "2 recordings, 2.2 s of audio; both hear the same 16-bit samples at 16000 Hz" in shown.out
    assert "2 different texts" in shown.out
    assert "identical literally: 2 of 2" in shown.out
    assert "as one, none at the ends: 2 of 2" in shown.out
    assert shown.err == ""
    assert same_texts.main([*folders, str(audio), "--most", "1"]) == 0
    assert "identical literally: 1 of 1" in capfd.readouterr().out


def test_texts_that_differ_are_shown_and_counted(
    tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(same_texts, "their_texts", lambda *_: ["A  B ", "A C"])
    monkeypatch.setattr(same_texts, "our_texts", lambda *_: ["A B", "A B"])
    arguments = [str(tmp_path / "theirs"), str(tmp_path / "ours"), str(audio), "--random", "base"]
    assert same_texts.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "identical literally: 0 of 2" in shown
    assert "as one, none at the ends: 1 of 2" in shown
    assert shown.endswith(f"{audio / '1.wav'}\n  theirs: A C\n  ours:   A B\n")


def test_the_random_folder_is_not_written_over(tmp_path: Path, audio: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with pytest.raises(SystemExit, match="is there already"):
        same_texts.main([str(tmp_path / "theirs"), str(tmp_path / "ours"), str(audio), "--random", "base"])
