"""The tool for long recordings: places, errors of word times, shares of words, a toy run."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.places import ROOT
from support.scripts import load_script
from support.settings import tuned
from support.speech import RATE

from speechssl.recognition.finetune import finetune
from speechssl.transcription import pieces
from speechssl.transcription.transcript import Segment, Transcript, Word

tool = load_script(ROOT / "tools" / "long_files.py")


def test_recordings_lie_where_it_says(labelled_folder: Path, tmp_path: Path) -> None:
    files = sorted(labelled_folder.glob("train*.wav"))[:5]
    places = list(tool.joined(files, RATE, tmp_path / "x.wav", 20.0, random.Random(0)))
    samples, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert rate == RATE
    assert len(samples) >= 20 * RATE
    loud = np.abs(samples) > 0.02
    for begin, onset, end in places:
        own = loud[round(begin * RATE) : round(end * RATE)]
        assert begin <= onset < end
        assert abs(begin + own.argmax() / RATE - onset) < 0.05
    for (*_, end), (begin, *_) in itertools.pairwise(places):
        assert tool.PAUSE_S[0] <= begin - end + 1e-3
        assert not loud[round(end * RATE) : round(begin * RATE)].any()


def test_errors_are_from_each_recordings_onset_to_its_first_word() -> None:
    words = tuple(Word(start, start + 0.2, "a", 1.0) for start in (1.1, 1.5, 4.8, 9.0))
    result = Transcript("x", "a a a a", (Segment(1.1, 9.2, "a a a a", words),), 10.0, "")
    found = tool.onset_errors(result, [(1.0, 1.2, 2.0), (5.0, 5.1, 6.0), (7.0, 7.1, 8.0)])
    assert found.tolist() == pytest.approx([0.1, 0.3])


def test_the_share_of_same_words() -> None:
    assert tool.same_words(["a b c", "a"], ["a b d", "a"]) == (3 / 4, 1)


@pytest.mark.slow
def test_it_runs_on_toy_speech(
    labelled_store: Path, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune([labelled_store], tmp_path / "run", tuned(), init=None)
    options, before = ["--hours", "0.01", "--pieces", "1"], pieces.WHOLE_BELOW_S
    assert tool.main([str(tmp_path / "run"), str(labelled_folder), *options]) == 0
    out = capsys.readouterr().out
    assert "recordings with a word" in out
    assert "words the same in pieces as whole" in out
    assert before == pieces.WHOLE_BELOW_S  # tests after this one in its process
