"""Each format by example, read back by other parsers, with every word and every limit kept."""

import html
import json
import os
import random
from datetime import timedelta
from itertools import pairwise

import pytest
import regex
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import ConfigError
from speechssl.transcription.cues import CueLimits, cues
from speechssl.transcription.formats import (
    FORMATS,
    to_ctm,
    to_json,
    to_jsonl,
    to_srt,
    to_tsv,
    to_txt,
    to_vtt,
)
from speechssl.transcription.transcript import (
    Segment,
    Transcript,
    Word,
    joined,
    joined_segments,
)

WORDS = (Word(0.0, 0.4, "hello", 0.9), Word(0.5, 1.25, "wörld", 0.12345))
SEGMENTS = (Segment(0.0, 1.25, "hello wörld", WORDS), Segment(1.3004, 2.0, " again\n "))
TRANSCRIPT = Transcript("a/x.wav", "hello wörld again", SEGMENTS, 2.00049, "tiny")
SILENCE = Transcript("s.wav", "", (), 3.0, "tiny")


def test_txt_has_one_line_per_segment() -> None:
    assert to_txt(TRANSCRIPT) == "hello wörld\nagain\n"
    assert to_txt(SILENCE) == ""
    assert to_txt(Transcript("x", "only text", (), 1.0, "m")) == "only text\n"


def test_json_has_whispers_keys() -> None:
    table = json.loads(to_json(TRANSCRIPT))
    assert list(table) == [
        "text",
        "segments",
        "path",
        "duration_s",
        "model",
        "probabilities_scaled",
    ]
    assert table["segments"][0] == {"id": 0, "start": 0.0, "end": 1.25, "text": "hello wörld"} | {
        "words": [
            {"word": "hello", "start": 0.0, "end": 0.4, "probability": 0.9},
            {"word": "wörld", "start": 0.5, "end": 1.25, "probability": 0.12},
        ]
    }
    assert table["segments"][1]["start"] == 1.3
    assert table["duration_s"] == 2.0
    assert "wörld" in to_json(TRANSCRIPT)
    assert json.loads(to_json(SILENCE))["segments"] == []


@given(st.binary(max_size=20).filter(lambda raw: b"\0" not in raw), st.text())
def test_json_is_utf8_for_any_file_name_and_text(raw_name: bytes, text: str) -> None:
    name = os.fsdecode(raw_name)
    table = json.loads(to_json(Transcript(name, text, (), 1.0, "m")).encode("utf-8"))
    assert table["path"] == name
    assert table["text"] == text


def test_formats_are_the_ones_promised() -> None:
    assert list(FORMATS) == ["txt", "srt", "vtt", "tsv", "json", "jsonl", "ctm"]


def test_each_format_by_example() -> None:
    assert to_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,250\nhello wörld\n\n2\n00:00:01,300 --> 00:00:02,000\nagain\n"
    )

    assert to_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nhello wörld\n\n"
        "00:00:01.300 --> 00:00:02.000\nagain\n"
    )

    assert to_tsv(TRANSCRIPT) == "start\tend\ttext\n0\t1250\thello wörld\n1300\t2000\tagain\n"
    assert to_ctm(TRANSCRIPT) == "x 1 0.000 0.400 hello 0.90\nx 1 0.500 0.750 wörld 0.12\n"

    assert json.loads(to_jsonl(TRANSCRIPT)) == json.loads(to_json(TRANSCRIPT))
    assert to_jsonl(TRANSCRIPT).count("\n") == 1

    names = ("txt", "srt", "vtt", "tsv", "ctm")
    assert [FORMATS[name](SILENCE, CueLimits()) for name in names] == [
        "", "", "WEBVTT\n", "start\tend\ttext\n", ""
    ]  # fmt: skip


