"""What ``build_lm`` makes of texts: marks of noises, texts named twice, what n-grams are of."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.encoders import tiny_encoder
from support.language_models import toy_sentences
from support.stores import build, waveforms

from speechssl.decoding.arpa import arpa_words
from speechssl.decoding.lm_unit import recorded_unit, unit_of
from speechssl.errors import ConfigError
from speechssl.recognition.lm_training import LmCorpus, LmPlan, build_lm, read_texts
from speechssl.recognition.model import CtcConfig, CtcModel, save_ctc
from speechssl.text.character_tokenizer import CharTokenizer

HAN = [chr(0x4E00 + k) for k in range(30)]


@pytest.mark.parametrize("seed", range(3))
def test_the_kind_is_recorded_and_read_back(tmp_path: Path, seed: int) -> None:
    """A recogniser that has a space, texts that have none: their entries fit both kinds."""
    draw = random.Random(seed)
    tokenizer = CharTokenizer(" |" + "".join(HAN))
    model = tmp_path / "model"
    save_ctc(CtcModel(tiny_encoder("base"), tokenizer, "none-1", CtcConfig()), model, {})

    lines = ["".join(draw.choices(HAN, k=8)) for _ in range(60)]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines), encoding="utf-8")

    tokens = tmp_path / "tokens.arpa"
    build_lm([text], tokens, LmPlan(order=2), LmCorpus(tokens_of=model))
    assert recorded_unit(tokens) == "tokens"
    assert unit_of(tokenizer, tokens) == "tokens"
    assert set(arpa_words(tokens)) <= set(HAN)

    words = tmp_path / "words.arpa"
    spaced = tmp_path / "spaced.txt"
    spaced.write_text("\n".join(" ".join(line) for line in lines), encoding="utf-8")
    build_lm([spaced], words, LmPlan(order=2), LmCorpus("none-1"))
    assert unit_of(tokenizer, words) == "words"

    plan = LmPlan(order=2, others=(words,), held_out=text)
    with pytest.raises(ConfigError, match=r"is over words, and this model over tokens"):
        build_lm([text], tmp_path / "mixed.arpa", plan, LmCorpus(tokens_of=model))


def test_a_bar_and_a_space_have_two_names(tmp_path: Path) -> None:
    tokenizer = CharTokenizer(" |ab")
    model = tmp_path / "model"
    save_ctc(CtcModel(tiny_encoder("base"), tokenizer, "none-1", CtcConfig()), model, {})
    text = tmp_path / "text.txt"
    text.write_text("a|b ab\nb|a a|\n" * 20, encoding="utf-8")
    out = tmp_path / "tokens.arpa"
    build_lm([text], out, LmPlan(order=2), LmCorpus(tokens_of=model))
    assert set(arpa_words(out)) == {"a", "b", "|", "<bar>"}


def arpa_of(out: Path, *texts: Path) -> bytes:
    build_lm(texts, out, LmPlan(order=2), LmCorpus())
    return out.read_bytes()


def write_sentences(path: Path, sentences: list[list[str]]) -> Path:
    path.write_text("".join(" ".join(words) + "\n" for words in sentences), encoding="utf-8")
    return path


NOISES = ["[noise]", "<unk>", "(laughter)", "[BREATH]", "*sighs*"]


@pytest.mark.parametrize("seed", range(3))
def test_marks_of_noises_are_no_words(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is that of the texts without them, and one line says how many there were."""
    draw = random.Random(seed)
    plain = toy_sentences(100, seed)
    marked = [list(sentence) for sentence in plain]
    drawn = draw.choices(NOISES, k=draw.randint(20, 60))
    for noise in drawn:
        sentence = draw.choice(marked)
        sentence.insert(draw.randint(0, len(sentence)), noise)

    # Nothing is left of a line that holds a noise alone.
    text = write_sentences(tmp_path / "marked.txt", [*marked, ["[noise]"]])
    without = write_sentences(tmp_path / "plain.txt", plain)
    assert arpa_of(tmp_path / "a.arpa", text) == arpa_of(tmp_path / "b.arpa", without)

    said = [line for line in capsys.readouterr().err.splitlines() if "marks of noises" in line]
    assert len(said) == 1
    assert f"marked.txt: {len(drawn) + 1} marks of noises are left out of texts: " in said[0]
    assert f"'[noise]' {drawn.count('[noise]') + 1}" in said[0]


