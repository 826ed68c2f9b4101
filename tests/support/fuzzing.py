"""Readers of strangers' files, fed with odd bytes: each takes them or raises our error.

    python tests/support/fuzzing.py TARGET SECONDS FOLDER     coverage-guided, by atheris

FOLDER keeps the inputs that reached new code, and those that failed: ``crash-*``,
``timeout-*`` and ``oom-*``.
"""

import io
import json
import random
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import soundfile
import torch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    import atheris

    instrumented = atheris.instrument_imports(include=["speechssl"])
else:
    instrumented = nullcontext()

with instrumented:
    from speechssl.audio.containers.inspection import inspect
    from speechssl.audio.reader import write_wav
    from speechssl.config import read_preset
    from speechssl.corpus.layouts import scan
    from speechssl.data import store
    from speechssl.data.dataset import Dataset
    from speechssl.data.prepare import PrepareConfig, prepare
    from speechssl.decoding.arpa import read_arpa
    from speechssl.errors import AudioError, SpeechsslError
    from speechssl.interop.safe_loading import read_tensors
    from speechssl.pretraining.settings import pretrain_settings
    from speechssl.recognition.model import load_ctc, save_ctc
    from speechssl.recognition.settings import finetune_settings
    from speechssl.scoring.calibration import Scaling
    from speechssl.storage import checkpoint
    from support.models import random_recogniser

MOST_BYTES = 4096  # of an input: small ones are tried often
JSON_MANIFEST = (
    '{"audio_filepath": "a.wav", "duration": 1.5, "text": "one two", "offset": 0.5, "id": "x", '
    '"speaker": "s"}\n'
    '{"audio_filepath": "b/c.wav"}\n'
)
ARPA = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<s>\t-0.3
-0.9\t</s>
-1.2\t<unk>
-0.7\ta\t-0.2

\\2-grams:
-0.5\t<s> a
-0.4\ta </s>

