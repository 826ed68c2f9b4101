"""Verbs of recognition: scores, language models, labels and transcripts, from the command line."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support import children
from support.commands import call, one_line
from support.settings import PRETRAIN
from support.speech import RATE, make_labelled

from speechssl.audio.reader import load_audio, write_wav
from speechssl.data.store import Store
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.pretrain import pretrain
from speechssl.recognition.language_model import save_lm
from speechssl.transcription.output_folder import DONE, read_done


def test_evaluate_and_compare(model: Path, labelled_store: Path, tmp_path: Path) -> None:
    result = call("evaluate", model, labelled_store, "--out", tmp_path / "score", "--split", "dev")
    assert result.exit_code == 0
    assert "WER" in result.stdout

    command = ("evaluate", model, labelled_store, "--out", tmp_path / "e", "--split", "dev")
    again = call(*command, "--normaliser", "english-1")
    assert [line.split()[1] for line in again.stdout.splitlines() if "ER" in line][:4] == [
        *["english-1"] * 2,
        *["raw"] * 2,
    ]

    table = call("compare", f"one system={tmp_path / 'score'}", tmp_path / "score")
    assert table.exit_code == 0
    assert "one system" in table.stdout
    rates, differences = table.stdout.split("\n\n")
    assert len([line for line in rates.splitlines() if "%" in line and "interval" not in line]) == 2
    assert "+0.0 .. +0.0" in differences


@pytest.mark.slow
def test_a_language_model_from_transcripts_to_texts(
    model: Path, labelled_store: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    """lm, tune-lm, evaluate and transcribe; the greedy result beside is what --greedy gives."""
    run = Path(shutil.copytree(model, tmp_path / "run"))

    command = ("lm", labelled_store, "--out", tmp_path / "lm.arpa", "--order", 3)
    made = call(*command, "--held-out", labelled_store)
    assert made.exit_code == 0
    assert "perplexity of" in made.stdout

    tuned_lm = call("tune-lm", run, tmp_path / "lm.arpa", labelled_store)
    assert tuned_lm.exit_code == 0
    assert tuned_lm.stdout.splitlines()[2].split()[1] == "greedy"

    shown = call("evaluate", run, labelled_store, "--out", tmp_path / "score", "--split", "dev")
    assert "With the language model:" in shown.stdout
    assert "minus greedy" in shown.stdout

    both = [
        json.loads((tmp_path / "score" / name).read_text())
        for name in ("score.json", "lm/score.json")
    ]
    assert "lm" not in both[0]
    assert both[1]["lm"]["unit"] == "words"
    record = json.loads((run / "model/lm/record.json").read_text())["record"]
    assert both[1]["wer"] == record["about"]["wer"]

    shutil.rmtree(run / "model/lm")
    without = ("evaluate", run, labelled_store, "--out", tmp_path / "score", "--split", "dev")
    assert "another language model" in str(call(*without).exception)
    shown = call(*without, "--force")
    assert "With the language model:" not in shown.stdout
    assert not (tmp_path / "score/lm").exists()
    assert call("tune-lm", run, tmp_path / "lm.arpa", labelled_store).exit_code == 0

    wave = labelled_folder / "test000.wav"
    spoken = {
        word
        for line in (labelled_folder / "metadata.csv").read_text().splitlines()
        for word in line.split(",")[1].split()
    }
    assert set(call("transcribe", run, wave).stdout.split()) <= spoken
    greedy = call("transcribe", run, wave, "--greedy")
    assert greedy.stdout == call("transcribe", model, wave).stdout

    (tmp_path / "broken.arpa").write_text((tmp_path / "lm.arpa").read_text()[:-400])
    broken = call("tune-lm", run, tmp_path / "broken.arpa", labelled_store)
    assert isinstance(broken.exception, ConfigError)
    assert "give a whole ARPA file" in str(broken.exception)


def test_a_language_model_over_tokens(model: Path, labelled_store: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    made = call("lm", labelled_store, "--out", tmp_path / "lm.arpa", "--tokens-of", model)
    assert made.exit_code == 0

    assert call("tune-lm", run, tmp_path / "lm.arpa", labelled_store).exit_code == 0
    record = json.loads((run / "model/lm/record.json").read_text())["record"]
    assert record["beam"]["unit"] == "tokens"

    score = ("--out", tmp_path / "score", "--split", "dev")
    assert call("evaluate", run, labelled_store, *score).exit_code == 0


def test_the_unit_of_a_foreign_language_model_is_as_told(
    model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """A file without our note of its unit, which goes by its entries where nothing is told."""
    run = Path(shutil.copytree(model, tmp_path / "run"))
    foreign = tmp_path / "foreign.arpa"
    call("lm", labelled_store, "--out", tmp_path / "lm.arpa", "--tokens-of", model)
    ours = (tmp_path / "lm.arpa").read_text()
    foreign.write_text(ours[ours.index("\\data\\") :])

    for told in ((), ("--unit", "tokens")):
        done = call("tune-lm", run, foreign, labelled_store, *told)
        assert done.exit_code == 0
        record = json.loads((run / "model/lm/record.json").read_text())["record"]
        assert record["beam"]["unit"] == "tokens"


@pytest.mark.parametrize("seed", range(3))
def test_seconds_that_are_left_out_as_silence_are_said(
    model: Path, labelled_folder: Path, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    speech = load_audio(labelled_folder / "test000.wav", RATE)
    pause = 1e-4 * rng.standard_normal(round(rng.uniform(30, 40) * RATE)).astype(np.float32)
    write_wav(tmp_path / "long.wav", np.concatenate([speech, pause, speech]), RATE)

    report = tmp_path / "report.jsonl"
    done = call("transcribe", model, tmp_path / "long.wav", "--report", report)
    row = json.loads(report.read_text())
    pause_s = len(pause) / RATE
    # A little of it stays around the speech.
    assert pause_s - 2 < row["silence_s"] <= pause_s + 0.5
    said = f"{row['silence_s']:.1f} of {row['duration_s']:.1f} s were left out as silence"
    assert said in done.stderr


FEW = ("--set", "train.steps=2", "--set", "train.device=cpu", "--set", "ctc.tokens_per_frame=1")


class Labelling(NamedTuple):
    """A recogniser with a language model, and what it has heard."""

    run: Path
    arpa: Path
    store: Path
    labels: Path


@pytest.fixture(scope="module")
def labelling(
    model: Path, labelled_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Labelling:
    folder = tmp_path_factory.mktemp("labelling")
    run = Path(shutil.copytree(model, folder / "run"))
    (make_labelled(folder / "radio", {"train": 4}, seed=5) / "metadata.csv").unlink()
    assert call("prepare", folder / "radio", folder / "store").exit_code == 0
    assert call("lm", run / "texts.txt", "--out", folder / "own.arpa").exit_code == 0
    assert call("tune-lm", run, folder / "own.arpa", labelled_store).exit_code == 0

    # Trained for six updates, the recogniser hears nothing that is not paid for.
    talkative = BeamConfig(lm_weight=1.0, word_score=20.0)
    words = (run / "texts.txt").read_text().split()
    save_lm(run / "model", folder / "own.arpa", sorted(set(words)), talkative, {})

    labels = folder / "heard.jsonl"
    done = call("label", run, folder / "store", "--out", labels)
    assert done.exit_code == 0, done.exception
    assert done.stdout == f"{labels}\n"
    return Labelling(run, folder / "own.arpa", folder / "store", labels)


@pytest.mark.slow
def test_self_training_as_the_readme_has_it(
    labelling: Labelling, labelled_store: Path, tmp_path: Path
) -> None:
    run, _, store, labels = labelling
    texts = [json.loads(line)["text"] for line in labels.read_text().splitlines()]
    assert len(texts) == len(Store(store))
    assert any(texts)

    before = labels.read_bytes()
    assert call("label", run, store, "--out", labels).exit_code == 0
    assert labels.read_bytes() == before

    options = ("--init-from", run, "--run", tmp_path / "self", *FEW, "--keep", 1)
    done = call("finetune", labelled_store, store, "--labels", labels, *options)
    assert done.exit_code == 0, done.exception
    assert f"{sum(map(bool, texts))} labels are learned from" in done.stderr
    assert (tmp_path / "self/texts.txt").read_text() == (run / "texts.txt").read_text()


@pytest.mark.slow
def test_labels_that_cannot_be_used_cost_no_run(
    labelling: Labelling, model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    run, arpa, store, labels = labelling
    trained = Path(shutil.copytree(model, tmp_path / "trained"))

    def error(*arguments: object) -> str:
        return str(call(*arguments).exception)

    # The model without its language model is another one: its labels would be others.
    said = error("label", model, store, "--out", labels)
    assert "holds labels of another model" in said

    command = ("finetune", labelled_store, "--init-from", run, "--run", trained, *FEW, "--force")
    assert "--keep is of the labels" in error(*command, "--keep", 0.5)
    assert "is no share" in error(*command, "--labels", labels, "--keep", 1.5)

    unusable = {
        tmp_path / "typo.jsonl": "cannot be read as labels",
        arpa: "is no label",
        labels: "no label is of use",  # of another store
    }
    for given, problem in unusable.items():
        assert problem in error(*command, "--labels", given)
    assert (trained / "model").exists()


def test_a_language_model_that_does_not_fit_is_an_error(
    model: Path,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*arguments: object) -> str:
        return one_line(monkeypatch, capsys, *arguments)

    text = tmp_path / "text.txt"
    text.write_text("ABBA DAD\nFACE\n")
    made = call("lm", text, "--out", tmp_path / "upper.arpa", "--normaliser", "none-1")
    assert made.exit_code == 0

    assert "3 of the 3 words of the language model have characters" in error(
        "tune-lm", model, tmp_path / "upper.arpa", labelled_store
    )

    (tmp_path / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    assert "list them with --words FILE" in error(
        "tune-lm", model, tmp_path / "lm.bin", labelled_store
    )

    assert "cannot be read as" in error("tune-lm", model, tmp_path / "missing.arpa", labelled_store)
    assert "allowed are 2 to 6" in error("lm", text, "--out", tmp_path / "x.arpa", "--order", 9)

    # The texts are normalised as the model does it.
    made = call("lm", text, "--out", tmp_path / "a.arpa", "--tokens-of", model)
    assert made.exit_code == 0
    assert "\ta\t" in (tmp_path / "a.arpa").read_text()

    assert "unknown normaliser" in error(
        "lm", text, "--out", tmp_path / "x.arpa", "--normaliser", "nothing"
    )

    assert not (tmp_path / "x.arpa").exists()
    assert not (model / "model/lm").exists()


@pytest.mark.slow
def test_transcribe_prints_text_or_json(model: Path, labelled_folder: Path) -> None:
    wave = labelled_folder / "test000.wav"
    single = call("transcribe", model, wave)
    assert single.exit_code == 0

    several = call("transcribe", model, wave, labelled_folder / "test001.wav")
    assert several.stdout.splitlines()[0] == f"{wave}\t{single.stdout.strip()}"

    as_json = call("transcribe", model, wave, "--output-format", "json")
    assert json.loads(as_json.stdout)["text"] == single.stdout.strip()


@pytest.mark.slow
def test_transcribe_writes_a_mirrored_tree(
    model: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    wave = labelled_folder / "test000.wav"
    for name in ("a/x.wav", "b/x.wav", "b/bad.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"" if "bad" in name else wave.read_bytes())
    command = ("transcribe", model, tmp_path / "in", "--output-format", "txt,json")
    command += ("--output-dir", tmp_path / "out")

    result = call(*command)
    assert result.exit_code == 3
    assert "bad.wav" in result.stderr
    assert result.stdout == ""

    written = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    notes, texts = written[:2], written[2:]
    assert notes == [".speechssl-done.jsonl", ".speechssl.json"]
    assert texts == ["a/x.wav.json", "a/x.wav.txt", "b/x.wav.json", "b/x.wav.txt"]

    assert "2 of 3 files are done already" in call(*command).stderr

    shutil.rmtree(tmp_path / "out")
    assert call(*command, "--jobs", 2, "--threads", 2).exit_code == 3
    assert written == sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")
    )

    assert call("transcribe", model, tmp_path / "in/b/bad.wav").exit_code == 4


@pytest.mark.slow
def test_standard_input_is_a_file_like_any_other(
    model: Path, labelled_folder: Path, tmp_path: Path, speechssl_command: Path
) -> None:
    wave = labelled_folder / "test000.wav"
    command = [speechssl_command, "transcribe", model, "-", "--threads", "1", "--device", "cpu"]
    command += ["--report", tmp_path / "report.jsonl"]

    done = subprocess.run(
        [*command, "--output-format", "jsonl"], input=wave.read_bytes(), stdout=subprocess.PIPE
    )
    assert done.returncode == 0

    expected = json.loads(call("transcribe", model, wave, "--output-format", "jsonl").stdout)
    assert json.loads(done.stdout) == expected | {"path": "-"}
    row = {
        "path": "-",
        "status": "done",
        "duration_s": expected["duration_s"],
        "silence_s": 0.0,
        "words": len(expected["text"].split()),
    }
    assert json.loads((tmp_path / "report.jsonl").read_text()) == row

    done = subprocess.run(
        [*command, "--output-dir", tmp_path], input=b"no audio", stderr=subprocess.PIPE
    )
    assert done.returncode == 4
    assert json.loads((tmp_path / "report.jsonl").read_text())["status"] == "failed"


def test_the_report_says_what_became_of_each_file(
    model: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        shutil.copy(labelled_folder / "test000.wav", tmp_path / f"in/{name}.wav")
    (tmp_path / "in/bad.wav").write_bytes(b"")
    command = ("transcribe", model, tmp_path / "in", "--output-dir", tmp_path / "out")
    command += ("--report", tmp_path / "r.jsonl")

    assert call(*command).exit_code == 3

    (tmp_path / "out/a.wav.txt").unlink()
    assert call(*command).exit_code == 3

    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(Path(row["path"]).name, row["status"]) for row in rows] == [
        ("a.wav", "done"), ("b.wav", "done before"), ("bad.wav", "failed")
    ]  # fmt: skip
    assert "empty" in rows[2]["error"]


def test_files_of_several_channels_are_counted_in_one_line(
    model: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    mono = load_audio(labelled_folder / "test000.wav", RATE)
    write_wav(tmp_path / "in/mono.wav", mono, RATE)
    for name in ("a", "b"):
        write_wav(tmp_path / f"in/{name}.wav", np.stack([mono, mono], axis=1), RATE)

    done = call("transcribe", model, tmp_path / "in")
    assert done.exit_code == 0
    assert done.stderr.count("have several channels") == 1
    line = "2 of 3 files have several channels that are equal; they are heard as one"
    assert line in done.stderr

    left_and_right = np.stack([mono, np.roll(mono, 999)], axis=1)
    write_wav(tmp_path / "in/b.wav", left_and_right, RATE)
    both = call("transcribe", model, tmp_path / "in")
    equal = "1 of 3 files have several channels that are equal; they are heard as one"
    assert f"{equal}; 1 of 3 files have several channels that differ" in both.stderr

    without = call("transcribe", model, tmp_path / "in/mono.wav")
    assert "several channels" not in without.stderr


KILLED = """
import os, signal, sys
from pathlib import Path
left, when, rename = [int(sys.argv.pop(1))], sys.argv.pop(1), Path.replace
def replace(self, target):
    left[0] -= 1
    if when == "after":
        rename(self, target)
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "before":
        rename(self, target)
