"""Tools that compare us with other libraries show what they promise, and every difference."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import twins
from safetensors.torch import load_file
from support.places import ROOT
from support.scripts import load_script

from speechssl.audio.reader import load_audio, write_wav
from speechssl.errors import ConfigError

pytestmark = pytest.mark.slow


differences, same_texts, turns, bench_peers, bench_ranks = (
    load_script(ROOT / "tools" / f"{name}.py")
    for name in ("differences", "same_texts", "turns", "bench_peers", "bench_ranks")
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools set torch's threads for the whole process, tests of other files included."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


# --- differences ----------------------------------------------------------------------------------

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


def test_the_table_has_every_quantity_of_every_style_and_all_are_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
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
    wrong_rows = {
        (row[1], quantity(row[2])) for row in table(capsys.readouterr().out) if row[-1] == "NO"
    }
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
    assert [quantity(r[2]) for r in table(capsys.readouterr().out) if r[-1] == "NO"] == [
        "gradients of"
    ]


def test_nan_is_a_difference() -> None:
    nan = torch.full((2, 3), float("nan"))
    assert not differences.Row("", "", "", differences.largest([nan], [torch.zeros(2, 3)]), 1e-5).ok


# --- same_texts -----------------------------------------------------------------------------------


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Gliding tones that swell, in noise; not on the grid of 16 bits until the file rounds them."""
    rng, folder = np.random.default_rng(2), tmp_path / "audio"
    folder.mkdir()
    for number, seconds in enumerate((1.3, 0.9)):
        time = np.arange(round(16_000 * seconds)) / 16_000
        tone = (
            0.2 * np.sin(2 * np.pi * (300 + 500 * time) * time) * np.sin(2 * np.pi * 2 * time) ** 2
        )
        wave = tone + 0.02 * rng.standard_normal(len(time))
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
    assert (
        "2 recordings, 2.2 s of audio; both hear the same 16-bit samples at 16000 Hz" in shown.out
    )
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
        same_texts.main(
            [str(tmp_path / "theirs"), str(tmp_path / "ours"), str(audio), "--random", "base"]
        )


# --- turns ----------------------------------------------------------------------------------------

WORKER = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT / "tools")!r})
from turns import Turns
turns, task = Turns(), json.loads(sys.argv[2])
for number in turns:
    print("noise of a library")
    if task["work"] == "break" and number == 1:
        raise SystemExit("broken")
    time.sleep(task["pause"])
    turns.report = {{"number": number, "audio_s": 2.0}}
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worker") / "worker.py"
    path.write_text(WORKER)
    return path


def test_sides_take_turns_and_only_their_own_work_counts(worker: Path) -> None:
    with (
        turns.Side(str(worker), "work", pause=0.02) as quick,
        turns.Side(str(worker), "work", pause=1.0) as slow,
    ):
        replies = turns.alternate({"speechssl": quick, "other": slow}, warm_up=1, repeats=3)

    assert [[r["number"] for r in found] for found in replies.values()] == [[1, 2, 3], [1, 2, 3]]
    assert all(
        0.02 <= r["seconds"] < 1 for r in replies["speechssl"]
    )  # not the second of the other
    assert all(r["seconds"] >= 1 and r["cpu_s"] < 0.5 for r in replies["other"])  # it slept
    assert all(
        0 < r["before_gb"] <= r["peak_gb"] * 1.05 for found in replies.values() for r in found
    )

    compared = turns.compared(replies, "other")
    first = replies["other"][0]["seconds"] / replies["speechssl"][0]["seconds"]
    lowest, highest = (compared["speed_ratio"][end] for end in ("low", "high"))
    assert (
        lowest * (1 - 1e-9) <= first <= highest * (1 + 1e-9)
    )  # another order of division rounds otherwise

    assert quick.process.returncode == slow.process.returncode == 0


def test_a_side_that_fails_ends_the_measurement(
    worker: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with turns.Side(str(worker), "break", pause=0) as side:
        assert side.turn()["number"] == 0
        with pytest.raises(SystemExit, match="nothing measured: break failed"):
            side.turn()
    assert "broken" in capfd.readouterr().err


def test_memory_counts_from_the_first_turn() -> None:
    reply = {"audio_s": 6.0, "cpu_s": 3.0, "kernel_s": 1.0, "before_gb": 0.5, "peak_gb": 2.0}
    measured = turns.measures([reply | {"seconds": seconds} for seconds in (1, 2, 3)])
    assert measured["audio_s_per_s"] == {"median": 3.0, "low": 2.0, "high": 6.0}
    assert (measured["peak_gb"], measured["increase_gb"]) == (2.0, 1.5)
    assert (measured["cores"], measured["cores_in_kernel"]) == (1.5, 0.5)


# --- bench_peers ----------------------------------------------------------------------------------


class Once:
    """A single turn, in this process."""

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}

    def __iter__(self) -> Iterator[int]:
        yield 0


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    small = {
        "conv_layers": [(16, k, s) for _, k, s in bench_peers.WAV2VEC2_CONVS],
        "width": 32,
        "num_layers": 1,
    }
    shape = small | {"num_heads": 2, "ffn_width": 32, "pos_kernel": 8, "pos_groups": 4}
    monkeypatch.setitem(bench_peers.ENCODERS, "small", shape)

    return {
        "folder": str(tmp_path),
        "size": "small",
        "rows": 3,
        "seconds": 1.0,
        "seed": 5,
        "updates": 2,
    }