LETTERS = st.text("abcdefghij<>&éß語-", min_size=1, max_size=60)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words with gaps of any length, in segments."""
    segments, now = [], 0.0
    for _ in range(draw(st.integers(0, 4))):
        words = []
        for text in draw(st.lists(LETTERS, min_size=1, max_size=12)):
            start = now + draw(st.floats(0, 3))
            now = start + draw(st.floats(0.02, 2))
            words.append(Word(start, now, text, draw(st.floats(0, 1))))
        segments.append(Segment(words[0].start, now, " ".join(w.text for w in words), tuple(words)))
    return Transcript("in/a b.wav", " ".join(s.text for s in segments), tuple(segments), now, "m")


LIMITS = st.builds(
    CueLimits, line_chars=st.integers(5, 60), lines=st.integers(1, 3), seconds=st.floats(0.5, 10)
)


@given(transcripts(), LIMITS)
def test_subtitles_keep_every_word_and_every_limit(
    transcript: Transcript, limits: CueLimits
) -> None:
    found = cues(transcript, limits)
    assert " ".join(" ".join(cue.lines) for cue in found) == transcript.text

    words = [w for s in transcript.segments for w in s.words]
    for cue in found:
        count = len(" ".join(cue.lines).split())
        first, words = words[:count], words[count:]

        assert cue.start == round(1000 * first[0].start)
        spoken_until = round(1000 * first[-1].end)
        least = min(limits.least_seconds, limits.seconds)
        assert cue.end >= spoken_until
        assert cue.end == spoken_until or cue.end - cue.start <= round(1000 * least)

        assert count == 1 or (
            first[-1].end - first[0].start <= limits.seconds and len(cue.lines) <= limits.lines
        )

        assert all(len(line) <= limits.line_chars or " " not in line for line in cue.lines)
        assert all(b.start - a.end < limits.pause_s for a, b in pairwise(first))

    assert all(a.end <= b.start for a, b in pairwise(found))


def test_short_subtitles_stay_for_the_least_time_and_never_into_the_next() -> None:
    words = [Word(0.0, 0.1, "a", 1.0), Word(1.0, 1.05, "b", 1.0), Word(1.9, 2.0, "c", 1.0)]
    found = Transcript("x", "a b c", (Segment(0.0, 2.0, "a b c", tuple(words)),), 2.3, "m")
    for least, ends in [
        (0.7, (700, 1700, 2300)),
        (5.0, (1000, 1900, 2300)),
        (0.0, (100, 1050, 2000)),
    ]:
        times = [(cue.start, cue.end) for cue in cues(found, CueLimits(least_seconds=least))]
        assert times == list(zip((0, 1000, 1900), ends, strict=True))
    with pytest.raises(ConfigError, match=r"at least -1.0 s: it must be 0 or more"):
        CueLimits(least_seconds=-1.0)


@pytest.mark.parametrize("seed", range(10))
def test_texts_without_spaces_are_cut_between_characters(seed: int) -> None:
    """Characters as words that follow each other, some of them with marks, in two segments."""
    draw = random.Random(seed)
    limits = CueLimits(line_chars=draw.randrange(4, 20), lines=2, seconds=3.0)
    characters = [draw.choice(["中", "国", "か\u3099", "ก\u0e34", "ക"]) for _ in range(120)]
    words = [
        Word(0.2 * k, 0.2 * k + 0.2, text, 0.9, follows=True) for k, text in enumerate(characters)
    ]
    segments = [
        Segment(part[0].start, part[-1].end, joined(part), tuple(part))
        for part in (words[:70], words[70:])
    ]
    text = joined_segments(segments)
    assert text == "".join(characters)

    found = cues(Transcript("x", text, tuple(segments), 24.0, "m"), limits)
    assert "".join("".join(cue.lines) for cue in found) == text
    for cue in found:
        assert cue.end - cue.start <= 3000
        assert len(cue.lines) <= 2
        assert all(len(line) <= limits.line_chars for line in cue.lines)
        # No line begins with a mark of the character before it.
        assert all(line[0] in "中国かกക" for line in cue.lines)


@pytest.mark.parametrize("seed", range(10))
def test_no_space_is_invented_between_segments(seed: int) -> None:
    """Segments that begin or end in Chinese, in numbers and in Latin letters."""
    draw = random.Random(seed)
    kinds = draw.choices(["中", "5", "ok"], k=12)
    segments = [
        Segment(k, k + 0.5, text, (Word(k, k + 0.5, text, 0.9, follows=text == "中"),))
        for k, text in enumerate(kinds)
    ]
    text = joined_segments(segments)
    assert text.replace(" ", "") == "".join(kinds)
    assert not regex.search(r"中 | 中", text)
    assert not regex.search(r"[5k][5o]", text)
    # The report counts what has a time.
    assert Transcript("x", text, tuple(segments), 12.0, "m").num_words == len(kinds)


@pytest.mark.parametrize("seed", range(10))
def test_no_line_ends_where_readers_of_a_script_expect_none(seed: int) -> None:
    """Between a small kana and what it belongs to, behind a Thai vowel that is written first."""
    draw = random.Random(seed)
    characters = draw.choice(["きょうはカーっャ々人", "เกแดานะไมๆข", "ເກແດານະໄມໆ"])
    texts = draw.choices(characters, k=80)
    # No more than two belong to what is before them.
    texts = [text if k % 4 else draw.choice("国ก") for k, text in enumerate(texts)]
    words = tuple(
        Word(0.2 * k, 0.2 * k + 0.2, text, 0.9, follows=True) for k, text in enumerate(texts)
    )
    segment = Segment(0.0, 16.0, joined(words), words)
    limits = CueLimits(line_chars=draw.randrange(8, 20), lines=2, seconds=draw.uniform(2.0, 5.0))

    found = cues(Transcript("x", segment.text, (segment,), 16.0, "m"), limits)
    lines = [line for cue in found for line in cue.lines]
    assert "".join(lines) == segment.text
    for line, following in pairwise(lines):
        assert not regex.match(r"\p{LB=CJ}|\p{LB=NS}|[ะาๆະາໆ]", following)
        assert not regex.search(r"\p{Logical_Order_Exception}$", line)
    assert all(len(line) <= limits.line_chars for line in lines)
    assert all(cue.end - cue.start <= round(1000 * limits.seconds) for cue in found)


@given(transcripts(), LIMITS)
def test_subtitles_are_read_back_by_other_parsers(
    transcript: Transcript, limits: CueLimits
) -> None:
    """srt and webvtt-py: the same times and texts."""
    expected = [(cue.start, cue.end, "\n".join(cue.lines)) for cue in cues(transcript, limits)]
    parsed = list(srt.parse(to_srt(transcript, limits)))
    assert [(ms(cue.start), ms(cue.end), cue.content) for cue in parsed] == expected
    read = webvtt.from_string(to_vtt(transcript, limits))
    assert [
        (c.start_time.in_milliseconds(), c.end_time.in_milliseconds(), html.unescape(c.text))
        for c in read.captions
    ] == expected


def ms(length: timedelta) -> int:
    return round(length / timedelta(milliseconds=1))


@given(transcripts())
def test_ctm_and_tsv_are_tables(transcript: Transcript) -> None:
    words = [w for s in transcript.segments for w in s.words]
    rows = [line.split() for line in to_ctm(transcript).splitlines()]
    assert [(r[0], r[1], r[4]) for r in rows] == [("a%20b", "1", w.text) for w in words]
    ends = [round(1000 * (float(r[2]) + float(r[3]))) for r in rows]
    assert ends == [round(1000 * w.end) for w in words]
    lines = [line.split("\t") for line in to_tsv(transcript).splitlines()[1:]]
    assert [(int(a), int(b), text) for a, b, text in lines] == [
        (round(1000 * s.start), round(1000 * s.end), s.text) for s in transcript.segments
    ]


@pytest.mark.parametrize(
    "changes", [{"line_chars": 0}, {"lines": 0}, {"seconds": 0.0}, {"seconds": float("nan")}]
)
def test_limits_that_hold_nothing_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        CueLimits(**changes)  # type: ignore[arg-type]
