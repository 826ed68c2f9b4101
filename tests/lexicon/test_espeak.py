"""Pronunciations by espeak-ng: phones, reduced forms, and words of another language."""

import pytest

from speechssl.errors import ConfigError
from speechssl.lexicon.espeak import espeak_lexicon, foreign_words, languages, version

pytest.importorskip("espeakng_loader")


def spoken(words: str, language: str, folding: str = "stress") -> dict[str, list[str]]:
    lexicon = espeak_lexicon(words.split(), language, folding)
    return {word: [" ".join(one.phones) for one in ones] for word, ones in lexicon.words.items()}


def test_affricates_diphthongs_and_long_vowels_are_one_phone() -> None:
    assert spoken("church eye zeit", "en-us") == {
        "church": ["tʃ ɜː tʃ"],
        "eye": ["aɪ"],
        "zeit": ["z aɪ t"],
    }
    assert spoken("zeit", "de") == {"zeit": ["ts aɪ t"]}  # another language, and no mixture
    assert spoken("church", "en-us", "stress+length") == {"church": ["tʃ ɜ tʃ"]}
    assert spoken("church", "en-us", "none") == {"church": ["tʃ ˈɜː tʃ"]}


def test_a_word_that_sounds_otherwise_between_others_has_two_pronunciations() -> None:
    assert spoken("a of water", "en-us") == {"a": ["eɪ", "ɐ"], "of": ["ʌ v"], "water": ["w ɔː ɾ ɚ"]}
    assert spoken("не", "ru") == {"не": ["nʲ e", "nʲ ɪ"]}


def test_hyphens_that_join_words_are_taken_away() -> None:
    assert spoken("le", "fr") == {"le": ["l ə"]}


def test_words_of_another_language_are_marked() -> None:
    lexicon = espeak_lexicon(["teenager", "haus"], "de")
    (one,) = lexicon.words["teenager"]
    assert one.source == "partly en"
    assert one.phones == ("t", "iː", "n", "eɪ", "dʒ", "ə")
    assert lexicon.words["haus"][0].source == ""
    assert foreign_words(lexicon) == ["teenager"]


def test_tones_stay_or_go() -> None:
    assert spoken("你好", "cmn") == {"你好": ["n i2 χ ɑu2"]}
    assert spoken("你好", "cmn", "stress+tones") == {"你好": ["n i χ ɑu"]}


def test_the_origin_names_the_version_and_the_language() -> None:
    assert espeak_lexicon(["haus"], "de").origin == f"espeak-ng {version()} de"
    assert version()[0].isdecimal()
    assert {"de", "en-us", "fr"} <= set(languages())


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no language 'fr-fr': choose one of its .* such as fr"):
        espeak_lexicon(["le"], "fr-fr")


def test_nothing_to_say_gives_no_entry() -> None:
    assert spoken("_ haus", "de") == {"haus": ["h aʊ s"]}
