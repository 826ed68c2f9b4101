"""The transcripts of the labelled minutes, before a run that would list them."""

from pathlib import Path

import pytest
from support.places import ROOT
from support.scripts import load_script
from support.speech import make_labelled

from speechssl.corpus.layouts import scan
from speechssl.data.dataset import Dataset, choose_minutes
from speechssl.data.prepare import prepare
from speechssl.data.store import Store

tool = load_script(ROOT / "tools" / "chosen_texts.py")


def test_they_are_those_of_the_chosen_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    prepare(scan(make_labelled(tmp_path / "toy", {"train": 12, "dev": 2})), store)
    train = Dataset([Store(store)], ["train"])
    expected = choose_minutes(train, 0.2, seed=5)

    assert tool.main([str(store), "--minutes", "0.2", "--seed", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [expected.id_text(position)[1] for position in range(len(expected))]
    assert 0 < len(lines) < len(train)

    assert tool.main([str(store), "--minutes", "90"]) == 1
    assert "is more than the" in capsys.readouterr().err
