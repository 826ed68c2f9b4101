"""What a score says of its data: wrong pairs, and texts that nobody could write."""

import random
from collections import Counter

import pytest

from speechssl.recognition.remarks import (
    ask_if_paired,
    say_unheard,
    telling_rate,
    unwritable_characters,
    unwritable_words,
)
from speechssl.scoring.score import score
from speechssl.text.character_tokenizer import CharTokenizer

WORDS = ["able", "bank", "cold", "dish", "echo", "fund", "gold", "hill", "iron", "join"]
IDEOGRAPHS = "今天气很好我们去公园散步吧"


def sentences(seed: int, letters: str | None = None) -> dict[str, str]:
    """Drawn texts by utterance: of words, or of letters without a space."""
    draws = random.Random(seed)
    found = {}
    for number in range(20):
        parts = draws.choices(letters or WORDS, k=draws.randint(3, 8))
        found[str(number)] = ("" if letters else " ").join(parts)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_characters_without_a_token_are_counted(seed: int) -> None:
    draws = random.Random(seed)
    alphabet = draws.sample("abcdefghijklmnopqrstuvwxyz", 20)
    tokenizer = CharTokenizer.train(["".join(alphabet)])
    texts = list(sentences(seed).values())

    found = unwritable_characters(tokenizer, texts)
    everything = Counter("".join(texts))
    expected = {c: n for c, n in everything.items() if c not in {" ", *alphabet}}
    assert found.counts == expected
    assert found.total == everything.total()
    assert f"{sum(expected.values())} of {found.total} characters" in found.line()


def test_words_that_a_language_model_lacks_are_counted() -> None:
    texts = ["able bank able", "", "cold able"]
    found = unwritable_words(["bank", "dish"], texts)
    assert found.counts == {"able": 3, "cold": 1}
    assert found.line().startswith(
        "4 of 5 words of the transcripts cannot be written (2 different ones: able 3, cold 1)"
    )


def test_the_rate_of_characters_tells_most_without_spaces() -> None:
    texts = sentences(0, IDEOGRAPHS)
    heard = {name: text[:-1] for name, text in texts.items()}
    result = score(texts, heard)
    assert (result.wer, telling_rate(result)) == (1.0, ("CER", result.cer))
    phones = score(sentences(1), sentences(2), unit="phone")
    assert telling_rate(phones) == ("PER", phones.wer)


@pytest.mark.parametrize("letters", [None, IDEOGRAPHS])
@pytest.mark.parametrize("seed", range(3))
def test_utterances_in_which_nothing_is_recognised_are_counted(
    letters: str | None, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = random.Random(seed)
    texts = sentences(seed, letters)
    unheard = draws.sample(list(texts), draws.randint(1, 9))
    # An utterance that holds nothing is none in which something could be recognised.
    texts["nothing"] = ""

    say_unheard(score(texts, texts), "dev")
    assert capsys.readouterr().err == ""

    say_unheard(score(texts, texts | dict.fromkeys(unheard, "")), "dev")
    said = capsys.readouterr().err
    assert f"nothing was recognised in {len(unheard)} of 20 utterances of dev\n" in said

    say_unheard(score(texts, dict.fromkeys(texts, "")), "dev")
    said = capsys.readouterr().err
    assert "in 20 of 20 utterances of dev: the recogniser may not be trained far enough" in said


@pytest.mark.parametrize("letters", [None, IDEOGRAPHS])
def test_wrong_pairs_are_asked_about(
    letters: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = sentences(0, letters)
    ask_if_paired(score(texts, texts), "dev")
    # Blanks have a remark of their own.
    ask_if_paired(score(texts, dict.fromkeys(texts, "")), "dev")
    one_right = dict.fromkeys(texts, "zzz") | {"0": texts["0"]}
    ask_if_paired(score(texts, one_right), "dev")
    assert capsys.readouterr().err == ""

    ask_if_paired(score(texts, dict.fromkeys(texts, "zzz")), "dev")
    said = capsys.readouterr().err
    assert "100 % of dev" in said.replace("100%", "100 %")
    assert "are texts and recordings paired?" in said
