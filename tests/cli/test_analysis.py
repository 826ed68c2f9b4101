"""``speechssl probe``: what is asked of which store."""

from pathlib import Path

import pytest
from support.commands import one_line


def test_a_probe_that_is_none_says_what_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("vowels=x", "digit", "digit="):
        assert f"digit=STORE, speaker=STORE, not {wrong!r}" in one_line(
            monkeypatch, capsys, "probe", tmp_path, wrong
        )
    twice = one_line(monkeypatch, capsys, "probe", tmp_path, "digit=a", "digit=b")
    assert "digit is asked of two stores" in twice
    command = ("pretrain", tmp_path, "--run", tmp_path / "run", "--probe-every", 5)
    assert "--probe-every without a --probe" in one_line(monkeypatch, capsys, *command)
