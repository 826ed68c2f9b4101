"""The command line, called in this process."""

import pytest
from typer.testing import CliRunner, Result

from speechssl.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main.app, [str(a) for a in arguments])


def one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """What ``main`` prints for an error of a user; checks that it is one line with exit code 1."""
    monkeypatch.setattr("sys.argv", ["speechssl", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err
