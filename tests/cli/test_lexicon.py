"""``speechssl lexicon``: make, check, extend and show."""

from pathlib import Path

import pytest
from support.commands import call, one_line

from speechssl.text.pronunciations import parse_own

LEXICON = """\
;;; CMUdict's form
DOG  D AO1 G
IS  IH1 Z
SO  S OW1
THE  DH AH0
THE(1)  DH IY0
XYLOPHONE  Z
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("The dog's so good. So is the god.\n")
    return path


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "own.dict"
    path.write_text(LEXICON)
    return path


def test_make_takes_the_words_of_texts_from_a_lexicon(
    lexicon: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.txt"
    done = call("lexicon", "make", texts, "--from", lexicon, "--out", out, "--folding", "none")
    assert done.exit_code == 0, done.stderr
    assert "2 of 6 words have no pronunciation" in done.stderr
    made = parse_own(out.read_text())
    assert list(made.words) == ["dog's", "is", "so", "the"]
    assert made.words["dog's"][0].phones == ("D", "AO1", "G", "Z")
    assert made.folding == "none"

    whole = tmp_path / "whole.txt"
    done = call("lexicon", "make", "--from", lexicon, "--out", whole)
    assert done.exit_code == 0, done.stderr
    assert list(parse_own(whole.read_text()).words) == ["dog", "is", "so", "the", "xylophone"]


def test_make_pronounces_with_espeak_ng(texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "de.txt"
    texts.write_text("Der Teenager schläft.\n", encoding="utf-8")
    done = call("lexicon", "make", texts, "--from", "espeak-ng:de", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "1 words have phones of another language: teenager" in done.stderr
    assert parse_own(out.read_text(encoding="utf-8")).words["der"][0].phones == ("d", "ɛ", "ɾ")


def test_make_refuses_what_it_cannot_do(
    lexicon: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: object) -> str:
        return one_line(
            monkeypatch, capsys, "lexicon", "make", *arguments, "--out", tmp_path / "out.txt"
        )

    assert "needs words: give texts" in refused("--from", "espeak-ng:de")
    assert "unknown folding 'all'" in refused(texts, "--from", lexicon, "--folding", "all")
    assert "no lexicon" in refused(texts, "--from", tmp_path / "missing.dict")

    others = tmp_path / "others.txt"
    others.write_text("katze hund\n", encoding="utf-8")
    monkeypatch.setattr("speechssl.lexicon.making.read_lexicon", lambda *_: quietly(lexicon, ""))
    assert "has none of the words: check the language" in refused(others, "--from", lexicon)


def test_check_says_what_is_missing_and_what_looks_wrong(lexicon: Path, texts: Path) -> None:
    done = call("lexicon", "check", lexicon, texts)
    assert done.exit_code == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")]
    assert cells[1:-1] == ["6", "2", "8", "75.00%", "10"]
    assert "Words without a pronunciation (speechssl lexicon extend finds some): 2" in done.stdout
    assert "| god  |     1 |" in done.stdout
    assert "Phones that only one word has: 9" in done.stdout
    assert "| AO    | dog  |" in done.stdout
    assert "| xylophone | Z      |" in done.stdout
    assert "CMUdict's form" in done.stderr


def test_extend_adds_guesses_and_marks_them(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    texts, lexicon, out = (tmp_path / name for name in ("texts.txt", "de.txt", "more.txt"))
    texts.write_text("der Hund\n")
    call("lexicon", "make", texts, "--from", "espeak-ng:de", "--out", lexicon)
    texts.write_text("der Teenager und der Hund\n")
    done = call("lexicon", "extend", lexicon, texts, "--out", out, "--from", "espeak-ng:de")
    assert done.exit_code == 0, done.stderr
    made = parse_own(out.read_text())
    assert list(made.words) == ["der", "hund", "teenager", "und"]
    assert made.words["hund"][0].source == ""
    assert made.words["und"][0].source == made.origin
    assert made.words["teenager"][0].source == f"{made.origin}, partly en"
    assert "| teenager |" in done.stdout

    done = call("lexicon", "check", out, texts)
    assert "Guessed pronunciations: 2" in done.stdout


def test_extend_refuses_phones_of_another_kind(
    lexicon: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("espeakng_loader")
    arguments = ("lexicon", "extend", lexicon, texts, "--out", tmp_path / "out.txt", "--from")
    monkeypatch.setattr("speechssl.cli.lexicon.read_lexicon", quietly)
    said = one_line(monkeypatch, capsys, *arguments, "espeak-ng:en-us")
    assert "does not have espeak-ng's phones" in said
    assert "unknown --from 'else'" in one_line(monkeypatch, capsys, *arguments, "else")


def quietly(path: Path, normaliser: str) -> object:
    """``read_lexicon`` without its line."""
    return parse_own(
        ";;; speechssl lexicon 1\ndog\t1\tD AO G\nis\t1\tIH Z\nso\t1\tS OW\nthe\t1\tDH AH\n"
    )


def test_show_has_possessives(lexicon: Path) -> None:
    done = call("lexicon", "show", lexicon, "the", "Dog's", "cow")
    assert done.exit_code == 0, done.stderr
    assert [line.split("|")[3].strip() for line in done.stdout.splitlines()[2:]] == [
        "DH AH",
        "DH IY",
        "D AO G Z",
    ]
    assert "no pronunciation: cow" in done.stderr


def test_no_table_is_printed_without_a_word(lexicon: Path, tmp_path: Path) -> None:
    """A header stood there alone."""
    texts = tmp_path / "known.txt"
    texts.write_text("the dog\n", encoding="utf-8")
    done = call("lexicon", "extend", lexicon, texts, "--out", tmp_path / "out.txt")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert "the lexicon has all these words" in done.stderr
    shown = call("lexicon", "show", lexicon, "zebra", "zzz")
    assert shown.stdout == ""
    assert "no pronunciation: zebra zzz" in shown.stderr
