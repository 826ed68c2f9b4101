"""Transcripts in, beside and above a source of any kind stop the reading; other texts do not."""

import bz2
import gzip
import json
import random
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.errors import ManifestError

WORDS = ["good", "evening", "rain", "north", "nobody", "knows", "long", "way", "home"]

# Shapes of names, with folders of recordings and of texts that stand beside each other.
NAMES = ["{n}", "utt_{n:03d}", "LJ{n:03d}-0{n}", "a.b.{n}"]
AUDIO_FOLDERS = ["wav", "wavs", "clips", "audio", "flac", "wav48_trimmed", "mp3s"]
TEXT_FOLDERS = ["txt", "text", "transcripts", "labels", "Transcriptions", "TextGrid", "en_txt"]

KALDI_FILES = ["text.txt", "TEXT", "transcript", "transcripts.txt", "trans.txt", "text.bak"]
KALDI_FILES += ["text_norm", "text.gz", "text.bz2", "stm", "ctm", "ref.stm", "supervisions.jsonl"]

TABLES = ["metadata.csv", "validated.tsv", "list", "prompts.txt", "all.json", "cuts.jsonl.gz"]


class Corpus:
    """Recordings without content, and what is said in them."""

    def __init__(self, rng: random.Random, root: Path) -> None:
        name = rng.choice(NAMES)
        self.root = root
        self.folder = root / rng.choice(AUDIO_FOLDERS)
        self.texts = {name.format(n=n): " ".join(rng.sample(WORDS, 4)) for n in range(1, 7)}
        self.folder.mkdir(parents=True)
        for stem in self.texts:
            (self.folder / f"{stem}.wav").touch()

    def table(self, path: Path) -> Path:
        """Write all texts to one file of a form that suits its name."""
        path.parent.mkdir(exist_ok=True)
        rows: list[str] = []
        for stem, text in self.texts.items():
            if ".json" in path.name:
                row = {"id": f"{stem}-0", "recording_id": stem, "channel": 0, "text": text}
                rows.append(json.dumps(row))
            elif path.suffix == ".tsv":
                rows.append(f"client\t{stem}.mp3\t{text}\t2")
            elif path.suffix == ".csv":
                rows.append(f"{stem}|{text}|{text}")
            else:
                rows.append(f"{stem} {text}")

        content = "".join(f"{row}\n" for row in rows).encode()
        if path.suffix == ".gz":
            content = gzip.compress(content)
        elif path.suffix == ".bz2":
            content = bz2.compress(content)
        path.write_bytes(content)
        return path

    def manifest(self, rng: random.Random, folder: Path) -> Path:
        """Write a manifest of some kind, without texts."""
        folder.mkdir(exist_ok=True)
        path = folder / rng.choice(["m.jsonl", "train.tsv"])
        names = [f"{stem}.wav" for stem in self.texts]
        rows = [json.dumps({"audio_filepath": str(self.folder / name)}) for name in names]
        if path.suffix == ".tsv":
            rows = [str(self.folder), *(f"{name}\t16000" for name in names)]
        path.write_text("".join(f"{row}\n" for row in rows))
        return path

    def kaldi(self, folder: Path) -> Path:
        """Write a Kaldi folder without text, with Kaldi's tables of other things."""
        folder.mkdir(parents=True)
        ids = {stem: f"anna-{stem}" for stem in self.texts}
        for name, rest in (("wav.scp", f"{self.folder}/{{}}.wav"), ("utt2dur", "3.1")):
            rows = [f"{id_} {rest.format(stem)}\n" for stem, id_ in ids.items()]
            (folder / name).write_text("".join(rows))
        (folder / "spk2utt").write_text(f"anna {' '.join(ids.values())}\n")
        (folder / "reco2file_and_channel").write_text(
            "".join(f"{id_} tape_one A\n" for id_ in ids.values())
        )
        self.texts = {ids[stem]: text for stem, text in self.texts.items()}
        return folder


def root_of(source: Path) -> Path | None:
    """Return the root of all recordings, which manifests of some kinds need."""
    is_jsonl = source.suffix == ".jsonl"
    is_kaldi = (source / "wav.scp").exists()
    if is_kaldi:
        return source.parent
    return source.parent.parent if is_jsonl else None


def stops(source: Path, *names: str, num: int = 6) -> None:
    root = root_of(source)
    with pytest.raises(ManifestError, match="--ignore-transcripts") as caught:
        scan(source, root)
    said = str(caught.value)
    assert f"{len(names)} files (" in said, said
    assert all(name in said for name in names)
    assert f"{num} of {num} recordings" in said
    assert len(scan(source, root, ignore_transcripts=True).records) == num


