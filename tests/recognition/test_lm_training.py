"""What ``build_lm`` writes of the kind of a model, for recognisers with and without spaces."""

import random
from pathlib import Path

import pytest
from support.encoders import tiny_encoder

from speechssl.decoding.arpa import arpa_words
from speechssl.decoding.lm_unit import recorded_unit, unit_of
from speechssl.errors import ConfigError
from speechssl.recognition.lm_training import LmCorpus, LmPlan, build_lm
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
