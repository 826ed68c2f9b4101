"""Does an imported model give the same texts as transformers' pipeline gives for the original?

    python tools/same_texts.py THEIRS OURS AUDIO... [--most 20] [--random base|large]

THEIRS is a Hugging Face folder, OURS what `speechssl import THEIRS OURS` made of it. With --random,
both are made: THEIRS is a Wav2Vec2ForCTC of this style with random weights, saved by transformers
with its processor, OURS its import. Both hear the same samples, rounded to 16 bits as our feature
store holds them. Exit code 1 if a text differs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.audio.features import INT16_SCALE, featurise
from speechssl.audio.levelling import levelled
from speechssl.audio.reader import load_audio, write_wav
from speechssl.errors import AudioError, ConfigError, SpeechsslError
from speechssl.interop.convert import import_model
from speechssl.interop.huggingface import quiet_transformers
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.storage.saved_folders import model_folder
from speechssl.transcription.pieces import WHOLE_BELOW_S, find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Transcript

Recordings = dict[str, NDArray[np.float32]]
STYLES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
}
SIZE = {
    "conv_dim": [64] * 7,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
# Of the random model, Hz.
RATE = 16_000
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


def save_random(folder: Path, style: str, heard: NDArray[np.float32]) -> None:
    """Save a random Wav2Vec2ForCTC with the vocabulary of English models.

    Args:
        heard: samples in which each token has its turn.
    """
    if folder.exists():
        raise ConfigError(
            f"{folder} is there already and stays as it is: give another folder, or leave out "
            "--random"
        )
    folder.mkdir(parents=True)

    torch.manual_seed(0)
    with quiet_transformers() as transformers:
        settings = SIZE | STYLES[style] | {"vocab_size": len(TOKENS), "pad_token_id": 0}
        model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**settings))
        is_large = style == "large"
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=is_large, return_attention_mask=is_large
        )
        inputs = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_values
        randomise(model, inputs)
        model.save_pretrained(folder)

        with tempfile.TemporaryDirectory() as temporary:
            vocabulary = Path(temporary, "vocab.json")
            ids = {token: i for i, token in enumerate(TOKENS)}
            vocabulary.write_text(json.dumps(ids), encoding="utf-8")
            tokenizer = transformers.Wav2Vec2CTCTokenizer(vocabulary)
            transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


@torch.no_grad()
def randomise(model: Any, inputs: torch.Tensor) -> None:
    """Change all weights, those of the norms too, so that each token has its turn in ``inputs``."""
    for parameter in model.parameters():
        is_vector = parameter.dim() == 1
        scale = 0.1 if is_vector else 0.3 * parameter[0].numel() ** -0.5
        parameter.add_(scale * torch.randn_like(parameter))

    # With equal means over the frames no token is best in nearly all of them.
    mean_logits = model.eval()(inputs).logits.mean((0, 1))
    model.lm_head.bias.sub_(mean_logits)


def choose(paths: Sequence[Path], most: int) -> list[Path]:
    """Choose at most so many of the files, evenly spaced."""
    found = find_audio(paths)
    if not found:
        raise SystemExit("no recording found")

    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[place] for place in places]


def load(model: CtcModel, paths: Sequence[Path]) -> Recordings:
    """Load 16-bit samples of the files that transcription takes whole, as float32 and levelled.

    The others are named.
    """
    features = model.encoder.config.features
    most_samples = WHOLE_BELOW_S * features.sample_rate_hz
    recordings: Recordings = {}
    for path in paths:
        try:
            as_recorded = load_audio(path, features.sample_rate_hz)
            samples, _ = levelled(as_recorded, features.sample_rate_hz)
        except AudioError as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue

        if 0 < len(samples) <= most_samples:
            rounded = featurise(samples, features) / INT16_SCALE
            recordings[str(path)] = rounded.astype(np.float32)
        else:
            print(f"left out: {path}: not up to {WHOLE_BELOW_S:g} s of sound", file=sys.stderr)

    if not recordings:
        raise SystemExit("no recording is left")
    return recordings


def our_texts(model: CtcModel, recordings: Recordings) -> list[str]:
    """Transcribe through files, as a user's recordings come."""
    rate = model.encoder.config.features.sample_rate_hz
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, samples in enumerate(recordings.values()):
            path = Path(folder, f"{number}.wav")
            write_wav(path, samples, rate)
            read_back = load_audio(path, rate)
            assert np.array_equal(read_back, samples), "the file does not hold the same samples"
            paths.append(path)
        results = list(transcribe(model, paths))

    texts = []
    for result in results:
        if not isinstance(result, Transcript):
            raise SystemExit(f"not transcribed: {result.error}")
        texts.append(result.text)
    return texts


def their_texts(folder: Path, recordings: Recordings, rate: int) -> list[str]:
    """Transcribe with transformers' pipeline."""
    with quiet_transformers() as transformers:
        recognise = transformers.pipeline(
            "automatic-speech-recognition", model=str(folder), device="cpu"
        )
        inputs = [{"raw": samples, "sampling_rate": rate} for samples in recordings.values()]
        return [recognise(item)["text"] for item in inputs]


def run(options: argparse.Namespace) -> int:
    """Make both folders if asked to, transcribe, compare, print."""
    torch.set_num_threads(options.threads)
    chosen = choose(options.audio, options.most)
    if options.random:
        save_random(options.theirs, options.random, load_audio(chosen[0], RATE))
        conversion = import_model(options.theirs, options.ours)
        print(
            f"made {options.theirs}, imported as {options.ours}; "
            f"outputs differ by {conversion.difference:.1e}"
        )

    model = load_ctc(model_folder(options.ours))
    recordings = load(model, chosen)
    rate = model.encoder.config.features.sample_rate_hz
    audio_s = sum(map(len, recordings.values())) / rate
    print(
        f"{len(recordings)} recordings, {audio_s:.1f} s of audio; "
        f"both hear the same 16-bit samples at {rate} Hz"
    )

    theirs = their_texts(options.theirs, recordings, rate)
    ours = our_texts(model, recordings)
    return report(list(recordings), theirs, ours)


def report(names: Sequence[str], theirs: Sequence[str], ours: Sequence[str]) -> int:
    """Print how many texts are the same, and those that differ; return the exit code."""
    num_characters = sum(map(len, ours))
    print(f"{len(set(ours))} different texts, {num_characters} characters")

    num_equal = 0
    num_equal_words = 0
    differing = []
    for name, their_text, our_text in zip(names, theirs, ours, strict=True):
        num_equal += their_text == our_text
        if their_text.split() == our_text.split():
            num_equal_words += 1
        else:
            differing.append(f"{name}\n  theirs: {their_text}\n  ours:   {our_text}")

    print(f"identical literally: {num_equal} of {len(names)}")
    print(
        f"identical with runs of spaces as one, none at the ends: {num_equal_words} of {len(names)}"
    )
    for lines in differing:
        print(lines)
    return 1 if differing else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return run(options)
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("theirs", type=Path, help="Hugging Face folder of a Wav2Vec2ForCTC")
    parser.add_argument("ours", type=Path, help="our model or run folder")
    audio_help = "files and folders; those of up to 15 s are taken"
    parser.add_argument("audio", type=Path, nargs="+", help=audio_help)
    parser.add_argument("--most", type=int, default=20, help="recordings, evenly spaced among all")
    random_help = "make both folders first, with random weights in this style"
    parser.add_argument("--random", choices=STYLES, help=random_help)
    parser.add_argument("--threads", type=int, default=2, help="of torch")

    options = parser.parse_args(arguments)
    if options.most < 1 or options.threads < 1:
        parser.error("--most and --threads are at least 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
