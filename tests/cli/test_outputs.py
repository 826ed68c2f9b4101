"""Nothing that is there is replaced without a word, whichever verb would write there."""

import json
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from support.commands import call
from support.language_models import write_lm
from support.models import random_recogniser
from support.speech import make_labelled
from typer.testing import Result

from speechssl.data.prepare import prepare
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.errors import ConfigError, ManifestError
from speechssl.recognition.language_model import LM_FOLDER, lm_digest, save_lm
from speechssl.recognition.model import save_ctc
from speechssl.scoring import score_files
from speechssl.storage.json_text import read_json_lines
from speechssl.transcription import transcribe_inputs
from speechssl.transcription.formats import FORMATS
from speechssl.transcription.transcript import Transcript

WORDS = ["abc", "bad", "cafe", "dead", "fade", "face"]
OTHER_NORMALISERS = ["none-1", "basic-2", "english-2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without a language model."""
    folder = tmp_path_factory.mktemp("outputs") / "model"
    save_ctc(random_recogniser(), folder, {})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def give_lm(model: Path, seed: int) -> None:
    """Put a language model into a model folder, another one for each seed."""
    words = random.Random(seed).sample(WORDS, len(WORDS))
    arpa = model.parent / f"{seed}.arpa"
    write_lm(arpa, [words, words[:4]], 2)
    save_lm(model, arpa, WORDS, BeamConfig(lm_weight=1.0), lm_digest(arpa))


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of other recordings."""
    root = tmp_path_factory.mktemp("other")
    prepare(make_labelled(root / "recordings", {"test": 3}, seed=1), root / "store")
    return root / "store"


@pytest.mark.parametrize("changed", ["model", "store", "split", "normaliser"])
def test_scores_of_something_else_stay(
    changed: str, folder: Path, labelled_store: Path, other_store: Path, tmp_path: Path
) -> None:
    """The same model under another path is the same, and another under its path is another."""
    draws = random.Random(changed)
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    given = {"store": labelled_store, "split": "test", "normaliser": "basic-1"}
    out = tmp_path / "score"

    def evaluate(model: Path, *options: str, **given: object) -> Result:
        named = ("--split", given["split"], "--normaliser", given["normaliser"])
        return call("evaluate", model, given["store"], "--out", out, *named, *options)

    assert evaluate(model, **given).exit_code == 0
    assert evaluate(copy, **given).exit_code == 0
    before = contents(out)

    others = {"store": other_store, "split": "dev", "normaliser": draws.choice(OTHER_NORMALISERS)}
    if changed == "model":
        recogniser = random_recogniser()
        recogniser.head.bias.data.fill_(draws.uniform(0.1, 0.2))
        save_ctc(recogniser, model, {})
    else:
        given[changed] = others[changed]

    refused = evaluate(model, **given)
    assert f"{out} holds the scores of another {changed} (" in str(refused.exception)
    assert "give another --out, or --force" in str(refused.exception)
    assert contents(out) == before

    assert evaluate(model, "--force", **given).exit_code == 0
    assert contents(out) != before


def test_scores_of_another_language_model_stay(
    folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """To one without, a language model may come: no score is lost by that."""
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    out = tmp_path / "score"
    command = ("evaluate", model, labelled_store, "--out", out)

    assert call(*command).exit_code == 0
    give_lm(model, 0)
    assert call(*command).exit_code == 0
    before = contents(out)

    give_lm(model, 1)
    assert "of another language model (" in str(call(*command).exception)
    shutil.rmtree(model / LM_FOLDER)
    assert "of another language model (" in str(call(*command).exception)
    assert contents(out) == before

    assert call(*command, "--force").exit_code == 0
    assert not (out / LM_FOLDER).exists()


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_two_evaluations_are_never_mixed(
    seed: int, folder: Path, labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two files, and given again without --force."""
    draws = random.Random(seed)
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    give_lm(model, 0)
    out = tmp_path / "score"
    command = ("evaluate", model, labelled_store, "--out", out)
    assert call(*command).exit_code == 0

    # Files that are written before the stop, of those of the score and of the lm's.
    left = draws.randrange(5)
    write = score_files.write_atomic

    def stopped(path: Path, text: str | Iterable[str]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("stopped")
        write(path, text)

    other = (*command, "--split", "dev")
    with monkeypatch.context() as patch:
        patch.setattr(score_files, "write_atomic", stopped)
        assert "stopped" in str(call(*other, "--force").exception)
    for place in (out, out / LM_FOLDER):
        if (place / "score.json").exists():
            assert json.loads((place / "score.json").read_text())["split"] == "dev"
    assert call(*other).exit_code == 0
    after = contents(out)

    whole = call("evaluate", model, labelled_store, "--split", "dev", "--out", tmp_path / "whole")
    assert whole.exit_code == 0
    assert after == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["report.txt", "score.txt", "ref.trn"])
def test_a_file_with_the_name_of_one_of_a_score_stays(
    name: str, folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / name).write_text("mine")
    refused = call("evaluate", folder, labelled_store, "--out", tmp_path / "notes")
    assert "is there already and holds no scores" in str(refused.exception)
    assert (tmp_path / "notes" / name).read_text() == "mine"


def test_scores_of_an_earlier_version_are_known_by_their_paths(
    folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "score"
    command = ("evaluate", folder, labelled_store, "--out", out)
    assert call(*command).exit_code == 0

    summary = json.loads((out / "score.json").read_text())
    del summary["digests"]
    (out / "score.json").write_text(json.dumps(summary))
    assert "another split" in str(call(*command, "--split", "dev").exception)
    assert call(*command).exit_code == 0

    (out / "score.json").write_text("{")
    assert "score.json is damaged" in str(call(*command).exception)

    # What a kill left before the summary was written.
    (out / "score.json").unlink()
    assert call(*command).exit_code == 0


@pytest.mark.parametrize("verb", ["lm", "lexicon make", "lexicon extend", "probe"])
def test_a_file_that_is_there_stays(verb: str, labelled_store: Path, tmp_path: Path) -> None:
    draws = random.Random(verb)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(draws.choices(WORDS, k=9)) + "\n")
    lexicon = tmp_path / "words.dict"
    lexicon.write_text("".join(f"{word}  {' '.join(word.upper())}\n" for word in WORDS))
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")

    arguments: dict[str, list[object]] = {
        "lm": ["lm", text, "--order", 2],
        "lexicon make": ["lexicon", "make", text, "--from", lexicon],
        "lexicon extend": ["lexicon", "extend", lexicon, text],
        "probe": ["probe", tmp_path / "model", f"characters={tmp_path}"],
    }
    command = arguments[verb]
    out = mine
    if verb == "probe":
        name = draws.choice(["probe.json", "probe.png"])
        (tmp_path / name).write_text("mine")
        out = tmp_path

    assert "is there already: give another --out, or --force" in str(
        call(*command, "--out", out).exception
    )
    assert mine.read_text() == "mine"
    if verb == "probe":
        return

    assert call(*command, "--out", mine, "--force").exit_code == 0
    assert mine.read_text() != "mine"

    # What it reads is never replaced.
    read = text.read_bytes()
    same = tmp_path / "link.txt"
    same.symlink_to(text)
    refused = call(*command, "--out", same, "--force")
    assert "which this command reads" in str(refused.exception)

    # Nor is a file of a store that it reads.
    record = labelled_store / "store.json"
    before = record.read_bytes()
    refused = call(*command, labelled_store, "--out", record, "--force")
    assert "which this command reads" in str(refused.exception)
    assert record.read_bytes() == before
    assert text.read_bytes() == read


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize(
    "verb", ["lm", "lexicon make", "lexicon extend", "label", "transcribe", "bench"]
)
def test_nothing_but_a_file_is_replaced(
    verb: str, kind: str, folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """Not a pipe either, nor what is like one: ``/dev/null`` for example."""
    text = tmp_path / "text.txt"
    text.write_text("abc bad\n")
    lexicon = tmp_path / "words.dict"
    lexicon.write_text("abc  A B C\nbad  B A D\n")
    commands: dict[str, list[object]] = {
        "lm": ["lm", text, "--force", "--out"],
        "lexicon make": ["lexicon", "make", text, "--from", lexicon, "--force", "--out"],
        "lexicon extend": ["lexicon", "extend", lexicon, text, "--force", "--out"],
        "label": ["label", folder, labelled_store, "--out"],
        "transcribe": ["transcribe", folder, tmp_path / "none.wav", "--report"],
        "bench": ["bench", "finetune", "--json"],
    }

    out = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(out)
    elif kind == "link":
        (tmp_path / "target").write_text("mine")
        out.symlink_to(tmp_path / "target")
    else:
        out.mkdir()
    before = out.lstat()

    refused = call(*commands[verb], out)
    assert isinstance(refused.exception, (ConfigError, ManifestError))
    assert str(out) in str(refused.exception)
    assert out.lstat() == before


@pytest.mark.parametrize("seed", range(4))
def test_a_file_of_one_line_that_holds_no_label_stays(
    folder: Path, labelled_store: Path, tmp_path: Path, seed: int
) -> None:
    """Without a line end it was taken for what a kill left of a label, and cut off."""
    draws = random.Random(seed)
    mine = tmp_path / "mine.json"
    word = "".join(draws.choices("abcdef", k=draws.randrange(1, 12)))
    lines = [word, f'{{"id": "{word}", "choices": []}}', f'{{"text": "{word}', f"\0{word}"]
    mine.write_text(lines[seed])

    refused = call("label", folder, labelled_store, "--out", mine)
    assert f"{mine}:1 is no label" in str(refused.exception)
    assert mine.read_text() == lines[seed]


@pytest.mark.parametrize("seed", range(2))
def test_force_that_was_stopped_goes_on_without_it(
    folder: Path, labelled_folder: Path, tmp_path: Path, seed: int
) -> None:
    """The second time with another silence: its transcripts must not stay among those before."""
    draws = random.Random(seed)
    for name in ("a", "deep/a", "deep/er/b"):
        recording = tmp_path / f"in/{name}.wav"
        recording.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(labelled_folder / "test000.wav", recording)
    kind = draws.choice(sorted(FORMATS))
    command = ["transcribe", folder, tmp_path / "in", "--output-dir", tmp_path / "out"]
    command += ["--output-format", kind, "--report", tmp_path / "report.jsonl"]
    assert call(*command).exit_code == 0

    # And a file of the user, whom --force has told that it is replaced.
    shutil.copy(labelled_folder / "test000.wav", tmp_path / "in/c.wav")
    (tmp_path / f"out/c.wav.{kind}").write_text("said so")

    with pytest.MonkeyPatch.context() as patch:

        def stopped(*given: object) -> list[Transcript]:
            raise OSError("stopped")

        patch.setattr(transcribe_inputs, "transcribe_files", stopped)
        assert "stopped" in str(call(*command, "--silence-db", 20, "--force").exception)

    for expected in ("done", "done before"):
        assert call(*command, "--silence-db", 20).exit_code == 0
        rows = read_json_lines(tmp_path / "report.jsonl")
        assert [row["status"] for row in rows] == [expected] * 4


@pytest.mark.parametrize("seed", range(2))
def test_texts_and_reports_of_others_stay(
    folder: Path, labelled_folder: Path, tmp_path: Path, seed: int
) -> None:
    """A transcript made by hand beside its recording, and any file in the place of a report."""
    draws = random.Random(seed)
    for name in ("a", "b", "deep/a"):
        recording = tmp_path / f"{name}.wav"
        recording.parent.mkdir(exist_ok=True)
        shutil.copy(labelled_folder / "test000.wav", recording)
    kinds = draws.sample(sorted(FORMATS), 2)

    command = ("transcribe", folder, tmp_path, "--output-dir", tmp_path)
    command += ("--output-format", ",".join(kinds))

    def check_it_stays(mine: Path) -> None:
        mine.write_text("said so")
        before = contents(tmp_path)
        refused = call(*command)
        assert f"{mine} is there already, and .speechssl-done.jsonl does not" in str(
            refused.exception
        )
        assert contents(tmp_path) == before

        assert call(*command, "--force").exit_code == 0
        assert mine.read_text() != "said so"
        assert call(*command).exit_code == 0

    check_it_stays(tmp_path / f"{draws.choice(['a', 'b', 'deep/a'])}.wav.{draws.choice(kinds)}")

    # Also where transcripts of ours are.
    shutil.copy(labelled_folder / "test000.wav", tmp_path / "deep/c.wav")
    check_it_stays(tmp_path / f"deep/c.wav.{draws.choice(kinds)}")

    notes = tmp_path / "notes.jsonl"
    notes.write_text(draws.choice(["my notes\n", '{"status": "done"}\n']))
    before = notes.read_text()
    refused = call(*command, "--report", notes)
    assert f"{notes} is there already and holds no report" in str(refused.exception)
    assert notes.read_text() == before

    report = tmp_path / "report.jsonl"
    assert call(*command, "--report", report).exit_code == 0
    assert call(*command, "--report", report).exit_code == 0


def test_a_language_model_that_takes_the_place_of_another_is_named(
    folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """The store has no such split, so nothing is tuned, and what is there stays."""
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    tuned_on = (labelled_store, "--split", "nothing")
    command = ("tune-lm", model, tmp_path / "1.arpa", *tuned_on)
    give_lm(model, 1)
    assert "whose place" not in call(*command).stderr

    arpa = tmp_path / "0.arpa"
    write_lm(arpa, [WORDS], 2)
    about = {"lm": "books.arpa"} | lm_digest(arpa)
    save_lm(model, arpa, WORDS, BeamConfig(lm_weight=1.0), about)
    done = call(*command)
    assert f"has the language model of books.arpa, whose place {tmp_path / '1.arpa'}" in done.stderr
    same = call("tune-lm", model, arpa, *tuned_on)
    assert "whose place" not in same.stderr


@pytest.mark.parametrize("verb", ["prepare", "pretrain", "finetune", "transcribe"])
def test_measures_replace_no_file(verb: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    refused = call("bench", verb, "--json", mine)
    assert f"{mine} is there already: give another --json" in str(refused.exception)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("seed", range(3))
def test_no_plain_file_gets_the_name_of_a_compressed_one(seed: int, tmp_path: Path) -> None:
    """lm itself and tune-lm could not read it again."""
    draws = np.random.default_rng(seed)
    suffix = str(draws.choice([".gz", ".bz2", ".xz", ".GZ"]))
    text = tmp_path / "text"
    text.write_text("one two three\n" * int(draws.integers(3, 9)))

    for verb, name in [("lm", "x.arpa"), ("lexicon make", "x.dict"), ("label", "x.jsonl")]:
        out = tmp_path / f"{name}{suffix}"
        given = {
            "lm": ("lm", text),
            "lexicon make": ("lexicon", "make", text, "--from", "espeak-ng:en"),
            "label": ("label", tmp_path / "model", tmp_path / "store"),
        }[verb]
        refused = call(*given, "--out", out)
        expected = f"{out} would not be compressed: give --out without {suffix.lower()}"
        assert expected in str(refused.exception)
        assert not out.exists()
