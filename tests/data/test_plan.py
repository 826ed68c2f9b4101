"""What is planned before anything is read: splits, and what is said of them."""

from pathlib import Path

import pytest
from support.recordings import SMALL
from support.speech import make_labelled

from speechssl.data.prepare import prepare


def test_an_invented_split_and_sentences_on_both_sides_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled(tmp_path / "in", {"": 8})
    table = (folder / "metadata.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:]]
    same = "\n".join([table[0], *(f"{name},Abc def,," for name, *_ in rows)])
    (folder / "metadata.csv").write_text(same + "\n")
    prepare(folder, tmp_path / "s", SMALL)
    told = capsys.readouterr().err
    assert (
        "else by file, or by part of fewer files than splits (dev 2, test 1, train 5 recordings)"
        in told
    )
    assert "2 of 2 transcripts of dev are in train too" in told
    assert "1 of 1 transcripts of test are in train too" in told
