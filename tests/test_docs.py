"""The pages of docs/ build without a warning: no broken link, no missing page or anchor."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT


@pytest.mark.slow
def test_the_pages_build_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert built.returncode == 0, built.stderr
    assert (tmp_path / "guides" / "data.html").is_file()