def test_marks_in_stores_and_other_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that an older version prepared has both; other marks are named and stay."""
    build(tmp_path / "store", waveforms(5), None, text="a [noise] b (he said)")
    write_sentences(tmp_path / "a.txt", [["c", "<overlap>"]])
    found = list(read_texts([tmp_path / "a.txt", tmp_path / "store"], "train"))
    assert found == ["c <overlap>\n", "a b (he said)", "a b (he said)"]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(
        "2 marks of noises are left out of texts: '[noise]' 2; 3 other marks in texts stay, as "
        "words: '(he said)' 2, '<overlap>' 1; remove those that nobody says"
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_text_that_is_held_out_and_learned_is_said_to_be(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was said, and a copy under another name was another text."""
    rng = random.Random(seed)
    text = write_sentences(tmp_path / "a.txt", toy_sentences(50, seed=seed))
    other = write_sentences(tmp_path / "b.txt", toy_sentences(50, seed=seed + 1))
    build(tmp_path / "store", waveforms(4), None)

    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    (tmp_path / "hard.txt").hardlink_to(text)
    same = rng.choice([text, copy, tmp_path / "hard.txt"])

    def said(*texts: Path, **plan: Any) -> list[str]:
        build_lm(texts, tmp_path / "lm.arpa", LmPlan(order=2, **plan), LmCorpus())
        lines = capsys.readouterr().err.splitlines()
        return [line for line in lines if "the same text" in line]

    assert said(text, held_out=other) == []
    (line,) = said(other, text, held_out=same)
    assert f"{same} is held out, and the same text as {text}, which the model learns" in line
    (line,) = said(other, held_out=same, others=(text,))
    assert "hold another out" in line
    (line,) = said(text, copy)
    assert f"{text} and {copy} hold the same text, which counts 2 times" in line

    # Another split of a store is another text.
    store = tmp_path / "store"
    assert said(store, held_out=store) == []
    (line,) = said(store, held_out=store, held_out_split="train")
    assert f"{store} is held out" in line


def test_a_text_that_is_named_twice_is_said_to_count_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another path, a link, or a copy of a store too; and it counts twice, as was asked for."""
    text = write_sentences(tmp_path / "a.txt", toy_sentences(50))
    other = write_sentences(tmp_path / "b.txt", toy_sentences(50, seed=1))
    (tmp_path / "link.txt").symlink_to(text)
    for name in ("store", "copy"):
        build(tmp_path / name, waveforms(4), None)

    def said_of(*paths: Path) -> list[str]:
        arpa_of(tmp_path / "lm.arpa", *paths)
        lines = capsys.readouterr().err.splitlines()
        return [line.partition(" ")[2] for line in lines if "which counts" in line]

    assert said_of(text, other, tmp_path / "store") == []
    again = Path(os.path.relpath(text))
    assert said_of(text, other, again, tmp_path / "link.txt") == [
        f"{text} and {again} and {tmp_path / 'link.txt'} hold the same text, which counts 3 times: "
        "name a text once, unless that is meant"
    ]
    (line,) = said_of(tmp_path / "store", text, tmp_path / "copy")
    assert f"{tmp_path / 'store'} and {tmp_path / 'copy'} hold the same text" in line

    doubled = write_sentences(tmp_path / "doubled.txt", toy_sentences(50) * 2)
    assert arpa_of(tmp_path / "2.arpa", text, text) == arpa_of(tmp_path / "1.arpa", doubled)


@pytest.mark.parametrize("seed", range(5))
def test_a_text_that_nobody_parted_into_words_is_named(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sentences of words in a row; the same parted by spaces, and English, are fine."""
    draw = random.Random(seed)
    chinese = ["今天", "我们", "需要", "时候", "电脑", "去"]
    thai = ["วันนี้", "อากาศ", "เดิน", "น้ำ", "กำลัง", "ฝน"]
    words = draw.choice([chinese, thai])
    sentences = [draw.choices(words, k=draw.randint(5, 12)) for _ in range(50)]
    sentences = [[*sentence, " ok ", *sentence] for sentence in sentences]

    for space, is_named in (("", True), (" ", False)):
        text = tmp_path / "text.txt"
        text.write_text("".join(f"{space.join(sentence)}\n" for sentence in sentences))
        list(LmCorpus().sentences([text], "train"))
        said = capsys.readouterr().err
        assert ("--tokens-of" in said) is is_named
