"""Transcribe recordings with transformers' pipeline and with an imported model of ours: are the texts the same?

    python tools/same_texts.py THEIRS OURS AUDIO... [--most 20] [--random base|large]

THEIRS is a Hugging Face folder, OURS what `speechssl import THEIRS OURS` made of it. With --random, both are made:
THEIRS is a Wav2Vec2ForCTC of this style with random weights, saved by transformers with its processor, OURS its import.
Both hear the same samples, rounded to 16 bits as our feature store holds them. Exit code 1 if a text differs.
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
from speechssl.audio.reader import load_audio, write_wav
from speechssl.errors import AudioError, ConfigError, SpeechsslError
from speechssl.interop.convert import import_model
from speechssl.interop.huggingface import quiet_transformers
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.storage.checkpoint import model_folder
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
RATE = 16_000  # of the random model
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


def save_random(folder: Path, style: str, heard: NDArray[np.float32]) -> None:
    """A Wav2Vec2ForCTC with the vocabulary of English models; random, but each token has its turn in ``heard``."""
    if folder.exists():
        raise ConfigError(
            f"{folder} is there already and stays as it is: give another folder, or leave out --random"
        )
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    with quiet_transformers() as transformers, tempfile.TemporaryDirectory() as temporary:
        config = transformers.Wav2Vec2Config(
            **SIZE, **STYLES[style], vocab_size=len(TOKENS), pad_token_id=0
        )
        model = transformers.Wav2Vec2ForCTC(config)
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=style == "large", return_attention_mask=style == "large"
        )
        with torch.no_grad():
            for parameter in model.parameters():
                scale = 0.1 if parameter.dim() == 1 else 0.3 * parameter[0].numel() ** -0.5
                parameter.add_(scale * torch.randn_like(parameter))
            inputs = extractor(heard, sampling_rate=RATE, return_tensors="pt").input_values
            model.lm_head.bias.sub_(model.eval()(inputs).logits.mean((0, 1)))
        model.save_pretrained(folder)
        vocabulary = Path(temporary, "vocab.json")
        vocabulary.write_text(
            json.dumps({token: i for i, token in enumerate(TOKENS)}), encoding="utf-8"
        )
        tokenizer = transformers.Wav2Vec2CTCTokenizer(vocabulary)
        transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def choose(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, evenly spaced."""
    found = find_audio(paths)
    if not found:
        raise SystemExit("no recording found")
    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[place] for place in places]


def load(model: CtcModel, paths: Sequence[Path]) -> Recordings:
    """16-bit samples of the files that transcription takes whole, as float32; the others are named."""
    features = model.encoder.config.features
    recordings: Recordings = {}
    for path in paths:
        try:
            samples = load_audio(path, features.sample_rate_hz)
        except AudioError as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue
        if 0 < len(samples) <= WHOLE_BELOW_S * features.sample_rate_hz:
            recordings[str(path)] = (featurise(samples, features) / INT16_SCALE).astype(np.float32)
        else:
            print(f"left out: {path}: not up to {WHOLE_BELOW_S:g} s of sound", file=sys.stderr)
    if not recordings:
        raise SystemExit("no recording is left")
    return recordings


def our_texts(model: CtcModel, recordings: Recordings) -> list[str]:
    """Through files, as a user's recordings come."""
    rate = model.encoder.config.features.sample_rate_hz
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.wav") for number in range(len(recordings))]
        for path, samples in zip(paths, recordings.values(), strict=True):
            write_wav(path, samples, rate)
            assert np.array_equal(load_audio(path, rate), samples), (
                "the file does not hold the same samples"
            )
        results = list(transcribe(model, paths))
    failed = [result.error for result in results if not isinstance(result, Transcript)]
    if failed:
        raise SystemExit(f"not transcribed: {failed[0]}")
    return [result.text for result in results if isinstance(result, Transcript)]


def their_texts(folder: Path, recordings: Recordings, rate: int) -> list[str]:
    with quiet_transformers() as transformers:
        recognise = transformers.pipeline(
            "automatic-speech-recognition", model=str(folder), device="cpu"
        )
        inputs = [{"raw": samples, "sampling_rate": rate} for samples in recordings.values()]
        return [recognise(item)["text"] for item in inputs]


def run(options: argparse.Namespace) -> int:
    """Make if asked to, transcribe, compare, print."""
    torch.set_num_threads(options.threads)
    chosen = choose(options.audio, options.most)
    if options.random:
        save_random(options.theirs, options.random, load_audio(chosen[0], RATE))
        conversion = import_model(options.theirs, options.ours)
        print(
            f"made {options.theirs}, imported as {options.ours}; outputs differ by {conversion.difference:.1e}"
        )
    model = load_ctc(model_folder(options.ours))
    recordings = load(model, chosen)
    rate = model.encoder.config.features.sample_rate_hz
    audio_s = sum(map(len, recordings.values())) / rate
    print(
        f"{len(recordings)} recordings, {audio_s:.1f} s of audio; both hear the same 16-bit samples at {rate} Hz"
    )
    pairs = list(
        zip(
            their_texts(options.theirs, recordings, rate), our_texts(model, recordings), strict=True
        )
    )
    literally = sum(theirs == ours for theirs, ours in pairs)
    spaced = [" ".join(theirs.split()) == " ".join(ours.split()) for theirs, ours in pairs]
    characters = sum(len(ours) for _, ours in pairs)
    print(f"{len({ours for _, ours in pairs})} different texts, {characters} characters")
    print(f"identical literally: {literally} of {len(pairs)}")
    print(f"identical with runs of spaces as one, none at the ends: {sum(spaced)} of {len(pairs)}")
    for path, (theirs, ours), same in zip(recordings, pairs, spaced, strict=True):
        if not same:
            print(f"{path}\n  theirs: {theirs}\n  ours:   {ours}")
    return 0 if all(spaced) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("theirs", type=Path, help="Hugging Face folder of a Wav2Vec2ForCTC")
    parser.add_argument("ours", type=Path, help="our model or run folder")
    parser.add_argument(
        "audio", type=Path, nargs="+", help="files and folders; those of up to 15 s are taken"
    )
    parser.add_argument("--most", type=int, default=20, help="recordings, evenly spaced among all")
    parser.add_argument(
        "--random",
        choices=STYLES,
        help="make both folders first, with random weights in this style",
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args(arguments)
    if options.most < 1 or options.threads < 1:
        parser.error("--most and --threads are at least 1")
    try:
        return run(options)
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    raise SystemExit(main())