@pytest.mark.parametrize("name", KALDI_FILES)
def test_transcripts_of_another_name_in_a_kaldi_folder(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    corpus = Corpus(rng, tmp_path / "corpus")
    folder = corpus.kaldi(tmp_path / "train")
    assert len(scan(folder, root_of(folder)).records) == 6

    corpus.table(folder / name)
    stops(folder, name)


@pytest.mark.parametrize("seed", range(8))
def test_a_table_above_or_beside(tmp_path: Path, seed: int) -> None:
    """The recordings may be given as a folder, one of them alone, or by a manifest."""
    rng = random.Random(seed)
    corpus = Corpus(rng, tmp_path / "corpus")
    table = corpus.table(corpus.root / rng.choice(TABLES))
    stops(corpus.folder, table.name)
    stops(corpus.folder / f"{rng.choice([*corpus.texts])}.wav", table.name, num=1)
    manifest = corpus.manifest(rng, tmp_path / "manifests")
    stops(manifest, table.name)

    beside = corpus.table(manifest.parent / f"my_{table.name}")
    stops(manifest, table.name, beside.name)


@pytest.mark.parametrize("seed", range(8))
def test_a_folder_of_texts_beside(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    corpus = Corpus(rng, tmp_path / "corpus")
    folder = corpus.root / rng.choice(TEXT_FOLDERS) / rng.choice(["", "anna"])
    folder.mkdir(parents=True)
    suffix = rng.choice([".txt", ".TextGrid", ".lab", ".json"])
    for stem, text in corpus.texts.items():
        (folder / (stem + suffix)).write_text(json.dumps({"said": text}))

    # A message names five files.
    shown = [f"{stem}{suffix}" for stem in corpus.texts][:5]
    stops(corpus.folder, *shown, "and more")
    stops(corpus.manifest(rng, tmp_path / "manifests"), *shown, "and more")
    one = rng.choice([*corpus.texts])
    stops(corpus.folder / f"{one}.wav", f"{one}{suffix}", num=1)


@pytest.mark.parametrize("name", ["transcript.txt", "{}_transcript.txt", "text-{}.txt", "{}.docx"])
def test_a_text_beside_one_recording(tmp_path: Path, name: str) -> None:
    corpus = Corpus(random.Random(name), tmp_path / "corpus")
    one = next(iter(corpus.texts))
    text = corpus.folder / name.format(one)
    text.write_text("Good evening")
    stops(corpus.folder / f"{one}.wav", text.name, num=1)


@pytest.mark.parametrize("name", ["supervisions.jsonl", "supervisions.jsonl.gz", "cuts.jsonl"])
def test_supervisions_of_lhotse(tmp_path: Path, name: str) -> None:
    """What describes only recordings stops nothing."""
    corpus = Corpus(random.Random(name), tmp_path)
    rows = ""
    for stem in corpus.texts:
        source = {"type": "file", "channels": [0], "source": f"{corpus.folder}/{stem}.wav"}
        rows += json.dumps({"id": stem, "sources": [source], "sampling_rate": 16000}) + "\n"
    (corpus.folder / "recordings.jsonl").write_text(rows)
    (corpus.folder / "recordings.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert len(scan(corpus.folder).records) == 6

    corpus.table(corpus.folder / name)
    stops(corpus.folder, name)


def test_a_part_of_a_corpus_is_known_in_a_table_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for n in range(90, 93):
        (folder / f"common_voice_{n}.mp3").touch()
    rows = [f"x\tcommon_voice_{n}.mp3\tgood evening {n}\n" for n in range(1000)]
    (tmp_path / "validated.tsv").write_text("".join(rows))
    stops(folder, "validated.tsv", num=3)


@pytest.mark.parametrize("seed", range(6))
def test_other_texts_stop_nothing(tmp_path: Path, seed: int) -> None:
    """In the folder, beside it, and above it."""
    rng = random.Random(seed)
    corpus = Corpus(rng, tmp_path / "corpus")
    stems = [*corpus.texts]
    folders = [corpus.root, corpus.root / "docs", tmp_path, tmp_path / "manifests"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text(
            f"# Six recordings\n{stems[0]} is noisy.\n## Licence\nSee LICENSE.\n"
        )
        (folder / "LICENSE").write_text("You may copy this.\nYou may change this.\n")
        (folder / "files.txt").write_text("".join(f"wav/{stem}.wav\n" for stem in stems))
        (folder / "speakers.tsv").write_text("".join(f"{s}\tanna\tfemale\n" for s in stems))
        (folder / "lexicon.txt").write_text("good G UH D\nrain R EY N\n")
        (folder / "books.txt.gz").write_bytes(gzip.compress(b"It was a long way home.\n" * 9))
        rows = [{"audio_filepath": f"{stem}.wav", "duration": 3.5} for stem in stems]
        (folder / "durations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    # Transcripts of others, and a corpus beside this one.
    other = tmp_path / "corpus/labelled"
    other.mkdir()
    (other / "tape_x.wav").touch()
    (other / "metadata.csv").write_text("file_name,transcription\ntape_x.wav,good evening\n")
    (corpus.root / "labels.csv").write_text("file_name,text\nlabelled/tape_x.wav,good evening\n")
    (tmp_path / "notes.txt").write_text("1 Call Anna back.\n2 Buy more tapes.\n3 Write to Bob.\n")

    assert len(scan(corpus.folder).records) == 6
    assert len(scan(corpus.folder / f"{stems[0]}.wav").records) == 1
    for source in (
        corpus.manifest(rng, corpus.root),
        corpus.manifest(rng, tmp_path / "manifests"),
        corpus.kaldi(tmp_path / "train"),
    ):
        assert len(scan(source, root_of(source)).records) == 6


@pytest.mark.parametrize("seed", range(4))
def test_a_table_of_the_whole_corpus_tells_of_one_of_its_folders(seed: int, tmp_path: Path) -> None:
    """However long the table is, and whatever the folder is called."""
    rng = random.Random(seed)
    speakers = rng.sample(["anna", "0007", "bob-2", "x_9", "maria"], 3)
    rows: list[tuple[str, str]] = []
    for speaker in speakers:
        (tmp_path / "corpus" / speaker).mkdir(parents=True)
        for number in range(3):
            name = f"{speaker}/{number}.wav"
            (tmp_path / "corpus" / name).touch()
            rows.append((name, " ".join(rng.sample(WORDS, 4))))

    # Of the last folder nothing stands in the first megabyte.
    others = [(f"elsewhere/{number}.wav", " ".join(WORDS)) for number in range(20_000)]
    table = tmp_path / "corpus" / rng.choice(["metadata.csv", "metadata.jsonl"])
    if table.suffix == ".csv":
        lines = ["file_name,transcription", *(f"{name},{text}" for name, text in others + rows)]
    else:
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in others + rows]
    table.write_text("".join(f"{line}\n" for line in lines))

    given = tmp_path / "corpus" / speakers[-1]
    with pytest.raises(ManifestError, match=table.name):
        scan(given)
    assert len(scan(given, ignore_transcripts=True).records) == 3

    # A table of other recordings is none of ours.
    table.write_text("".join(f"{line}\n" for line in lines[: len(others)]))
    assert len(scan(given).records) == 3


def test_a_table_above_that_cannot_be_read_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(random.Random(0), tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,transcription\n")
    opened = Path.open

    def refuse(path: Path, *given: object, **named: object) -> object:
        if path.name == "metadata.csv":
            raise PermissionError(13, "Permission denied")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert len(scan(corpus.folder).records) == len(corpus.texts)


@pytest.mark.parametrize("seed", range(3))
def test_a_program_that_is_called_like_a_recording_is_no_transcript(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    corpus = Corpus(rng, tmp_path / "corpus")
    suffix = rng.choice([".py", ".sh", ".praat", ".log", ".toml", ".R"])
    (corpus.folder / f"{next(iter(corpus.texts))}.cue").write_text('TITLE "a good long way home"\n')
    for stem in corpus.texts:
        (rng.choice([corpus.folder, corpus.root]) / f"{stem}{suffix}").write_text("say good day\n")
    assert len(scan(corpus.folder).records) == len(corpus.texts)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_program_said_about_recordings_is_no_transcript(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    corpus = Corpus(rng, tmp_path / "corpus")
    name = rng.choice(["log", "prepare.log", "nohup.out", "notes.txt", "what was said"])
    lines = [
        f"06:43:{n:02d} {stem}.wav: nothing is in channel 2; the mean of all channels is taken"
        for n, stem in enumerate(corpus.texts)
    ]
    folder = rng.choice([corpus.root, corpus.folder])
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    assert len(scan(corpus.folder).records) == len(corpus.texts)


@pytest.mark.parametrize("name", ["README.md", "readme.txt", "LICENSE", "CHANGES.tsv"])
def test_what_tells_how_a_corpus_was_made_is_no_transcript(name: str, tmp_path: Path) -> None:
    corpus = Corpus(random.Random(name), tmp_path)
    corpus.table(tmp_path / "text" / name)
    assert len(scan(corpus.folder).records) == len(corpus.texts)
