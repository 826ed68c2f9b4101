"""Error rates against labelled minutes: the numbers of the evaluations, and a picture."""

from pathlib import Path

import pytest
from support.places import ROOT
from support.scripts import load_script

from speechssl.scoring.score import score
from speechssl.scoring.score_files import write_score

tool = load_script(ROOT / "tools" / "label_curve.py")


def evaluated(folder: Path, wrong: int) -> Path:
    """Ten utterances of two words, ``wrong`` of them with one that is."""
    said = {str(k): "ab cd" for k in range(10)}
    write_score(
        score(said, {i: "ab xy" if int(i) < wrong else text for i, text in said.items()}),
        folder,
        {},
    )
    return folder


def test_a_row_for_each_system_and_amount(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        f"ours@{m}={evaluated(tmp_path / f'{m}{k}', k)}" for m in ("2.5", "10") for k in (0, 2)
    ]

    assert (
        tool.main(
            [str(tmp_path / "x/curve.png"), *given, f"scratch@10={evaluated(tmp_path / 's', 10)}"]
        )
        == 0
    )

    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()[2:]
    ]
    assert rows == [
        ["2.5", "ours", "0.0 10.0", "0.0 8.0"],
        ["10", "ours", "0.0 10.0", "0.0 8.0"],
        ["10", "scratch", "50.0", "40.0"],
    ]
    assert (tmp_path / "x/curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", ["a", "a=b", "a@x=b", "@1=b", "a@1="])
def test_what_is_no_run_is_refused(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(tmp_path / "x.png"), given]) == 1
    assert "is not SYSTEM@MINUTES=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
