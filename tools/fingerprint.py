"""Hash what a version of speechssl makes of the same input, to compare versions.

    python tools/fingerprint.py OUT [--command "python -m speechssl.cli"] [--models EARLIER_OUT]

Makes a small corpus of tones, prepares it, pretrains and fine-tunes for a few updates, evaluates,
labels and transcribes; prints a line for each result. Lines are equal where a change changes no
result. The command runs on one thread, since sums of several threads differ in their last bits. Run
it with two versions and compare:

    PYTHONPATH=/tmp/before python tools/fingerprint.py /tmp/a > a.txt
    python tools/fingerprint.py /tmp/b > b.txt
    diff a.txt b.txt

With --models, the models of an earlier run (of another version, say) are evaluated, transcribe, and
are trained on.
"""

import argparse
import csv
import hashlib
import json
import os
import shlex
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
PITCH_HZ = {"a": 300, "b": 480, "c": 760, "d": 1200, "e": 1900, "f": 3000}
COUNTS = {"train": 40, "dev": 8, "test": 8}
# A small encoder: hundreds of updates a minute.
SMALL = [
    "encoder.subsampling=2",
    "encoder.channels=64",
    "encoder.width=64",
    "encoder.ffn_width=128",
    "encoder.num_layers=2",
    "encoder.num_heads=2",
    "encoder.dropout=0.0",
]
SMALL_FRONT_END = (
    "encoder.conv_layers=[[32,10,5],[32,3,2],[32,3,2],[32,3,2],[32,3,2],[32,2,2],[32,2,2]]"
)
SETTINGS = ["train.steps=20", "train.save_every=10", "train.device=cpu", "batch.seconds=8"]
# Until it hears words.
RECOGNISER = ["train.steps=480", "train.validate_every=240", "optim.lr=3e-3", "ctc.augment.tempo=0"]
# What a run measures of the machine; everything else in a row of metrics must be equal to the last
# bit.
OF_THE_MACHINE = {"time_s", "data_s"}


