"""The benchmarks: documented keys, the same audio each time, what they count, one-line errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.commands import call, one_line
from support.models import SMALL_ENCODER
from support.settings import as_toml

from speechssl.analysis import bench_training as training
from speechssl.analysis import bench_transcription
from speechssl.analysis.bench_prepare import bench_prepare
from speechssl.analysis.bench_training import bench_training
from speechssl.analysis.bench_transcription import bench_transcribe
from speechssl.analysis.benchmark import LABELS, as_text, check_size
from speechssl.analysis.profiler import PARTS
from speechssl.analysis.synthetic_speech import write_speech
from speechssl.errors import TrainingError
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.machine import describe_machine
from speechssl.training.presets import resolve_settings

BEST = 1e11


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A very small model; the machine's best product is not measured each time."""
    for module in (training, bench_transcription):
        monkeypatch.setattr(module, "matmul_peak", lambda *_: BEST)
    small = {"batch": {"seconds": 15}, "train": {"device": "cpu"}}
    tables = {"encoder": SMALL_ENCODER, "pretrain": small, "finetune": small}
    path = tmp_path / "very-small.toml"
    path.write_text(as_toml(tables), encoding="utf-8")
    return path


MACHINE = describe_machine().keys() | {"precision"}
ALWAYS = {"bench", "about", "machine", "peak_memory_gb"}
TRAINING = {
    "audio_s_per_s",
    "update_s",
    "matmul_peak",
    "needed_flops",
    "needed_share",
    "run_flops",
    "run_share",
    "parts",
}


def check(table: dict[str, Any], *names: str) -> None:
    """The documented keys and no other; what is a spread is one."""
    assert set(table) == ALWAYS | set(names)
    assert set(names) <= set(LABELS) | {"parts"}
    assert set(table["machine"]) == MACHINE
    assert 0.05 < table["peak_memory_gb"] < 100
    for name in names:
        if name.endswith("_per_s") or name in ("update_s", "time_over_bare"):
            assert 0 < table[name]["low"] <= table[name]["median"] <= table[name]["high"], name
    text = as_text(table)
    assert all(LABELS[name] in text for name in table if name in LABELS)


def command(verb: str, out: Path, *arguments: object) -> dict[str, Any]:
    """What ``--json`` wrote, after a look at the printed table."""
    result = call("bench", verb, *arguments, "--json", out)
    assert result.exit_code == 0, result.output
    table: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert table["bench"] == verb
    if "parts" in table:  # JSON sorts its keys
        table["parts"] = {name: table["parts"][name] for name in PARTS}
    assert result.stdout.splitlines()[2:] == as_text(table).splitlines()[2:]
    return table


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_training(verb: str, preset: Path, tmp_path: Path) -> None:
    sizes = ("--set", "batch.seconds=30", "--seconds", 60, "--repeats", 2)
    table = command(verb, tmp_path / "new" / "found.json", "--preset", preset, *sizes)
    check(table, *TRAINING)

    assert table["about"] == {
        "preset": "very-small",
        "updates": 2,
        "seconds in each": pytest.approx(20, abs=10),
    }

    assert table["needed_share"] == table["needed_flops"] / BEST
    # What was run has padding and what is computed twice, less what is computed in a shorter way.
    assert 0.7 < table["run_flops"] / table["needed_flops"] < 2

    shares = {name: part["share"] for name, part in table["parts"].items()}
    assert tuple(shares) == PARTS
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[part] > 0 for part in PARTS[:-1])
    assert -0.05 < shares["other"] < 0.2


def test_what_the_audio_needs_does_not_depend_on_its_batches(preset: Path, tmp_path: Path) -> None:
    found = []
    for seconds in (15, 40):
        settings = resolve_settings(PretrainSettings, str(preset), {"batch": {"seconds": seconds}})
        (tmp_path / str(seconds)).mkdir()
        found.append(training.TrialRuns(settings, tmp_path / str(seconds), 60).flops_needed())
    assert found[0] == found[1]


def test_an_update_that_is_not_finite_is_not_timed(preset: Path) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        bench_training(
            "pretrain", str(preset), {"contrastive": {"logit_temp": 1e-300}}, seconds=15, updates=1
        )


def test_prepare_of_synthetic_and_of_own_recordings(labelled_folder: Path, tmp_path: Path) -> None:
    sizes = ("--features", "waveform", "--seconds", 70, "--repeats", 1)
    table = command("prepare", tmp_path / "found.json", *sizes)
    check(table, "audio_s_per_s", "bare_audio_s_per_s", "time_over_bare")
    assert table["about"] == {
        "features": "waveform",
        "jobs": 0,
        "files": 2,
        "seconds": 70.0,
        "repeats": 1,
    }

    own = bench_prepare(labelled_folder, repeats=1)
    seconds = sum(soundfile.info(path).duration for path in labelled_folder.glob("*.wav"))
    assert own["about"]["files"] == 56
    assert own["about"]["seconds"] == pytest.approx(seconds, abs=0.1)


def test_transcribe(preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = command(
        "transcribe", tmp_path / "found.json", "--preset", preset, "--seconds", 25, "--repeats", 1
    )
    check(
        table, "long_audio_s_per_s", "short_audio_s_per_s", "matmul_peak", "run_flops", "run_share"
    )
    assert table["about"]["seconds"] == 25
    write_speech(tmp_path / "own.flac", 8, seed=1)
    (tmp_path / "broken.wav").write_bytes(b"")
    own = bench_transcribe(audio=[tmp_path], preset=str(preset), repeats=1)
    check(own, "audio_s_per_s", "matmul_peak", "run_flops", "run_share")
    assert own["about"]["seconds"] == 8
    assert "broken.wav: empty file" in capsys.readouterr().err


def test_errors_are_one_line(
    preset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*arguments: object) -> str:
        return one_line(monkeypatch, capsys, "bench", *arguments)

    assert "give base, large, minutes, small, tiny" in error("pretrain", "--preset", "huge")
    assert "did you mean 'optim.lr'" in error("finetune", "--set", "optim.lrr=1")
    assert "train.steps is not for a benchmark" in error("pretrain", "--set", "train.steps=5")
    assert "--seconds is nan: give 5 to 86400" in error("pretrain", "--seconds", "nan")
    assert "--repeats is 0" in error("transcribe", "--repeats", "0")

    assert "missing" in error("prepare", tmp_path / "missing")
    (tmp_path / "broken.wav").write_bytes(b"")
    assert "can be decoded" in error("prepare", tmp_path / "broken.wav", "--repeats", "1")

    assert "neither a model folder" in error("transcribe", "--model", tmp_path)
    (tmp_path / "none").mkdir()
    assert "no audio" in error("transcribe", "--preset", preset, "--audio", tmp_path / "none")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "without torchrun" in error("pretrain")


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_by_default_no_preset_asks_for_more_audio_than_is_allowed(name: str) -> None:
    for kind in (PretrainSettings, FinetuneSettings):
        seconds = training.enough_audio(resolve_settings(kind, name, {}).batch.seconds)
        check_size(seconds, 1)
        # Below it, what is timed is few batches, and the longest of them mostly padding.
        assert seconds >= 400
