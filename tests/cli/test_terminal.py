"""A command does the same with a terminal, without one, and without any standard stream."""

from pathlib import Path

import pytest
from support import children, terminal
from support.folders import files_of

SCRIPT = Path(terminal.__file__)


def commands(folder: Path, store: Path, model: Path) -> dict[str, list[object]]:
    """By verb, all arguments but the place of what is written, which comes last."""
    return {
        "prepare": ["prepare", folder, "--jobs", 2],
        "transcribe": [
            "transcribe", model, folder, "--jobs", 2, "--output-format", "json,srt",
        ],
        "evaluate": ["evaluate", model, store],
    }  # fmt: skip


OUT = {"prepare": [], "transcribe": ["--output-dir"], "evaluate": ["--out"]}


@pytest.mark.slow
@pytest.mark.parametrize("verb", list(OUT))
def test_the_streams_change_nothing(
    verb: str, labelled_folder: Path, labelled_store: Path, model: Path, tmp_path: Path
) -> None:
    command = commands(labelled_folder, labelled_store, model)[verb]
    written = {}
    for mode in terminal.MODES:
        out, log = tmp_path / mode / "out", tmp_path / f"{mode}.log"
        child = children.start_script(SCRIPT, [mode, *command, *OUT[verb], out], log, {})
        child.join()
        assert child.exitcode == 0, (mode, log.read_text())
        # The hidden list of what is done has the order in which two processes came to their ends.
        files = files_of(out)
        written[mode] = {name: files[name] for name in files if not name.startswith(".")}

    expected = written.pop("as they are")
    assert expected
    for mode, found in written.items():
        assert found == expected, mode