def test_the_peer_gets_our_weights_our_masks_and_the_dropout_of_both(
    task: dict[str, Any], tmp_path: Path
) -> None:
    once = Once()
    bench_peers.make_pretraining(task, once)
    assert once.report["loss_difference"] < 1e-5
    assert once.report["gradient_difference"] < 1e-4

    config = json.loads((tmp_path / "theirs.json").read_text())
    dropouts = (
        "hidden_dropout",
        "feat_proj_dropout",
        "attention_dropout",
        "activation_dropout",
        "layerdrop",
    )
    ours = bench_peers.pretraining("small").encoder
    assert [config[name] for name in dropouts] == [0.1, 0.1, 0.1, 0.0, 0.0]
    assert (ours.dropout, ours.attention_dropout, ours.activation_dropout, ours.layer_drop) == (
        0.1,
        0.1,
        0.0,
        0.0,
    )

    model = bench_peers.make_objective(bench_peers.pretraining("small"), seed=5)
    weights = load_file(tmp_path / "theirs.safetensors")
    assert torch.equal(weights["project_q.weight"], model.target_projection.weight)

    batch = bench_peers.make_batch(bench_peers.pretraining("small"), 3, 1.0, 5)
    masks = [load_file(tmp_path / f"draws-{number}.safetensors")["mask"] for number in range(2)]
    for step, mask in enumerate(masks):
        assert torch.equal(
            mask, torch.from_numpy(model.draw(batch, [49] * 3, 49, step, noisy=True).mask)
        )
    assert not torch.equal(*masks)