\\end\\
"""


@dataclass(frozen=True)
class Target:
    """One reader: good inputs to begin with, and how an input is read in a folder."""

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path, bytes], object]
    refuses: bool = True
    """Whether any input is wrong to it; of FLAC it only notes what the header declares."""


def _encoded(**kind: str) -> bytes:
    rng, file = np.random.default_rng(0), io.BytesIO()
    soundfile.write(file, 0.1 * rng.standard_normal(700).astype(np.float32), 8000, **kind)
    return file.getvalue()


def _walk(_folder: Path, data: bytes) -> None:
    """Check a container as before decoding. No decoder gets what might crash it.

    The tests of the sandbox plant what broken files do to decoders.
    """
    found = inspect(io.BytesIO(data))
    if found.reason:
        raise AudioError(found.reason, found.detail)


def _scan(name: str, beside: Mapping[str, str] = {}) -> Callable[[Path, bytes], object]:
    def read(folder: Path, data: bytes) -> None:
        for other, text in beside.items():
            (folder / other).write_text(text)
        (folder / name).write_bytes(data)
        scan(folder / name)

    return read


def _kaldi(folder: Path, data: bytes) -> None:
    """The files of a Kaldi directory, one after the other."""
    for name, part in zip(
        ("wav.scp", "segments", "text", "utt2spk"), data.split(b"\0"), strict=False
    ):
        (folder / name).write_bytes(part)
    scan(folder)


def _configure(folder: Path, data: bytes) -> None:
    (folder / "x.toml").write_bytes(data)
    read_preset(folder / "x.toml")
    pretrain_settings(None, str(folder / "x.toml"), {})


def _changed(data: bytes) -> dict[str, object] | None:
    """What is to be sealed again, so that the checksum is no wall before the code behind it."""
    try:
        table = json.loads(data)
        json.dumps(table).encode()
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _store(folder: Path) -> list[bytes]:
    """The index of a store, without its checksum; the folder keeps the store."""
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        write_wav(
            folder / "in" / f"{number}.wav",
            0.1 * rng.standard_normal(40000).astype(np.float32),
            16000,
        )
    prepare(folder / "in", folder / "store", PrepareConfig(min_chunk_s=0.5))
    meta = json.loads((folder / "store/store.json").read_text())
    del meta["checksum"]
    return [json.dumps(meta).encode()]


def _open_store(folder: Path, data: bytes) -> None:
    meta = _changed(data)
    sealed = (
        data
        if meta is None
        else json.dumps(meta | {"checksum": store.meta_checksum(meta)}).encode()
    )
    (folder / "store/store.json").write_bytes(sealed)
    opened = store.Store(folder / "store")
    opened.verify()
    found = Dataset([opened])
    for position in range(len(found)):
        found.id_text(position)
        found.array(position)


def _record(folder: Path) -> list[bytes]:
    """Of a recogniser, without its checksum; the folder keeps the recogniser."""
    save_ctc(random_recogniser(), folder / "model", {"preset": "tiny"}, Scaling(0.5, 0.1))
    record = dict(checkpoint.load_record(folder / "model"))
    _SIZES.append(record["encoder"])
    return [json.dumps(record).encode()]


_SIZES: list[object] = []  # others would only take memory


def _open_record(folder: Path, data: bytes) -> None:
    record = _changed(data)
    (folder / "model/record.json").write_bytes(data if record is None else checkpoint._seal(record))
    found = checkpoint.load_record(folder / "model")
    finetune_settings(folder / "model", None, {})
    if found["encoder"] in _SIZES:
        load_ctc(folder / "model")


def _saved(_folder: Path) -> list[bytes]:
    file = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, file)
    return [file.getvalue()]


def _weights(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, data: bytes) -> None:
        (folder / name).write_bytes(data)
        read_tensors(folder)

    return read


def _arpa(folder: Path, data: bytes) -> None:
    (folder / "x.arpa").write_bytes(data)
    read_arpa(folder / "x.arpa").score(["a", "b"])


PRESET = b"[encoder]\nnum_layers = 3\n[pretrain.optim]\nlr = 1e-3\n[pretrain.train]\nsteps = 9\n"
TABLE = b'file_name,transcription,split\na.wav,one,train\nb.wav,"two, three",dev\n'
KALDI = b"r a.wav\n\0u r 0.5 1.5\n\0u one two\n\0u s\n"
TARGETS = {
    "wav": Target(
        lambda _: [_encoded(format="WAV", subtype=kind) for kind in ("PCM_16", "FLOAT", "ULAW")],
        _walk,
    ),
    "flac": Target(lambda _: [_encoded(format="FLAC")], _walk, refuses=False),
    "ogg": Target(
        lambda _: [_encoded(format="OGG", subtype=kind) for kind in ("VORBIS", "OPUS")], _walk
    ),
    "mp3": Target(lambda _: [_encoded(format="MP3")], _walk),
    "jsonl": Target(lambda _: [JSON_MANIFEST.encode()], _scan("x.jsonl")),
    "csv": Target(lambda _: [TABLE], _scan("metadata.csv")),
    "kaldi": Target(lambda _: [KALDI], _kaldi),
    "fairseq": Target(
        lambda _: [b"/root\na.wav\t1000\nb.wav\t2000\n"], _scan("x.tsv", {"x.wrd": "one\ntwo\n"})
    ),
    "preset": Target(lambda _: [PRESET], _configure),
    "store": Target(_store, _open_store),
    "record": Target(_record, _open_record),
    "safetensors": Target(
        lambda _: [safetensors.numpy.save({"a": np.zeros(2, np.float32)})],
        _weights("model.safetensors"),
    ),
    "torch": Target(_saved, _weights("pytorch_model.bin")),
    "arpa": Target(lambda _: [ARPA.encode()], _arpa),
}


def try_one(target: Target, folder: Path, data: bytes) -> bool:
    """Whether the input was taken; any error but ours goes on."""
    try:
        target.read(folder, data)
    except SpeechsslError:
        return False
    return True


def mutated(data: bytes, draws: random.Random) -> bytes:
    """A few random changes: bits, bytes, extreme numbers, pieces gone, doubled or cut off."""
    found = bytearray(data)
    for _ in range(draws.choice((1, 1, 2, 4, 8))):
        at = draws.randrange(len(found) + 1)
        length = min(len(found) - at, draws.choice((1, 2, 4, 8, 64)))

        match draws.randrange(7):
            case 0:
                found[at : at + 1] = bytes(b ^ 1 << draws.randrange(8) for b in found[at : at + 1])
            case 1:
                found[at : at + length] = draws.randbytes(length)
            case 2:
                value = draws.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, len(data)))
                found[at : at + 4] = struct.pack(draws.choice(("<I", ">I")), value)
            case 3:
                del found[at : at + length]
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                found[at:at] = draws.choice(
                    (
                        b"\0",
                        b"\n",
                        b"-1",
                        b"1e999",
                        b"nan",
                        b'"',
                        b"{",
                        b"\xff",
                        b"..",
                        b"9" * 40,
                        b"[" * 2000,
                    )
                )
            case _:
                del found[at:]
    return bytes(found[:MOST_BYTES])


def main() -> None:
    """Fuzz one target, guided by what code its inputs reach."""
    name, seconds, kept = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    kept.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds(Path(folder))):
            (kept / f"seed{number}").write_bytes(seed)

        def one(data: bytes) -> None:
            try_one(target, Path(folder), data)

        limits = [
            "-timeout=20",
            "-rss_limit_mb=6000",
            f"-max_len={MOST_BYTES}",
            f"-max_total_time={seconds}",
        ]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={kept}/", str(kept)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
