"""The verb lm: compressed texts, mixing, pruning; it starts without torch."""

import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import call, one_line
from support.language_models import toy_sentences

from speechssl.decoding.arpa import read_arpa


def write_text(path: Path, seed: int) -> Path:
    path.write_text("".join(" ".join(s) + ".\n" for s in toy_sentences(200, seed)))
    return path


def test_compressed_texts_are_read(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt", 0)
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    (tmp_path / "text.txt.xz").write_bytes(lzma.compress(text.read_bytes()))
    for ending in ("", ".gz", ".xz"):
        out = tmp_path / f"lm{ending}.arpa"
        assert call("lm", f"{text}{ending}", "--out", out).exit_code == 0
        assert out.read_bytes() == (tmp_path / "lm.arpa").read_bytes()
    assert not list(tmp_path.glob(".speechssl*"))


def test_models_are_mixed_and_pruned(tmp_path: Path) -> None:
    own, general, held_out = (write_text(tmp_path / f"{seed}.txt", seed) for seed in (1, 2, 3))
    alone = call("lm", general, "--out", tmp_path / "general.arpa", "--prune", "0,0,1")
    assert alone.exit_code == 0

    mixed = call(
        "lm", own, "--out", tmp_path / "mixed.arpa", "--order", 3, "--with",
        tmp_path / "general.arpa", "--with", general, "--held-out", held_out,
        "--prune-entropy", "1e-5", "--max-words", 20,
    )  # fmt: skip
    assert mixed.exit_code == 0

    rows = [
        line.split("|") for line in mixed.stdout.splitlines() if "txt" in line or "arpa" in line
    ]
    assert [row[1].strip() for row in rows[:3]] == [
        str(own), str(tmp_path / "general.arpa"), str(general),
    ]  # fmt: skip
    assert sum(float(row[2]) for row in rows[:3]) == pytest.approx(1, abs=2e-4)
    assert f"perplexity of {held_out}: " in mixed.stdout

    model = read_arpa(tmp_path / "mixed.arpa")
    assert model.order == 4
    assert len(model.words) == 32  # 30 of general.arpa, </s> and <unk>


def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path / "text.txt", 0)
    (tmp_path / "cut.xz").write_bytes(lzma.compress(text.read_bytes())[:-20])
    (tmp_path / "no.gz").write_text("text")

    def error(*arguments: object) -> str:
        return one_line(monkeypatch, capsys, "lm", *arguments, "--out", tmp_path / "lm.arpa")

    assert "--held-out" in error(text, "--with", text)
    assert "--prune is '0,x'" in error(text, "--prune", "0,x")
    assert "such as 0,0,1" in error(text, "--prune", "1,0")
    assert "--prune-entropy is nan" in error(text, "--prune-entropy", "nan")
    assert "cut.xz cannot be read as text" in error(tmp_path / "cut.xz")
    assert "no.gz cannot be read as text" in error(tmp_path / "no.gz")
    assert "missing cannot be read as text" in error(text, "--vocabulary", tmp_path / "missing")
    assert not (tmp_path / "lm.arpa").exists()
    assert not list(tmp_path.glob(".speechssl*"))


def test_it_runs_without_torch(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt", 0)
    code = (
        "import sys; sys.argv[0] = 'speechssl'\n"
        "from speechssl.cli.start import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "lm", str(text), "--out", str(tmp_path / "lm.arpa")]
    done = subprocess.run(
        [*command, "--held-out", str(text)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert "MB of memory at most" in done.stderr.splitlines()[-1]
