"""Fine-tuning with a pronunciation lexicon: what is learned, measured and left out."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from support.language_models import lm_lines
from support.settings import FEW, tuned
from torch import Tensor

from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.lexicon import token_names
from speechssl.errors import ConfigError
from speechssl.recognition.evaluation_files import write_evaluation
from speechssl.recognition.finetune import finetune
from speechssl.recognition.language_model import load_lm
from speechssl.recognition.lm_tuning import tune_lm
from speechssl.recognition.model import load_ctc
from speechssl.storage.json_text import read_json_lines
from speechssl.text.normalise import normalise
from speechssl.text.tokenizer import UNK_ID
from speechssl.transcription.recogniser import load_recogniser


def transcripts(store: Path, split: str) -> dict[str, str]:
    dataset = Dataset([Store(store)], [split])
    pairs = [dataset.id_text(position) for position in range(len(dataset))]
    return {name: normalise(text or "", "basic-1") for name, text in pairs}


def write_lexicon(path: Path, store: Path, without: set[str]) -> Path:
    """The letters of each word as its phones, but "a" and "b" sound alike."""
    words = {
        word
        for split in ("train", "dev", "test")
        for text in transcripts(store, split).values()
        for word in text.split()
    }
    lines = [f"{word} {' '.join(word.replace('b', 'a').upper())}\n" for word in words - without]
    path.write_text("".join(sorted(lines)))
    return path


@pytest.fixture(scope="module")
def lost(labelled_store: Path) -> tuple[str, str]:
    """An utterance of train, and a word of it that the lexicon will lack."""
    name, text = sorted(transcripts(labelled_store, "train").items())[0]
    return name, max(text.split(), key=len)


@pytest.fixture(scope="module")
def run(
    labelled_store: Path, lost: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("phones")
    test = sorted(transcripts(labelled_store, "test").items())[0][1].split()
    lexicon = write_lexicon(folder / "lexicon.txt", labelled_store, {lost[1], test[0]})
    finetune([labelled_store], folder / "run", tuned(tokenizer=f"phones:{lexicon}"), init=None)
    return folder / "run"


def test_the_best_model_has_the_lowest_phone_error_rate(run: Path) -> None:
    rows = [row for row in read_json_lines(run / "metrics.jsonl") if "dev_per" in row]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["dev_score"] == row["dev_per"] for row in rows)
    assert not any("dev_wer" in row for row in rows)
    assert "lexicon" in json.loads((run / "settings.json").read_text())


def test_an_utterance_with_a_word_that_has_no_pronunciation_is_left_out(
    run: Path, lost: tuple[str, str], labelled_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_json_lines(run / "skipped.jsonl")
    assert {"id": lost[0], "unknown": [lost[1]]} in rows

    settings = tuned(tokenizer=f"phones:{run.parent / 'lexicon.txt'}", train=FEW | {"steps": 3})
    finetune([labelled_store], run.parent / "again", settings, init=None)
    lines = capsys.readouterr().err.splitlines()
    (said,) = [line for line in lines if "transcripts cannot be spelled" in line]
    assert lost[1] in said
    assert "speechssl lexicon extend" in said


def test_a_lexicon_that_lacks_many_words_is_refused(labelled_store: Path, tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("abc A B C\n")
    with pytest.raises(ConfigError, match=r"words in \d+ of \d+ transcripts cannot be spelled"):
        finetune(
            [labelled_store], tmp_path / "run", tuned(tokenizer=f"phones:{lexicon}"), init=None
        )


def test_another_lexicon_is_another_run(labelled_store: Path, run: Path, tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    settings = tuned(tokenizer=f"phones:{lexicon}")
    lexicon.write_text((run.parent / "lexicon.txt").read_text())
    finetune([labelled_store], tmp_path / "run", settings, init=None)
    write_lexicon(lexicon, labelled_store, without=set())
    with pytest.raises(ConfigError, match="lexicon"):
        finetune([labelled_store], tmp_path / "run", settings, init=None)


def test_greedy_decoding_is_measured_in_phones(
    run: Path, labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recogniser = load_recogniser(run, device="cpu")
    evaluation = recogniser.evaluate(labelled_store)
    said = capsys.readouterr().err
    assert "gives phones: with a language model it gives words" in said
    assert "words of the transcripts have no pronunciation: each counts as one wrong phone" in said

    score = evaluation.greedy
    expected = transcripts(labelled_store, "test")
    first = score.utterances[0]
    unspelled, *others = expected[first.utterance_id].split()
    letters = " ".join("".join(others).replace("b", "a").upper())
    assert unspelled not in others
    assert first.reference == f"⁇ {letters}"

    report = write_evaluation(evaluation, tmp_path / "scores", {"normaliser": "basic-1"}, {})
    assert "| PER |" in report
    assert "WER" not in report
    assert "CER" not in report
    table = json.loads((tmp_path / "scores/score.json").read_text())
    assert table["per"] == score.wer
    assert not {"wer", "cer"} & table.keys()


def test_phones_are_no_labels(run: Path, labelled_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recognises phones, and labels are words"):
        load_recogniser(run, device="cpu").label(labelled_store, tmp_path / "labels.jsonl")


def test_espeak_ng_pronounces_all_transcripts(labelled_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    settings = tuned(tokenizer="phones:espeak-ng:de", train=FEW | {"steps": 3})
    model = finetune([labelled_store], tmp_path / "run", settings, init=None)
    for split in ("train", "dev"):
        for text in transcripts(labelled_store, split).values():
            assert not model.tokenizer.has_unknown(text)
    assert "origin: espeak-ng" in (tmp_path / "run/model/lexicon.txt").read_text()


def ideal(ids: list[int], num_tokens: int) -> Tensor:
    """(T, V) log-probabilities of these tokens, with a blank behind each."""
    with_blanks = [token for one in ids for token in (one, 0)]
    frames = torch.full((len(with_blanks), num_tokens), -12.0)
    frames[range(len(with_blanks)), with_blanks] = 0.0
    return frames


def test_words_of_the_lexicon_that_the_language_model_lacks_can_be_said(
    run: Path, labelled_store: Path, tmp_path: Path
) -> None:
    lexicon = load_ctc(run / "model").tokenizer.lexicon  # type: ignore[attr-defined]
    spellings = [spelling.phones for found in lexicon.words.values() for spelling in found]
    texts = [text.split() for text in transcripts(labelled_store, "train").values()]
    said = Counter(word for text in texts for word in text if word in lexicon.words)
    lacking = next(
        word
        for word, _ in said.most_common()
        if spellings.count(lexicon.words[word][0].phones) == 1
    )
    arpa = tmp_path / "without.arpa"
    arpa.write_text("".join(lm_lines([[w for w in t if w != lacking] for t in texts], 2)))

    heard = {}
    for unknown_words in (False, True):
        folder = tmp_path / str(unknown_words)
        shutil.copytree(run / "model", folder)
        tune_lm(folder, arpa, labelled_store, unknown_words=unknown_words)
        tokenizer = load_ctc(folder).tokenizer
        beam = load_lm(folder, tokenizer)
        assert beam is not None
        assert beam.config.unknown_words == unknown_words
        frames = ideal(tokenizer.encode(lacking), tokenizer.size)
        ((found,),) = beam(frames[None], torch.tensor([len(frames)]))
        heard[unknown_words] = found.text

    assert heard[True] == lacking
    assert heard[False] != lacking


def test_unknown_words_need_a_list_and_a_price(
    run: Path, labelled_store: Path, tmp_path: Path
) -> None:
    texts = [text.split() for text in transcripts(labelled_store, "train").values()]
    priced = lm_lines(texts, 2)
    arpa = tmp_path / "lm.arpa"

    # Under another name, so that the counts of the file stay right.
    arpa.write_text("".join(priced).replace("<unk>", "another"))
    with pytest.raises(ConfigError, match=r"has no <unk>, whose price unknown words would have"):
        tune_lm(run / "model", arpa, labelled_store, unknown_words=True)

    letters = tmp_path / "letters"
    finetune([labelled_store], letters, tuned(train=FEW | {"steps": 1}), init=None)
    arpa.write_text("".join(priced))
    with pytest.raises(ConfigError, match="this recogniser has no lexicon to take words from"):
        tune_lm(letters / "model", arpa, labelled_store, unknown_words=True)

    tokenizer = load_ctc(letters / "model").tokenizer
    over_tokens = [token_names(tokenizer)[UNK_ID + 1 :]]
    arpa.write_text("".join(lm_lines(over_tokens, 2)))
    with pytest.raises(ConfigError, match="of which any word can be made: leave --unknown-words"):
        tune_lm(letters / "model", arpa, labelled_store, unknown_words=True)