def test_models_that_differ_are_not_timed(
    task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = twins.objective_twin

    def wrong(model: Any) -> Any:
        theirs = real(model)
        with torch.no_grad():
            theirs.project_hid.weight[0].neg_()
        return theirs

    monkeypatch.setattr(twins, "objective_twin", wrong)
    with pytest.raises(SystemExit, match="the models are not the same"):
        bench_peers.make_pretraining(task, Once())


def test_operations_are_counted_as_by_hand(task: dict[str, Any]) -> None:
    """The peer's convolutions and products, twice as many backward: also for the samples."""
    model = bench_peers.make_objective(bench_peers.pretraining("small", still=True), 0)
    batch = bench_peers.make_batch(bench_peers.pretraining("small"), 1, 1.0, 0)
    counted = bench_peers.agreement(model, batch)["flops"] * batch.audio_s

    frames, forward, width = 16_000, 0.0, 1
    for channels, kernel, stride in bench_peers.ENCODERS["small"]["conv_layers"]:
        frames = (frames - kernel) // stride + 1
        forward += 2 * frames * channels * kernel * width
        width = channels

    positions = (
        2 * (frames + 1) * 32 * 8 * 8
    )  # kernel 8, 32 / 4 channels a group; even kernels give a frame more
    layer = 2 * frames * (4 * 32 * 32 + 2 * 32 * 32) + 4 * frames * frames * 32
    codes, projections = 2 * frames * 16 * 640, 2 * frames * (16 * 32 + 256 * 256 + 32 * 256)

    assert counted == pytest.approx(
        3 * (forward + positions + layer + codes + projections), rel=1e-9
    )


@pytest.mark.slow
def test_updates_are_timed_on_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.json"
    arguments = "pretrain --rows 1 --seconds 0.5 --repeats 1 --threads 1 --keep-memory --json"
    bench_peers.main([*arguments.split(), str(made)])

    table = json.loads(made.read_text())
    assert table["about"]["loss_difference"] < 1e-4

    names = ["speechssl", "transformers"]
    assert sorted(table["sides"]) == names
    for side in table["sides"].values():
        rate = side["audio_s_per_s"]["median"]
        assert side["share"] == pytest.approx(
            table["flops_per_audio_s"] * rate / table["matmul_peak"]
        )
        assert 0 < side["share"] < 1
        assert 0 < side["increase_gb"] < side["peak_gb"]

    rates = {name: side["audio_s_per_s"]["median"] for name, side in table["sides"].items()}
    assert table["speed_ratio"]["median"] == pytest.approx(
        rates["speechssl"] / rates["transformers"]
    )

    shown = [
        line.split("|")[1].strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    ]
    assert shown[2:] == [*names, "speechssl / transformers"]


def test_recordings_are_joined_to_the_sample(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (audio / "2.wav").write_bytes(b"RIFF")
    out = bench_peers.write_joined([audio], 5.0, tmp_path / "joined.wav")
    samples = load_audio(out, 16_000)
    parts = [load_audio(audio / f"{number}.wav", 16_000) for number in range(2)]
    assert np.array_equal(samples, np.concatenate([*parts, *parts, *parts])[:80_000])
    assert capsys.readouterr().err.count("left out: ") == 1
    with pytest.raises(ConfigError, match="no recording that can be read"):
        bench_peers.write_joined([audio / "2.wav"], 5.0, tmp_path / "none.wav")


@pytest.mark.slow
def test_transcription_is_timed_on_both_sides_and_our_memory_alone(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.json"
    arguments = "--hours 0.002 --repeats 1 --threads 1 --memory 0.05 --json"
    bench_peers.main(["transcribe", str(audio), *arguments.split(), str(made)])

    table = json.loads(made.read_text())
    assert table["about"]["difference"] < 1e-4
    assert table["about"]["audio_s"] == pytest.approx(7.2)
    assert sorted(table["sides"]) == [
        "speechssl",
        "transformers, batches of 1",
        "transformers, batches of 8",
    ]

    assert table["peer"].startswith("transformers")
    assert all(0.1 < peak < 10 for peak in table["our_peak_gb"].values())
    assert "our peak for a recording of 0.05 minutes" in capsys.readouterr().out


# --- bench_ranks ----------------------------------------------------------------------------------


def rows_of(seconds: float, loss: float = 4.0) -> list[dict[str, float]]:
    """Four updates; the first two are slow and do not count."""
    return [{"audio_s": 30.0, "time_s": s, "loss": loss} for s in (100.0, 100.0, seconds, seconds)]


def test_efficiency_is_against_one_process_with_as_many_threads_and_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = dict(
        zip(bench_ranks.SIDES, (rows_of(2.0, 4.001), rows_of(1.5), rows_of(3.0)), strict=True)
    )
    monkeypatch.setattr(bench_ranks, "make_store", lambda *_: tmp_path)
    monkeypatch.setattr(bench_ranks, "run_once", lambda side, *_: rows[side])

    assert bench_ranks.main(["--updates", "4", "--json", str(tmp_path / "made.json")]) == 0
    table = json.loads((tmp_path / "made.json").read_text())
    assert table["audio_s_per_s"][bench_ranks.SHARED]["median"] == 15
    assert table["efficiency"][bench_ranks.WHOLE]["median"] == pytest.approx(15 / 20)
    assert table["efficiency"][bench_ranks.HALF]["median"] == pytest.approx(15 / (2 * 10))
    assert table["loss_difference"][bench_ranks.SHARED] == pytest.approx(0.00025)
    assert "15.00 (15.00 .. 15.00)" in capsys.readouterr().out

    rows[bench_ranks.SHARED] = rows_of(2.0, 4.1)
    assert bench_ranks.main(["--updates", "4"]) == 1

    assert (
        bench_ranks.apart(rows_of(1.0), [row | {"audio_s": 31.0} for row in rows_of(1.0)])
        == math.inf
    )


@pytest.mark.slow
def test_two_real_processes_have_the_losses_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_ranks.main(["--updates", "3", "--repeats", "1", "--minutes", "1"]) == 0
    shown = [
        row.split("|")[1:-1] for row in capsys.readouterr().out.splitlines() if row.startswith("| ")
    ][2:]
    assert [name.strip() for name, *_ in shown] == list(bench_ranks.SIDES)
    assert all(float(different) <= 1e-3 for *_, different in shown)


# --- growth ---------------------------------------------------------------------------------------

growth = load_script(ROOT / "tools" / "growth.py")


def costs(chunks: int, **others: float) -> dict[str, float]:
    """What should grow linearly does, and a step is flat."""
    found = {
        key: 1e-6 if name in growth.STEP else 1e-6 * chunks
        for name, (key, _, _) in growth.MEASURES.items()
    }
    return {"chunks": chunks, **found, **others}


def test_growth_above_linear_shows_in_the_table_and_in_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        n: costs(n, prepare_s=n**1.5, step_s=0.001 * n**0.5, open_bytes=0.0) for n in (1000, 10_000)
    }
    monkeypatch.setattr(growth, "measure", rows.__getitem__)
    assert growth.main(["--chunks", "10000", "1000"]) == 1
    shown = capsys.readouterr().out
    cells = {line[0]: line[1:] for line in table(shown)}
    assert cells["prepare, s"] == ["3.16e+04", "1e+06 (1.50)"]
    assert cells["memory: open store, MB"] == ["0", "0 (nan)"]
    assert shown.endswith("grows too fast: prepare\ngrows too fast: a step's positions\n")
    monkeypatch.setattr(growth, "measure", costs)
    assert growth.main(["--chunks", "1000", "10000"]) == 0


@pytest.mark.slow
def test_growth_is_measured_with_the_real_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    growth.main(["--chunks", "25", "50", "--json", str(made), "--png", str(picture)])
    small, large = json.loads(made.read_text())["rows"]
    assert (small["chunks"], large["chunks"], small["steps"], large["steps"]) == (25, 50, 3, 5)
    assert set(small) == {"chunks", "steps"} | {key for key, *_ in growth.MEASURES.values()}
    assert small["prepare_s"] > 10 * small["step_s"] > 0
    assert [line[0] for line in table(capsys.readouterr().out)] == [
        f"{name}, {unit}" for name, (_, unit, _) in growth.MEASURES.items()
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")
