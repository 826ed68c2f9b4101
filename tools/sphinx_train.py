"""Train a GMM-HMM with sphinxtrain on the labelled minutes that fine-tuning would choose."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.reader import load_audio, write_wav
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.recognition.settings import finetune_settings
from speechssl.recognition.training_set import TrainingSet, choose_training_set
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, json_line
from speechssl.text.phone_tokenizer import PhoneTokenizer

# Where Debian puts sphinxtrain's scripts, and the programs that they call.
SCRIPTS = "/usr/lib/*/sphinxtrain"
PROGRAMS = Path("/usr/lib/sphinxtrain")

# Of the files that sphinxtrain reads and writes.
NAME = "peer"
# Files of a model: what it was made of, its lexicon, what was left out, its acoustic model.
ABOUT = "peer.json"
LEXICON = "lexicon.txt"
SKIPPED = "skipped.jsonl"
ACOUSTIC = "acoustic"

RATE_HZ = 16_000
# sphinxtrain's defaults, for training and for pocketsphinx, which reads them from the model.
FRONT_END = {
    "lowerf": "130",
    "upperf": "6800",
    "nfilt": "25",
    "transform": "dct",
    "lifter": "22",
}
NORMALISATION = {"feat": "1s_c_d_dd", "agc": "none", "cmn": "batch", "varnorm": "no"}
# What sphinx_fe does unless told otherwise, and pocketsphinx 5 no longer does.
NO_LONGER = {"remove_noise": "no", "remove_silence": "no"}

# Phones by themselves, then in context, then with states tied by trees.
STAGES = (
    "20.ci_hmm/slave_convg.pl",
    "30.cd_hmm_untied/slave_convg.pl",
    "40.buildtrees/slave.treebuilder.pl",
    "45.prunetree/slave.state-tying.pl",
    "50.cd_hmm_tied/slave_convg.pl",
)
# After a failure sphinxtrain says so, and then waits for ever. Other errors are of one utterance.
FAILURE = b"failed to run"
# What it says of an utterance whose audio it cannot bring together with its transcript.
UNALIGNED = " ignored"
LOOK_EVERY_S = 0.5

SILENCE = "SIL"
FILLERS = "<s> SIL\n</s> SIL\n<sil> SIL\n"

# Ids of the phones of a pronunciation.
Phones = tuple[int, ...]


@dataclass(frozen=True)
class PeerSettings:
    """What decides a model.

    Attributes:
        minutes: labelled minutes; None takes all.
        seed: of their choice.
        senones: tied states.
        gaussians: densities of each, a power of two.
    """

    minutes: float | None = None
    seed: int = 0
    senones: int = 200
    gaussians: int = 8


@dataclass(frozen=True)
class Utterances:
    """What is learned from.

    Attributes:
        positions: in the dataset.
        texts: normalised transcripts.
        left_out: a JSON line for each utterance with a word that the lexicon lacks.
    """

    positions: list[int]
    texts: list[str]
    left_out: list[str]


def require_packages() -> Path:
    """Find what training and decoding need.

    Returns:
        the folder of sphinxtrain's scripts.

    Raises:
        ConfigError: something is not installed.
    """
    folders = sorted(glob(SCRIPTS))
    if not folders or not PROGRAMS.is_dir():
        raise ConfigError("sphinxtrain is not installed: apt-get install sphinxtrain")
    if shutil.which("sphinx_fe") is None:
        raise ConfigError("sphinx_fe is not installed: apt-get install sphinxbase-utils")
    if find_spec("pocketsphinx") is None:
        raise ConfigError("pocketsphinx is not installed: pip install pocketsphinx")
    return Path(folders[0])


def phone_name(phone_id: int) -> str:
    """Name a phone in plain letters: sphinxtrain makes file names of phones."""
    return f"P{phone_id:03d}"


def dictionary(spellings: Mapping[str, Sequence[Phones]]) -> Iterator[str]:
    """Write pronunciations of words as lines, sorted, in the form that both programs read."""
    for word in sorted(spellings):
        for number, phones in enumerate(spellings[word], 1):
            entry = word if number == 1 else f"{word}({number})"
            names = " ".join(map(phone_name, phones))
            yield f"{entry} {names}\n"


def samples_of(dataset: Dataset, position: int, audio: Path) -> NDArray[np.float32]:
    """Load the recording behind a chunk of a store: (S,) float32 at 16 kHz.

    Args:
        audio: the folder that the store was prepared from.
    """
    record = dataset.record(position)
    path = audio / record.audio
    return load_audio(path, RATE_HZ, offset_s=record.offset_s, duration_s=record.duration_s)


def train(store: Path, model: Path, audio: Path, lexicon: Path, settings: PeerSettings) -> str:
    """Train a model in the new folder ``model``.

    Args:
        audio: the folder that the store was prepared from.
        lexicon: as ``speechssl finetune --tokenizer phones:LEXICON`` reads it.

    Returns:
        what was done, in one line.

    Raises:
        ConfigError: something is not installed, ``model`` is there, or no utterance is left.
        SpeechsslError: sphinxtrain fails.
    """
    scripts = require_packages()
    # Absolute: sphinxtrain's scripts work in this folder.
    model = model.resolve()
    if model.exists() and any(model.iterdir()):
        raise ConfigError(f"{model} is there already: give a new folder, or remove it")

    chosen = choose(store, lexicon, settings)
    tokenizer = chosen.tokenizer
    assert isinstance(tokenizer, PhoneTokenizer)
    spelled = leave_out_unspelled(chosen, tokenizer)

    for folder in ("etc", "wav", "feat", "logdir"):
        (model / folder).mkdir(parents=True, exist_ok=True)
    write_atomic(model / SKIPPED, spelled.left_out)
    if not spelled.texts:
        raise ConfigError(f"every transcript has a word that {lexicon} lacks: give a larger one")

    num_samples = 0
    for number, position in enumerate(spelled.positions):
        samples = samples_of(chosen.dataset, position, audio)
        write_wav(model / "wav" / f"{number}.wav", samples, RATE_HZ)
        num_samples += len(samples)

    phone_ids = write_inputs(model / "etc", spelled.texts, tokenizer)
    write_atomic(model / "etc" / "sphinx_train.cfg", configuration(scripts, model, settings))

    started = time.monotonic()
    compute_features(model)
    for stage in STAGES:
        name = Path(stage).parent.name
        call([str(scripts / "scripts" / stage)], model, model / f"{name}.log")
    training_s = time.monotonic() - started
    unaligned = count_unaligned(model)

    keep_acoustic_model(model, settings)
    write_atomic(model / LEXICON, tokenizer.lexicon.as_text())

    seconds = num_samples / RATE_HZ
    about = {
        "minutes": settings.minutes,
        "seed": settings.seed,
        "senones": settings.senones,
        "gaussians": settings.gaussians,
        "utterances": len(spelled.texts),
        "left_out": len(spelled.left_out),
        "unaligned": unaligned,
        "seconds": round(seconds, 2),
        "training_s": round(training_s, 1),
        "store": str(store),
        "lexicon": str(lexicon),
        "phones": phone_ids,
    }

    write_atomic(model / ABOUT, as_json(about))

    return (
        f"{len(spelled.texts)} utterances, {seconds / 60:.1f} min, {len(phone_ids)} phones, "
        f"{settings.senones} senones of {settings.gaussians} Gaussians: {training_s:.0f} s; "
        f"{len(spelled.left_out)} utterances left out for words that the lexicon lacks, "
        f"{unaligned} that could not be aligned"
    )


def choose(store: Path, lexicon: Path, settings: PeerSettings) -> TrainingSet:
    """Choose the utterances that fine-tuning would choose."""
    opened = Store(store)
    changes = {
        "minutes": settings.minutes,
        "tokenizer": f"phones:{lexicon}",
        "train": {"seed": settings.seed},
    }
    resolved = finetune_settings(None, None, changes)

    train_split = Dataset([opened], ["train"])
    dev = Dataset([opened], ["dev"])
    return choose_training_set(train_split, dev, resolved, labels=None, keep=1.0)


def leave_out_unspelled(chosen: TrainingSet, tokenizer: PhoneTokenizer) -> Utterances:
    """Leave out the utterances with a word that the lexicon lacks, as fine-tuning does."""
    positions: list[int] = []
    texts: list[str] = []
    left_out: list[str] = []

    for position, text in enumerate(chosen.texts):
        unknown = tokenizer.unknown(text)
        if unknown:
            name, _ = chosen.dataset.id_text(position)
            left_out.append(json_line({"id": name, "unknown": sorted(unknown)}))
        else:
            positions.append(position)
            texts.append(text)

    return Utterances(positions, texts, left_out)


def write_inputs(etc: Path, texts: Sequence[str], tokenizer: PhoneTokenizer) -> list[int]:
    """Write the files that sphinxtrain reads: words, phones, transcripts and features' settings.

    Returns:
        ids of the phones that are learned: those of the first pronunciations of the words, which
        are all that sphinxtrain uses without an alignment.
    """
    vocabulary = {word for text in texts for word in text.split()}
    first = {word: [tokenizer.spellings(word)[0].ids] for word in vocabulary}
    phone_ids = sorted({phone_id for (phones,) in first.values() for phone_id in phones})

    names = [*map(phone_name, phone_ids), SILENCE]
    transcripts = [f"<s> {text} </s> ({number})\n" for number, text in enumerate(texts)]
    parameters = FRONT_END | NORMALISATION

    write_atomic(etc / f"{NAME}.dic", dictionary(first))
    write_atomic(etc / f"{NAME}.filler", FILLERS)
    write_atomic(etc / f"{NAME}.phone", [f"{name}\n" for name in names])
    write_atomic(etc / f"{NAME}_train.fileids", [f"{number}\n" for number in range(len(texts))])
    write_atomic(etc / f"{NAME}_train.transcription", transcripts)
    write_atomic(etc / "feat.params", [f"-{name} {value}\n" for name, value in parameters.items()])
    return phone_ids


def configuration(scripts: Path, model: Path, settings: PeerSettings) -> str:
    """Fill in the configuration that sphinxtrain comes with. Its own command cannot, on Debian.

    Raises:
        SpeechsslError: it lacks one of the settings.
    """
    path = scripts / "etc" / "sphinx_train.cfg"
    text = path.read_text(encoding="utf-8")

    places = {
        "___DB_NAME___": NAME,
        "___BASE_DIR___": str(model),
        "___SPHINXTRAIN_DIR___": str(scripts),
        "___SPHINXTRAIN_BIN_DIR___": str(PROGRAMS),
    }
    for place, value in places.items():
        text = text.replace(place, value)

    changed = {
        "CFG_FINAL_NUM_DENSITIES": settings.gaussians,
        "CFG_N_TIED_STATES": settings.senones,
    }
    for name, number in changed.items():
        text, count = re.subn(rf"\${name} = \d+;", f"${name} = {number};", text)
        if not count:
            raise SpeechsslError(f"{path} does not set {name}: install sphinxtrain again")
    return text


def compute_features(model: Path) -> None:
    """Compute the features of ``wav`` into ``feat``, as pocketsphinx will compute its own."""
    files = {
        "c": str(model / "etc" / f"{NAME}_train.fileids"),
        "di": str(model / "wav"),
        "ei": "wav",
        "do": str(model / "feat"),
        "eo": "mfc",
        "mswav": "yes",
        "samprate": str(RATE_HZ),
    }
    arguments: list[str] = []
    for name, value in (files | FRONT_END | NO_LONGER).items():
        arguments += [f"-{name}", value]

    call(["sphinx_fe", *arguments], model, model / "features.log")


def call(command: Sequence[str], folder: Path, log: Path) -> None:
    """Run a program, with what it says in the file ``log``.

    Raises:
        SpeechsslError: it fails.
    """
    # Perl no longer looks for modules in the working folder, and these scripts need it to.
    environment = os.environ | {"PERL_USE_UNSAFE_INC": "1"}
    has_failed = False

    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file) as process,
    ):
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            if FAILURE in log.read_bytes():
                has_failed = True
                process.terminate()

    if has_failed or process.returncode:
        raise SpeechsslError(f"{command[0]} failed: {log} and {folder / 'logdir'} say why")


def count_unaligned(model: Path) -> int:
    """Count the utterances that the last pass of training could not use."""
    logs = (model / "logdir" / Path(STAGES[-1]).parent).glob("*bw.log")
    last = max(logs, key=lambda log: log.stat().st_mtime)
    return last.read_text(encoding="utf-8", errors="replace").count(UNALIGNED)


def keep_acoustic_model(model: Path, settings: PeerSettings) -> None:
    """Keep the last acoustic model of a training, and delete audio, features and sums.

    Raises:
        SpeechsslError: there is none.
    """
    made = model / "model_parameters" / f"{NAME}.cd_cont_{settings.senones}"
    if not (made / "means").exists():
        raise SpeechsslError(f"sphinxtrain made no {made}: {model / 'logdir'} says why")

    shutil.copytree(made, model / ACOUSTIC)
    for folder in ("wav", "feat", "bwaccumdir", "model_parameters", "trees"):
        shutil.rmtree(model / folder, ignore_errors=True)