Path.replace = replace
from speechssl.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_killed_transcription_run_again_gives_the_tree_of_an_undisturbed_one(
    model: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    """Killed between writing a file and giving it its name, and before that is noted."""
    (tmp_path / "in/deep").mkdir(parents=True)
    for number in range(6):
        shutil.copy(
            labelled_folder / f"train{number:03d}.wav",
            tmp_path / "in" / ("deep" if number % 2 else ""),
        )

    command = ["transcribe", model, tmp_path / "in"]
    command += ["--output-format", "txt,json,srt", "--output-dir"]

    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    for renames, when in ((1, "before"), (5, "before"), (4, "after")):
        arguments = [renames, when, *command, tmp_path / "killed"]
        child = children.start_script(script, arguments, tmp_path / "log", {})
        child.join()
        assert child.exitcode == -signal.SIGKILL
        left_over = list((tmp_path / "killed").rglob(".speechssl-*.tmp"))
        assert bool(left_over) == (when == "before")

    assert call(*command, tmp_path / "killed").exit_code == 0
    assert call(*command, tmp_path / "whole").exit_code == 0

    def tree(folder: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file() and p.name != DONE
        }

    assert read_done(tmp_path / "killed") == read_done(tmp_path / "whole")  # whatever lines it took
    assert len(tree(tmp_path / "whole")) == 19
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_stdout_takes_any_file_name(model: Path, labelled_folder: Path, tmp_path: Path) -> None:
    """One line a file with the bytes of its name, also where Python's stdout refuses them."""
    for name in (b"new\nline.wav", b"not-utf8-\xff.wav"):
        shutil.copy(labelled_folder / "test000.wav", tmp_path / os.fsdecode(name))
    command = [sys.executable, "-m", "speechssl.cli", "transcribe", model, tmp_path]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    )
    assert done.returncode == 0
    names = [
        line.split(b"\t")[0].removeprefix(os.fsencode(tmp_path) + b"/")
        for line in done.stdout.splitlines()
    ]
    assert names == [b"new\\nline.wav", b"not-utf8-\xff.wav"]


