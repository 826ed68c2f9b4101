"""ARPA files of others and damaged ones, named with their line."""

from pathlib import Path

import pytest
from support.language_models import write_lm

from speechssl.decoding.arpa import read_arpa, read_words
from speechssl.errors import ConfigError
from speechssl.recognition.lm_training import read_texts

GOOD = (
    "\\data\\\nngram 1=3\nngram 2=1\n\n"
    "\\1-grams:\n-1\t<unk>\n-0.3\ta\t-0.2\n-0.6\t</s>\n\n\\2-grams:\n-0.1\ta a\n\n\\end\\\n"
)


def test_files_of_others_are_read(tmp_path: Path) -> None:
    """Comments before the data, Windows line ends, spaces for tabs, a model without <unk>."""
    path = tmp_path / "lm.arpa"
    path.write_text(
        "made by hand\n" + GOOD.replace("-1\t<unk>\n", "").replace("1=3", "1=2").replace("\t", " ")
    )
    model = read_arpa(path)
    assert model.order == 2
    assert model.log10_prob("a", ("a",)) == -0.1
    assert model.log10_prob("</s>", ("a",)) == pytest.approx(-0.8)
    assert model.log10_prob("b", ()) == -100
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert read_arpa(path).log10_prob("b", ("a",)) == pytest.approx(-1.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no ARPA file"),
        ("\\data\\\n", "line 1: the file ends here"),
        (GOOD.replace("\\end\\\n", ""), "ends here, before"),
        (GOOD[: GOOD.index("-0.1\ta a")], "ends here, before"),
        (GOOD.replace("1=3", "1=4"), r"line 10: .*-grams:' where a 1-gram was expected"),
        (GOOD.replace("1=3", "1=2"), r"where \\2-grams: was expected"),
        (GOOD.replace("2=1", "2=one"), "line 3: 'ngram 2=one'"),
        (GOOD.replace("-0.3", "0.3"), "above 1"),
        (GOOD.replace("-0.3", "nan"), "above 1"),
        (GOOD.replace("-0.2", "inf"), "no number"),
        (GOOD.replace("-0.3", "x"), "no number"),
        (GOOD.replace("-0.6\t</s>", "-0.6\ta"), "stands there twice"),
        ("\\data\\\n\\1-grams:\n", "0 lengths"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_arpa(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,one two\n")
    with pytest.raises(ConfigError, match=r"metadata\.csv is a table, not text"):
        list(read_texts([tmp_path / "metadata.csv"], "train"))
    (tmp_path / "lm.arpa").write_bytes(b"\xff\xfe\x00")
    for name in ("lm.arpa", "missing.arpa"):
        with pytest.raises(ConfigError, match="cannot be read as an ARPA file"):
            read_arpa(tmp_path / name)


def test_words_are_those_of_the_file_or_of_a_list(tmp_path: Path) -> None:
    write_lm(tmp_path / "x.arpa", [["one", "two"], ["two"]], order=2)
    assert sorted(read_words(tmp_path / "x.arpa", None)) == ["one", "two"]

    (tmp_path / "words.txt").write_text("two\n\n <s>\nthree \ntwo\n")
    assert read_words(tmp_path / "x.arpa", tmp_path / "words.txt") == ["two", "three"]

    (tmp_path / "none.txt").write_text("<unk>\n")
    with pytest.raises(ConfigError, match=r"none\.txt holds no word: give the words"):
        read_words(tmp_path / "x.arpa", tmp_path / "none.txt")
