"""Guesses of a model that was trained on a lexicon of a regular language."""

import random
from pathlib import Path

import pytest

from speechssl.errors import ConfigError
from speechssl.lexicon import g2p
from speechssl.lexicon.g2p import guess, model_beside
from speechssl.text.pronunciations import Pronunciation, Pronunciations

# Two letters for one phone, one letter for two, and phones with characters that mean something else
# to phonetisaurus.
SPELLING = {"a": "A_0", "o": "O|", "ä": "Ä", "sh": "SH}", "x": "K S", "t": "T", "'": ""}


def say(letters: list[str]) -> tuple[str, Pronunciation]:
    phones = " ".join(SPELLING[letter] for letter in letters).split()
    return "".join(letters), Pronunciation(tuple(phones))


def unsure(seed: int, count: int) -> list[tuple[str, Pronunciation]]:
    """Words with a "y", which is sometimes one phone and sometimes another."""
    draws = random.Random(seed)
    found = []
    for word, one in words(seed, count):
        found.append((word + "y", one._replace(phones=(*one.phones, draws.choice("IY")))))
    return found


def words(seed: int, count: int) -> list[tuple[str, Pronunciation]]:
    draws = random.Random(seed)
    return [say(["t", *draws.choices(list(SPELLING), k=draws.randint(2, 6))]) for _ in range(count)]


@pytest.fixture(scope="module")
def lexicon() -> Pronunciations:
    entries = [*words(0, 400), *unsure(3, 50), ("tat", Pronunciation(("Ä", "Ä", "Ä"), 1.0, "g2p"))]
    return Pronunciations.of_entries(entries, "none")


@pytest.fixture(scope="module")
def model(lexicon: Pronunciations, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("phonetisaurus")
    return model_beside(tmp_path_factory.mktemp("g2p") / "own.txt", lexicon)


def test_words_of_a_regular_language_are_guessed_right(model: Path) -> None:
    held_out = dict(words(1, 100))
    guesses = guess(model, list(held_out))
    right = sum(guesses[word][0].phones == one.phones for word, one in held_out.items())
    assert right > 90
    assert all(len(found) == 1 and found[0].probability == 1.0 for found in guesses.values())


def test_several_guesses_come_best_first(model: Path) -> None:
    found = guess(model, ["tashoxy"], 2)["tashoxy"]
    spelled = ("T", "A_0", "SH}", "O|", "K", "S")
    assert {one.phones for one in found} == {(*spelled, "I"), (*spelled, "Y")}
    assert found[0].probability == 1.0 > found[1].probability > 0.1


def test_a_letter_that_was_never_seen_has_no_guess(model: Path) -> None:
    assert list(guess(model, ["ta", "tбt", "at"])) == ["ta", "at"]
    assert guess(model, []) == {}


def test_the_model_stays_until_the_lexicon_changes(lexicon: Pronunciations, model: Path) -> None:
    path = model.with_name("own.txt")
    written = (model / "g2p.fst").stat().st_mtime_ns
    assert model_beside(path, lexicon) == model
    assert (model / "g2p.fst").stat().st_mtime_ns == written
    longer = Pronunciations.of_entries([*lexicon.entries(), *words(2, 50)], "none")
    assert model_beside(path, longer) != model


def test_without_the_library_the_remedy_is_named(
    lexicon: Pronunciations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(g2p, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'speechssl\[g2p\]'"):
        model_beside(tmp_path / "own.txt", lexicon)
    assert list(tmp_path.iterdir()) == []


def test_a_lexicon_that_teaches_nothing_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("phonetisaurus")
    guessed = Pronunciations.of_entries([("a", Pronunciation(("A",), 1.0, "g2p"))])
    with pytest.raises(ConfigError, match="cannot learn from this lexicon"):
        model_beside(tmp_path / "own.txt", guessed)
