"""Texts that are no transcripts: nothing said, placeholders, marks of noises."""

import random
from pathlib import Path

import pytest
from support.speech import make_labelled

from speechssl.corpus.manifest import Manifest, Record
from speechssl.corpus.transcripts import clean_transcripts
from speechssl.data.prepare import prepare
from speechssl.data.store import Store

WORDS = ["the", "cat", "dog", "house", "rain", "over", "under", "green", "seven", "walked", "home"]


def sentences(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(count)]


def cleaned(texts: list[str | None]) -> tuple[list[str | None], str]:
    """The texts after cleaning, and what was said."""
    records = tuple(Record(f"{k:04d}", f"{k:04d}.wav", text=text) for k, text in enumerate(texts))
    manifest, remarks = clean_transcripts(Manifest(Path(), records))
    return [record.text for record in manifest.records], "\n".join(remarks)


@pytest.mark.parametrize("seed", range(4))
def test_texts_without_a_letter_or_digit_are_none(seed: int) -> None:
    rng = random.Random(seed)
    said = sentences(rng, 10)
    nothing = [
        rng.choice(["", " ", "-", "...", "?", "—", "[noise]", "<unk> (laughs)"]) for _ in range(5)
    ]
    texts, remarks = cleaned([*said, *nothing])
    assert texts == [*said, *[None] * 5]
    assert "5 transcripts say nothing" in remarks
    assert "5 of 15 recordings or parts are audio without a transcript" in remarks


@pytest.mark.parametrize("seed", range(4))
def test_a_placeholder_in_every_third_row_is_none(seed: int) -> None:
    rng = random.Random(seed)
    placeholder = rng.choice(["x", "X.", "n/a", "None", "untranscribed", "TODO", "no transcript"])
    said = sentences(rng, rng.randint(6, 60))
    given = [
        text for k, text in enumerate(said) for text in ([text] if k % 2 else [text, placeholder])
    ]
    texts, remarks = cleaned(list(given))
    assert texts == [None if text == placeholder else text for text in given]
    assert f"{given.count(placeholder)} of {len(given)} transcripts are placeholders" in remarks


def test_texts_that_only_seem_to_be_placeholders_stay() -> None:
    """Letters that are spelled, commands, words of one letter, and a text that occurs once."""
    rng = random.Random(0)
    spelled = [rng.choice("abcdefx") for _ in range(90)]
    commands = [rng.choice(["yes", "no", "none", "stop"]) for _ in range(90)]
    for given in (
        spelled,
        commands,
        [*sentences(rng, 40), *["嗯"] * 3],
        [*sentences(rng, 30), "none"],
    ):
        texts, remarks = cleaned(list(given))
        assert texts == given
        assert "placeholders" not in remarks


def test_other_texts_that_many_rows_share_are_named() -> None:
    rng = random.Random(0)
    given = [*sentences(rng, 20), *["see the other file"] * 10]
    texts, remarks = cleaned(list(given))
    assert texts == given
    assert "of 30 transcripts many are equal: 'see the other file' 10" in remarks


NOISES = ["[noise]", "<unk>", "(laughter)", "[BREATH]", "{cough}", "<SPOKEN_NOISE>", "*laughs*"]
NOISES += ["[non-human noise]", "(clears throat)", "++breath++", "[Music]", "<sil>"]
OTHERS = ["[laughter-yes]", "(he said)", "<overlap>", "{um}"]


@pytest.mark.parametrize("seed", range(4))
def test_marks_of_noises_are_left_out_and_others_named(seed: int) -> None:
    """They became words."""
    rng = random.Random(seed)
    expected: list[str] = []
    given: list[str | None] = []
    num_dropped = 0
    others: set[str] = set()
    for text in sentences(rng, 20):
        words = text.split()
        marked = list(words)
        other = rng.choice(OTHERS)
        others.add(other)
        words.append(other)
        marked.append(other)
        for _ in range(rng.randint(0, 2)):
            place = rng.randint(0, len(marked) - 1)
            marked.insert(place, rng.choice(NOISES))
            num_dropped += 1
        expected.append(" ".join(words))
        given.append(" ".join(marked))

    texts, remarks = cleaned(given)
    assert texts == expected
    assert f"{num_dropped} marks of noises are left out" in remarks
    assert "20 other marks in transcripts stay" in remarks
    assert all(repr(other) in remarks for other in others)


def test_a_store_has_them_as_audio_without_a_transcript(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They went to dev and test, where every word that was heard counted as wrong."""
    folder = make_labelled(tmp_path / "in", {"": 12})
    table = (folder / "metadata.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:]]
    texts = ["-", "", "...", *sentences(random.Random(0), len(rows) - 3)]
    changed = [f"{row[0]},{text},," for row, text in zip(rows, texts, strict=True)]
    (folder / "metadata.csv").write_text("\n".join([table[0], *changed]) + "\n")

    prepare(folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    records = [store.record(k) for k in range(len(store))]
    assert {r.split for r in records if r.text is None} <= {"train", "unused"}
    assert {r.text for r in records} - {None} == set(texts[3:])
    assert "2 transcripts say nothing: '-' 1, '...' 1" in capsys.readouterr().err
