"""How many words are wrong when silence, noise or hum is added to recordings?

The recordings of a split of a store go through ``transcribe``, once as they are and once in each
other form:

    python tools/robustness.py MODEL STORE AUDIO_FOLDER --split dev
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechssl.audio.reader import load_audio
from speechssl.data.store import Chunk, Store
from speechssl.scoring.score import score
from speechssl.tables import text_table
from speechssl.text.normalise import normalise
from speechssl.transcription.recogniser import Recogniser, load_recogniser
from speechssl.transcription.transcript import Transcript

RATE_HZ = 16_000
Samples = NDArray[np.float32]


def with_silence(samples: Samples, seconds: float) -> Samples:
    """Put digital silence before and after the recording."""
    silence = np.zeros(round(seconds * RATE_HZ), np.float32)
    return np.concatenate([silence, samples, silence])


def white_noise(num_samples: int, peak_db: float, samples: Samples) -> Samples:
    """Make noise whose standard deviation lies ``peak_db`` from the peak of the recording."""
    draws = np.random.default_rng(num_samples)
    level = np.abs(samples).max() * 10 ** (peak_db / 20)
    noise = level * draws.standard_normal(num_samples)
    return noise.astype(np.float32)


def amid_noise(samples: Samples, seconds: float, peak_db: float) -> Samples:
    """Put faint noise before and after the recording, and none into it."""
    num_samples = round(seconds * RATE_HZ)
    before = white_noise(num_samples, peak_db, samples)
    after = white_noise(num_samples + 1, peak_db, samples)
    return np.concatenate([before, samples, after])


def in_noise(samples: Samples, peak_db: float) -> Samples:
    """Add noise to the recording."""
    return samples + white_noise(len(samples), peak_db, samples)


def with_hum(samples: Samples, peak_db: float) -> Samples:
    """Add hum of 50 Hz whose peak lies ``peak_db`` from that of the recording."""
    seconds = np.arange(len(samples)) / RATE_HZ
    level = np.abs(samples).max() * 10 ** (peak_db / 20)
    hum = level * np.sin(2 * np.pi * 50 * seconds)
    return samples + hum.astype(np.float32)


FORMS: dict[str, Callable[[Samples], Samples]] = {
    "as it is": lambda samples: samples,
    "1 s of digital silence before and after": lambda samples: with_silence(samples, 1),
    "3 s of it": lambda samples: with_silence(samples, 3),
    "2 s of noise at -60 dB before and after": lambda samples: amid_noise(samples, 2, -60),
    "noise at -40 dB": lambda samples: in_noise(samples, -40),
    "hum at -20 dB": lambda samples: with_hum(samples, -20),
}


def transcripts_of(
    recogniser: Recogniser, chunks: list[Chunk], audio: Path, form: Callable[[Samples], Samples]
) -> dict[str, str]:
    """Transcribe each utterance's file in this form: utterance -> text, "" of a failed file."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for number, chunk in enumerate(chunks):
            path = Path(folder, f"{number:06d}.wav")
            samples = load_audio(audio / chunk.audio, RATE_HZ)
            soundfile.write(path, form(samples), RATE_HZ, subtype="FLOAT")
            paths[str(path)] = chunk.id

        texts = {}
        for result in recogniser.transcribe_files(list(map(Path, paths))):
            text = result.text if isinstance(result, Transcript) else ""
            texts[paths[str(result.path)]] = text
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--split", default="dev")
    options = parser.parse_args()

    recogniser = load_recogniser(options.model)
    store = Store(options.store)
    chunks = [store.record(number) for number in range(len(store))]
    chunks = [chunk for chunk in chunks if chunk.split == options.split and chunk.text]
    normaliser = recogniser.model.normaliser
    references = {chunk.id: normalise(chunk.text or "", normaliser) for chunk in chunks}

    rows = []
    for name, form in FORMS.items():
        texts = transcripts_of(recogniser, chunks, options.audio, form)
        heard = {key: normalise(text, normaliser) for key, text in texts.items()}
        result = score(references, heard)
        rows.append((name, f"{result.wer:.1%}", f"{result.cer:.1%}"))

    print(text_table(("form", "WER", "CER"), rows), end="")


if __name__ == "__main__":
    main()
