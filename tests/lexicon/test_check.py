"""What a lexicon lacks, and which of its entries look wrong."""

from speechssl.lexicon.check import coverage, lonely_phones, odd_lengths, sources
from speechssl.text.pronunciations import Pronunciation, Pronunciations


def lexicon(**words: str) -> Pronunciations:
    entries = [(word, Pronunciation(tuple(phones.split()))) for word, phones in words.items()]
    return Pronunciations.of_entries(entries)


def test_coverage_counts_running_words() -> None:
    found = coverage(lexicon(the="DH AH", dog="D AO G"), {"the": 5, "cow": 3, "bee": 1, "ant": 1})
    assert (found.num_words, found.num_running) == (4, 10)
    assert found.missing == [("cow", 3), ("ant", 1), ("bee", 1)]
    assert found.share == 0.5


def test_possessives_of_an_english_lexicon_are_covered() -> None:
    own = lexicon(dog="D AO G", is_="IH Z", so="S OW")
    assert coverage(own, {"dog's": 1, "cow's": 1}).missing == [("cow's", 1)]


def test_phones_of_one_word_alone() -> None:
    found = lonely_phones(lexicon(abba="A B B A", ab="A B", cab="K A B", bax="B A KK"))
    assert found == [("K", "cab"), ("KK", "bax")]


def test_lengths_that_are_far_from_usual() -> None:
    own = lexicon(
        abcd="A B C D", dcba="D C B A", ac="A C", abcdef="A", a="A B C D", abc="A B C", dd="D D D D"
    )
    assert [word for word, _ in odd_lengths(own)] == ["a", "abcdef"]


def test_guesses_are_counted_by_their_source() -> None:
    entries = [
        ("a", Pronunciation(("A",))),
        ("b", Pronunciation(("B",), 1.0, "g2p")),
        ("c", Pronunciation(("C",), 1.0, "g2p")),
    ]
    assert sources(Pronunciations.of_entries(entries)) == {"": 1, "g2p": 2}
