"""The object that users hold hears what the command hears, and nothing else loads or decodes."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from support.commands import call
from support.language_models import write_lm
from support.models import random_recogniser
from support.places import ROOT

import speechssl
from speechssl.data.store import Store
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.errors import AudioError, CheckpointError
from speechssl.recognition.language_model import save_lm
from speechssl.recognition.model import CtcConfig, CtcModel, save_ctc
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.transcription.recogniser import Recogniser, load_recogniser

WORDS = ["abc", "bad", "cafe", "dead", "fade", "face"]
# What loads a model or chooses how it is decoded: the recogniser's own business.
LOADING_AND_DECODING = {
    "load_ctc",
    "load_lm",
    "beam_decoder",
    "greedy_decoder",
    "BeamSearch",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a language model that greedy decoding does not agree with."""
    root = tmp_path_factory.mktemp("recogniser")
    save_ctc(random_recogniser(), root / "model", {})
    arpa = root / "given.arpa"
    write_lm(arpa, [WORDS, WORDS[::-1]], 2)
    save_lm(root / "model", arpa, WORDS, BeamConfig(lm_weight=1.0), {})
    return root / "model"


@pytest.fixture(scope="module")
def recogniser(folder: Path) -> Recogniser:
    return load_recogniser(folder, device="cpu")


def test_public_names_are_this_object() -> None:
    assert speechssl.load_recogniser is load_recogniser
    assert speechssl.Recogniser is Recogniser


def test_it_transcribes_what_the_command_prints(
    recogniser: Recogniser, folder: Path, labelled_folder: Path
) -> None:
    path = labelled_folder / "test000.wav"
    transcript = recogniser.transcribe(path)
    printed = call("transcribe", folder, path, "--output-format", "json", "--device", "cpu").stdout
    assert json.loads(printed) == transcript.as_dict()

    # Only words of the language model can be in it: a network of random weights has others.
    greedy = load_recogniser(folder, device="cpu", language_model=False).transcribe(path)
    assert set(transcript.text.split()) <= set(WORDS)
    assert transcript.text != greedy.text


def test_it_evaluates_what_the_command_writes(
    recogniser: Recogniser, folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    evaluation = recogniser.evaluate(labelled_store)
    assert evaluation.with_language_model is not None
    assert evaluation.best is evaluation.with_language_model

    done = call("evaluate", folder, labelled_store, "--out", tmp_path / "score")
    assert done.exit_code == 0, done.stderr
    for out, score in (
        (tmp_path / "score", evaluation.greedy),
        (tmp_path / "score" / "lm", evaluation.with_language_model),
    ):
        written = json.loads((out / "score.json").read_text(encoding="utf-8"))
        lines = (out / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
        assert written["wer"] == score.wer
        assert [json.loads(line) for line in lines] == [u.as_dict() for u in score.utterances]


def test_it_counts_what_it_could_not_write(
    folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """Words that its language model lacks, and characters that it has no token for."""
    store = Store(labelled_store)
    texts = [store.record(int(row)).text or "" for row in store.indices(["test"])]
    characters = Counter(c for text in texts for c in text if c in "ef")
    words = Counter(word for text in texts for word in text.split() if word not in WORDS)

    few_letters = CharTokenizer.train(["abcd"])
    encoder = random_recogniser().encoder
    save_ctc(CtcModel(encoder, few_letters, "basic-1", CtcConfig()), tmp_path / "few", {})

    for model, expected in ((folder, words), (tmp_path / "few", characters)):
        out = tmp_path / f"score-{model.name}"
        done = call("evaluate", model, labelled_store, "--out", out)
        assert done.exit_code == 0, done.stderr
        written = json.loads((out / "score.json").read_text(encoding="utf-8"))
        assert written["unwritable"] == expected
        assert f" {expected.total()} of " in done.stderr


@pytest.mark.parametrize("letters", ["今天气很好我", "今天气很好我 "])
def test_words_of_scripts_without_spaces_are_joined_everywhere(
    letters: str, labelled_folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """The network never says a space, with a token for it or without one."""
    tokenizer = CharTokenizer(letters)
    torch.manual_seed(0)
    model = CtcModel(random_recogniser().encoder, tokenizer, "basic-2", CtcConfig())
    torch.nn.init.normal_(model.head.weight, std=0.5)
    with torch.no_grad():
        for token, text in enumerate(tokenizer.texts):
            if text == " ":
                model.head.bias[token] = -50.0

    words = ["今天", "天气", "很好", "我", "好"]
    save_ctc(model, tmp_path / "model", {})
    write_lm(tmp_path / "given.arpa", [words, words[::-1]], 2)
    save_lm(tmp_path / "model", tmp_path / "given.arpa", words, BeamConfig(lm_weight=0.5), {})
    recogniser = load_recogniser(tmp_path / "model", device="cpu")

    labels = recogniser.label(labelled_store, tmp_path / "labels.jsonl", split="test")
    texts = {label.id: label.text for label in labels}
    several_words = re.compile(f"({'|'.join(words)}){{2,}}")
    assert any(map(several_words.fullmatch, texts.values()))
    assert all(set(text) <= set("".join(words)) for text in texts.values())

    evaluation = recogniser.evaluate(labelled_store)
    assert {u.utterance_id: u.hypothesis for u in evaluation.best.utterances} == texts
    # A sentence is no word that the language model lacks.
    assert all(len(unwritable) == 1 for unwritable in evaluation.unwritable)

    name = max(texts, key=lambda name: len(texts[name]))
    transcript = recogniser.transcribe(labelled_folder / f"{name}.wav")
    assert transcript.text == texts[name]
    characters = [word.text for segment in transcript.segments for word in segment.words]
    assert characters == list(texts[name])


def test_it_labels_what_the_command_labels(
    recogniser: Recogniser, folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    labels = recogniser.label(labelled_store, tmp_path / "ours.jsonl", split="dev")
    done = call(
        "label", folder, labelled_store, "--out", tmp_path / "command.jsonl", "--split", "dev"
    )
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "ours.jsonl").read_bytes() == (tmp_path / "command.jsonl").read_bytes()
    assert {word for one in labels for word in one.text.split()} <= set(WORDS)


def test_a_model_without_a_language_model_is_greedy(labelled_store: Path, tmp_path: Path) -> None:
    save_ctc(random_recogniser(), tmp_path / "model", {})
    evaluation = load_recogniser(tmp_path / "model").evaluate(labelled_store, split="dev")
    assert evaluation.with_language_model is None
    assert evaluation.best is evaluation.greedy


def test_what_cannot_be_read_or_loaded_says_so(recogniser: Recogniser, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"empty\.wav: empty file"):
        recogniser.transcribe(tmp_path / "empty.wav")
    with pytest.raises(CheckpointError, match="neither a model folder"):
        load_recogniser(tmp_path)


def names_in(path: Path) -> set[str]:
    """Every name that a file imports or uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
    return found


def test_the_command_and_its_workers_load_and_decode_by_this_object_alone() -> None:
    """``transcribe`` decodes greedily if a Python program gives it no decoder; so it may."""
    package = ROOT / "speechssl"
    allowed = {"recogniser.py", "transcribe.py"}
    files = [*package.glob("cli/*.py"), *package.glob("transcription/*.py")]
    assert len(files) > 15

    for path in files:
        if path.name not in allowed:
            assert names_in(path) & LOADING_AND_DECODING == set(), path
