"""The files of a score: written together, and no other file is removed with them."""

from pathlib import Path

from speechssl.scoring.score import score
from speechssl.scoring.score_files import SCORE_FILES, remove_score, write_score


def test_only_what_was_written_is_removed(tmp_path: Path) -> None:
    result = score({"u": "a b"}, {"u": "a c"}, {"u": [0.9, 0.5]})
    write_score(result, tmp_path / "a", {})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(SCORE_FILES)
    write_score(result, tmp_path / "b", {})
    (tmp_path / "b/mine").touch()
    for name in ("a", "b", "never"):
        remove_score(tmp_path / name)
    assert not (tmp_path / "a").exists()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]