def speak(text: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """(S,) samples of a toy language: a tone for each letter, quiet for a space."""
    parts: list[NDArray[np.float64]] = []

    for letter in text:
        length = int(RATE * rng.uniform(0.12, 0.18))
        time = np.arange(length) / RATE
        tone = np.zeros(length)
        if letter != " ":
            tone = 0.3 * np.sin(2 * np.pi * PITCH_HZ[letter] * time)

        parts.append(tone * np.hanning(length))
        parts.append(np.zeros(int(RATE * 0.03)))

    samples = np.concatenate(parts)
    noise = 0.003 * rng.standard_normal(len(samples))
    return (samples + noise).astype(np.float32)


def sentence(rng: np.random.Generator) -> str:
    """Four words of the toy language."""
    words = ["".join(rng.choice(list(PITCH_HZ), size=rng.integers(2, 5))) for _ in range(4)]
    return " ".join(words)


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """(S,) samples in -1..1 as 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = np.round(samples * 32767).astype("<i2")

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.tobytes())


def make_corpus(folder: Path) -> None:
    """Write ``labelled`` with transcripts, ``long`` with three recordings of 40 s, without."""
    rng = np.random.default_rng(0)
    rows = [["file_name", "transcription", "speaker", "split"]]

    for split, count in COUNTS.items():
        for number in range(count):
            name = f"{split}{number:03d}.wav"
            text = sentence(rng)
            write_wav(folder / "labelled" / name, speak(text, rng))
            rows.append([name, text, f"speaker{number % 3}", split])

    with (folder / "labelled" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

    for number in range(3):
        pieces = [speak(sentence(rng), rng) for _ in range(12)]
        pause = (0.003 * rng.standard_normal(RATE)).astype(np.float32)
        with_pauses = []
        for piece in pieces:
            with_pauses.append(piece)
            with_pauses.append(pause)
        write_wav(folder / "long" / f"{number}.wav", np.concatenate(with_pauses))


def run(command: Sequence[str], *arguments: str | Path) -> str:
    """Run a command; return its standard output.

    What it says on standard error is shown if it fails.
    """
    whole = [*command, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)

    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def digest(data: bytes) -> str:
    """Hash bytes to 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def show(name: str, data: bytes) -> None:
    """Print one line of the fingerprint."""
    print(f"{digest(data)}  {name}", flush=True)


def show_files(folder: Path, name: str, pattern: str = "*") -> None:
    """Print one line for each file below ``folder`` that fits the pattern."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            show(f"{name}/{path.relative_to(folder)}", path.read_bytes())


def show_run(run_folder: Path, name: str) -> None:
    """Print the losses of every update, and the weights."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    kept = []
    for row in rows:
        kept.append({key: value for key, value in row.items() if key not in OF_THE_MACHINE})
    show(f"{name}: metrics of {len(rows)} updates", json.dumps(kept, sort_keys=True).encode())
    print(f"{'':16}  {name}: last loss {rows[-1]['loss']!r}")

    weights = run_folder / "model" / "tensors.safetensors"
    show(f"{name}: weights", weights.read_bytes())


def changes(*names: str) -> list[str]:
    """Write ``--set`` before each of SETTINGS and of ``names``."""
    options = []
    for name in (*SETTINGS, *names):
        options += ["--set", name]
    return options


def train_all(command: Sequence[str], out: Path) -> None:
    """Train every pretext task, and two recognisers."""
    runs = out / "runs"

    for task in ("contrastive", "random_projection", "reconstruction", "views", "units"):
        folder = runs / task
        chosen = changes("train.seed=1", *SMALL, f"task={task}")
        run(command, "pretrain", out / "long", "--preset", "tiny", "--run", folder, *chosen)
        show_run(folder, f"pretrain {task}")

    folder = runs / "waveform"
    chosen = changes("train.steps=5", *SMALL, SMALL_FRONT_END)
    run(command, "pretrain", out / "waveform", "--preset", "base", "--run", folder, *chosen)
    show_run(folder, "pretrain contrastive on waveforms")

    finetune = [*command, "finetune", str(out / "labelled"), "--preset", "tiny"]

    folder = runs / "scratch"
    chosen = changes(*RECOGNISER, *SMALL)
    run(finetune, "--init-from", "none", "--run", folder, *chosen)
    show_run(folder, "finetune scratch")

    # The shape of the encoder is that of the pretrained one.
    folder = runs / "tuned"
    chosen = changes(*RECOGNISER)
    run(finetune, "--init-from", runs / "contrastive", "--run", folder, *chosen)
    show_run(folder, "finetune tuned")


def use_models(command: Sequence[str], models: Path, out: Path, name: str) -> None:
    """Evaluate, label and transcribe with the recogniser; then train on from it."""
    recogniser = models / "runs" / "tuned"

    score = out / f"{name}-score"
    run(command, "evaluate", recogniser, out / "labelled", "--out", score)
    for file in ("utterances.jsonl", "report.txt"):
        show(f"{name}: {file}", (score / file).read_bytes())

    labels = out / f"{name}-labels.jsonl"
    run(command, "label", recogniser, out / "long", "--out", labels)
    texts = []
    for line in labels.read_text(encoding="utf-8").splitlines():
        # The model that made a label is named by its path.
        texts.append({**json.loads(line), "made_by": ""})
    show(f"{name}: labels", json.dumps(texts).encode())

    transcribe = [*command, "transcribe", str(recogniser)]
    shown = run(transcribe, "corpus/long", "corpus/labelled", "--output-format", "txt")
    show(f"{name}: transcripts", shown.encode())

    shown = run(transcribe, "corpus/long/0.wav", "--output-format", "json")
    segments = json.loads(shown)["segments"]
    show(f"{name}: words and times", json.dumps(segments).encode())

    folder = out / "runs" / f"{name}-on"
    chosen = changes("optim.lr=1e-3")
    run(command, "finetune", out / "labelled", "--init-from", recogniser, "--run", folder, *chosen)
    show_run(folder, f"{name}: trained on")

    folder = out / "runs" / f"{name}-units"
    chosen = changes("task=hidden_units", f"hidden_units.teacher={recogniser}")
    run(command, "pretrain", out / "long", "--init-from", recogniser, "--run", folder, *chosen)
    show_run(folder, f"{name}: pretrained on its units")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--command", default=f"{sys.executable} -m speechssl.cli")
    parser.add_argument("--models", type=Path, help="what this script wrote with another version")
    given = parser.parse_args()

    out = given.out.resolve()
    command = shlex.split(given.command)
    models = given.models.resolve() if given.models else None

    out.mkdir(parents=True)
    # Python looks for packages in the working folder first, and the version meant may be elsewhere.
    os.chdir(out)
    make_corpus(out / "corpus")

    stores: dict[str, tuple[str, list[str]]] = {
        "labelled": ("labelled", ["--jobs", "2"]),
        "long": ("long", []),
        "waveform": ("long", ["--features", "waveform"]),
    }
    for name, (source, options) in stores.items():
        run(command, "prepare", out / "corpus" / source, out / name, *options)
        show_files(out / name, f"store {name}")

    if models is None:
        train_all(command, out)
        models = out
    use_models(command, models, out, "own")


if __name__ == "__main__":
    main()
