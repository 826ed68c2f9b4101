"""The verb tune-lm with a recogniser that writes the character that stands for the space."""

import json
import random
from pathlib import Path

import pytest
from support.commands import call
from support.models import random_recogniser
from support.speech import make_labelled

from speechssl.data.prepare import prepare
from speechssl.recognition.model import CtcConfig, CtcModel, save_ctc
from speechssl.text.character_tokenizer import CharTokenizer


@pytest.fixture(scope="module", params=["|", "<>|"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose transcripts have bars, and a recogniser of their characters."""
    root = tmp_path_factory.mktemp("bars")
    recordings = make_labelled(root / "recordings", {"train": 4, "dev": 3})

    draws = random.Random(request.param)
    table = recordings / "metadata.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    lines = [header]
    for row in rows:
        name, text, *others = row.split(",")
        words = [f"{draws.choice(request.param)}{word}|{word}" for word in text.split()]
        lines.append(",".join([name, " ".join(words), *others]))
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(recordings, root / "store")

    tokenizer = CharTokenizer.train([" ".join(lines[1:])])
    model = CtcModel(random_recogniser().encoder, tokenizer, "none-1", CtcConfig())
    save_ctc(model, root / "model", {})
    return root


@pytest.mark.parametrize("unit", ["tokens", "words"])
def test_bars_in_transcripts_are_no_spaces(folder: Path, unit: str, tmp_path: Path) -> None:
    model, store, arpa = folder / "model", folder / "store", tmp_path / "lm.arpa"
    of_tokens = ("--tokens-of", model) if unit == "tokens" else ("--normaliser", "none-1")
    made = call("lm", store, "--out", arpa, "--order", 2, *of_tokens)
    assert made.exit_code == 0, made.exception
    entries = [line.split("\t")[1] for line in arpa.read_text().splitlines() if "\t" in line]
    if unit == "tokens":
        assert {"|", "<bar>"} <= set(entries)
    else:
        assert any("|" in entry for entry in entries)

    done = call("tune-lm", model, arpa, store)
    assert done.exit_code == 0, done.exception
    assert "greedy" in done.stdout

    scored = call("evaluate", model, store, "--split", "dev", "--out", tmp_path / "score")
    assert scored.exit_code == 0, scored.exception
    summary = json.loads((tmp_path / "score/score.json").read_text())
    # Words that the few texts lack are among these, and no character of the transcripts.
    assert all(len(part) > 1 for part in summary["unwritable"])


@pytest.mark.parametrize("seed", range(2))
def test_words_that_the_language_model_lacks_are_named_before_it_is_tuned(
    folder: Path, seed: int, tmp_path: Path
) -> None:
    """Only evaluate said so, when the language model was in the folder already."""
    model, store = folder / "model", folder / "store"
    texts = tmp_path / "texts.txt"
    with (folder / "recordings/metadata.csv").open(encoding="utf-8") as table:
        transcripts = [line.split(",")[1] for line in table][1:]
    # Its letters are known to the recogniser.
    word = random.Random(seed).choice(" ".join(transcripts).split())
    texts.write_text(f"{word}{word}\n" * 9, encoding="utf-8")
    arpa = tmp_path / "lm.arpa"
    made = call("lm", texts, "--out", arpa, "--order", 2, "--normaliser", "none-1")
    assert made.exit_code == 0, made.exception
    for options in ([], ["--unit", "words"]):
        tuned = call("tune-lm", model, arpa, store, *options)
        said = [line for line in tuned.stderr.splitlines() if "cannot be written" in line]
        assert len(said) == 1, tuned.stderr
        assert "words of the transcripts" in said[0]