def test_the_place_of_a_result_does_not_depend_on_other_files(
    model: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    shutil.copy(labelled_folder / "test000.wav", tmp_path / "in/deep/x.wav")
    call("transcribe", model, tmp_path / "in", "--output-dir", tmp_path / "out")
    assert (tmp_path / "out/deep/x.wav.txt").is_file()


def test_rows_of_a_comparison_are_told_apart(
    model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    call("evaluate", model, labelled_store, "--out", tmp_path / "lr=0.1/dev", "--split", "dev")
    shutil.copytree(tmp_path / "lr=0.1", tmp_path / "b")
    table = call("compare", tmp_path / "lr=0.1/dev", tmp_path / "b/dev", f"c={tmp_path / 'b/dev'}")
    assert [line.split()[1] for line in table.stdout.splitlines()[2:5]] == [
        str(tmp_path / "lr=0.1/dev"),
        str(tmp_path / "b/dev"),
        "c",
    ]


def test_an_encoder_without_a_head_says_what_to_do(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "pretrained"
    pretrain([labelled_store], run, PRETRAIN)
    capsys.readouterr()
    assert "fine-tune it first" in one_line(
        monkeypatch, capsys, "evaluate", run, labelled_store, "--out", tmp_path / "score"
    )


@pytest.mark.parametrize("seed", range(2))
def test_recordings_that_were_learned_from_are_said_to_be(
    seed: int, model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """An error rate of train looked like any other."""
    rng = random.Random(seed)
    store = tmp_path / "copy"
    shutil.copytree(labelled_store, store)
    folder = rng.choice([model, model / "model"])
    heard = {}
    for split in ("train", "test", "dev"):
        out = tmp_path / split
        done = call("evaluate", folder, store, "--split", split, "--out", out)
        assert done.exit_code == 0, done.exception
        heard[split] = f"the recogniser learned from {store}, split {split}" in done.stderr
    assert heard == {"train": True, "test": False, "dev": False}
