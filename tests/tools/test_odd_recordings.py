"""A short form of tools/odd_recordings.py without a recogniser: what is kept holds the speech."""

from pathlib import Path

import numpy as np
from support.places import ROOT
from support.scripts import load_script
from support.speech import RATE, sentence, speak

from speechssl.audio.level import without_lows
from speechssl.audio.levelling import levelled
from speechssl.audio.reader import load_audio, write_wav
from speechssl.audio.silence import speech_intervals

tool = load_script(ROOT / "tools" / "odd_recordings.py")


def test_speech_in_any_form_is_kept_and_heard_as_in_the_clean_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean_files = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        write_wav(path, speak(sentence(rng, words=2), rng), RATE)
        clean_files.append(path)

    lossy = set()
    for recording in tool.make_recordings(clean_files, tmp_path / "odd", 40, seed=0):
        form = recording.form
        if not recording.is_asked_for:
            continue
        if form.about_coding.is_lossy:
            lossy.add(form.coding)

        voice = load_audio(recording.clean)
        samples = load_audio(recording.path)
        start = round(form.before_s * RATE)
        end = start + len(voice)

        is_speech = np.zeros(len(samples), bool)
        for first, last in speech_intervals(samples, RATE):
            is_speech[first:last] = True
        covered = is_speech[start:end].mean()
        assert covered > 0.97, form

        result, _ = levelled(samples, RATE)
        heard = without_lows(result, RATE)[start:end]
        assert len(heard) == len(voice)
        assert np.abs(heard).max() > 0.02, form
        # Strong hum is taken out by the same filter, which then has gone over the speech twice.
        once = without_lows(voice, RATE)
        twice = without_lows(once.astype(np.float32), RATE)
        likeness = [abs(np.corrcoef(heard[2000:], one[2000:])[0, 1]) for one in (once, twice)]
        assert max(likeness) > 0.9, form

    assert len(lossy) > 4
