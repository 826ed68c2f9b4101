"""The verb lm: compressed texts, mixing, pruning; it starts without torch."""

import gzip
import lzma
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import call, one_line
from support.language_models import toy_sentences
from support.models import random_recogniser

from speechssl.data.prepare import prepare
from speechssl.decoding.arpa import arpa_words, read_arpa, read_ngrams, read_words
from speechssl.errors import ConfigError
from speechssl.recognition.model import save_ctc


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


@pytest.mark.parametrize("seed", range(2))
def test_what_is_no_text_is_named(
    seed: int,
    labelled_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A recording, also one of silence, which is valid UTF-8; a folder; an ARPA file."""
    draws = random.Random(seed)
    text = write_text(tmp_path / "text.txt", seed)
    silence = tmp_path / draws.choice(["silence.wav", "silence.txt"])
    silence.write_bytes(b"RIFF" + bytes(draws.randint(100, 5000)))
    arpa = tmp_path / "made.arpa"
    assert call("lm", text, "--out", arpa, "--order", 2).exit_code == 0

    given = {
        silence: "is no text but a recording; speechssl prepare makes",
        labelled_folder / "test000.wav": "is no text but a recording",
        labelled_folder: "is a folder and no store: give a file of one text a line, or the store",
        arpa: "is an ARPA file, not text",
    }
    for path, message in given.items():
        ways: list[list[object]] = [[path], [text, "--held-out", path]]
        if path != arpa:
            ways.append([text, "--with", path, "--held-out", text])
        for arguments in ways:
            out = ("--out", tmp_path / "lm.arpa")
            said = one_line(monkeypatch, capsys, "lm", *arguments, *out)
            assert str(path) in said
            assert message in said
    assert not (tmp_path / "lm.arpa").exists()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_arpa_file_is_named(seed: int, tmp_path: Path) -> None:
    draws = random.Random(seed)
    path = tmp_path / "books.txt"
    lines = [" ".join(draws.choices("abcdef", k=5)) for _ in range(draws.randint(0, 200))]
    path.write_text("".join(f"{line}\n" for line in lines))

    message = r"books\.txt is no ARPA file, .*: speechssl lm makes one of texts"
    for read in (read_arpa, read_ngrams, arpa_words):
        with pytest.raises(ConfigError, match=message):
            read(path)

    with pytest.raises(ConfigError, match="is a folder: give an ARPA file"):
        read_words(tmp_path, None)


def test_a_store_without_transcripts_says_what_to_do(labelled_folder: Path, tmp_path: Path) -> None:
    """lm and lexicon; and evaluate, which looks into one split."""
    store = tmp_path / "store"
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    shutil.copy(labelled_folder / "test000.wav", recordings)
    prepare(recordings, store)

    model = tmp_path / "model"
    save_ctc(random_recogniser(), model, {})
    lexicon = tmp_path / "words.dict"
    lexicon.write_text("ABC  A B C\n")

    out = ("--out", tmp_path / "out")
    remedies = {
        ("lm", store, *out): "prepare it with transcripts",
        ("lexicon", "extend", lexicon, store, *out): "prepare it with transcripts",
        ("evaluate", model, store, *out): "prepare some with transcripts",
        ("evaluate", model, store, *out, "--split", "train"): "prepare the recordings with",
    }
    for command, remedy in remedies.items():
        assert remedy in str(call(*command).exception), command
