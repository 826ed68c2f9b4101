"""Make a synthetic speech corpus, spoken by espeak-ng: hours without text, minutes with labels.

    python recipes/synthetic/prepare.py OUT --seed 0 --unlabelled-minutes 60 --labelled-minutes 10

    OUT/unlabelled/<speaker>/<n>.flac   several sentences with pauses, no text
    OUT/labelled/<speaker>/<n>.flac     one sentence each
    OUT/labelled/metadata.csv           file_name,transcription,speaker,split (train, dev or test)
    OUT/text.txt                        sentences of the same grammar, none of dev's or test's
    OUT/finished.json                   settings and counts; written when all the rest is there

It exists to try the whole pipeline in minutes without a download. Synthetic voices are far more
regular than people: a word error rate measured here says that the code works, not how well it hears
anyone.

A speaker is one espeak-ng voice variant with an accent, a rate and a pitch of its own. No variant
and no sentence of dev or test occurs in another part. The same seed and the same espeak-ng give the
same bytes, whatever ``--jobs`` is.
"""

import argparse
import csv
import ctypes
import hashlib
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

SAMPLE_RATE_HZ = 16_000
LABELLED_TRAIN_SPEAKERS = 40
# Shortest and longest recording: long enough that splitting at silences has something to do.
UNLABELLED_LENGTH_S = (4.0, 40.0)
# A speaker takes part only if each has this much to say: a tiny corpus has few speakers.
MIN_SHARE_S = 20.0
# Ranges that are drawn from. Silence between sentences, and at either end of a recording.
PAUSE_S = (0.25, 1.5)
EDGE_S = (0.05, 0.3)
# Root mean square of the speech, relative to full scale, and of the speech relative to the noise.
LEVEL_DB = (-32.0, -18.0)
SNR_DB = (20.0, 40.0)
# Slope of the spectrum, as of different microphones.
TILT_DB_PER_OCTAVE = (-1.5, 1.5)

Wave = npt.NDArray[np.float64]


# --- sentences ---

# Each rule is a list of equally likely alternatives; {name} stands for another rule. No two words
# sound alike ("two" is in, hence "to" is not), so that the right spelling can be heard.
RULES = {
    "sentence": (
        "{order}|{order} {when}|please {order}|{statement}|{statement} {when}|{question}|{remark}"
    ),
    "order": (
        "turn {switch} the {device} in the {room}|set the heater at {number} degrees|"
        "play song number {number}|"
        "carry the {adjective} {noun} into the {room}|bring {many} {noun}s from the {place}|"
        "call {person} at {clock}|"
        "put the {colour} {noun} {where} the {furniture}|read page {number} with {person}|"
        "close the {colour} door of the {room}|wake {person} before {clock}|"
        "write {number} on the {noun}"
    ),
    "statement": (
        "{person} {past} {many} {adjective} {noun}s|the {animal} slept {where} the {furniture}|"
        "{person} and {person} walked from the {place} along the river|"
        "the {colour} {noun} is {where} the {device}|"
        "the train from platform {number} leaves at {clock}|"
        "the {adjective} {noun} costs {number} dollars|"
        "{person} {past} the {colour} {noun} near the {place}|"
        "my {relative} lives in house number {number}|"
        "our {relative} has {many} {animal}s and {many} {colour} {noun}s|"
        "the {device} in the {room} is broken"
    ),
    "question": (
        "where is the {adjective} {noun}|how many {noun}s are in the {room}|"
        "who {past} my {colour} {noun}|"
        "is the {animal} still {where} the {furniture}|when will {person} visit your {relative}"
    ),
    "remark": (
        "it was {weather} in the {place} {when}|{day} will be {weather} and {weather}|"
        "{number} and {number} make {number}|the {place} was {weather} and quiet"
    ),
    "when": "on {day}|on {day} {daytime}|at {clock}|tomorrow {daytime}|after {clock}|before {day}",
    "clock": "{hour} {tens}|half past {hour}|quarter past {hour}|{hour} in the {daytime}",
    "number": (
        "{digit}|{teen}|{tens}|{tens} {digit}|{digit} hundred|{digit} hundred and {tens}|"
        "{digit} hundred {teen}"
    ),
    "many": "{several}|{teen}|{tens} {several}",
    "digit": "one|{several}",
    "several": "two|three|four|five|six|seven|eight|nine",
    "teen": "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen",
    "tens": "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety",
    "hour": "{digit}|ten|eleven|twelve",
    "day": "monday|tuesday|wednesday|thursday|friday|saturday|sunday",
    "daytime": "morning|afternoon|evening",
    "switch": "on|off|up|down",
    "device": "lamp|fan|radio|oven|camera|printer",
    "room": "kitchen|bedroom|garden|office|garage|cellar",
    "place": "market|station|school|library|village|harbour",
    "furniture": "table|sofa|shelf|cupboard|piano",
    "where": "under|behind|beside|near",
    "noun": "apple|book|bottle|chair|letter|jacket|ticket|picture|basket|carpet|hammer|pencil",
    "adjective": "small|large|heavy|empty|old|new|cheap|lovely",
    "colour": "green|yellow|blue|white|brown|purple",
    "past": "bought|found|lost|sold|painted|dropped",
    "person": "anna|ben|carol|emma|frank|grace|henry|julia|martin|victor",
    "animal": "cat|dog|horse|rabbit",
    "relative": "brother|sister|uncle|mother",
    "weather": "sunny|cloudy|windy|cold|warm|foggy",
}
GRAMMAR = {name: text.split("|") for name, text in RULES.items()}


def stream(*names: object) -> random.Random:
    """Random numbers that depend on the names alone, not on what was drawn elsewhere."""
    return random.Random("/".join(map(str, names)))  # noqa: S311 - speech, not secrets


def expand(rule: str, draws: random.Random) -> str:
    """One random text of a rule of the grammar."""
    return re.sub(r"\{(\w+)\}", lambda found: expand(found[1], draws), draws.choice(GRAMMAR[rule]))


def part_of(sentence: str) -> str:
    """Choose the part that owns a sentence: about 85 % train, 5 % dev, 10 % test.

    The choice depends on nothing but the sentence.
    """
    first_bytes = hashlib.sha256(sentence.encode()).digest()[:4]
    percent = int.from_bytes(first_bytes, "big") % 100

    if percent < 10:
        return "test"
    if percent < 15:
        return "dev"
    return "train"


def sentences(seed: int, n: int, part: str = "train", purpose: str = "labelled") -> list[str]:
    """Draw ``n`` different sentences of one part, in lower-case words and spaces.

    A longer list begins with the shorter one.

    Raises:
        ValueError: the grammar has run out of sentences.
    """
    draws = stream(seed, "sentences", part, purpose)
    # Dev owns 5 % of all sentences, so 100 tries for each are enough unless few are left.
    most_tries = 1000 + 100 * n

    found: dict[str, None] = {}
    for _ in range(most_tries):
        if len(found) == n:
            break
        sentence = expand("sentence", draws)
        if part_of(sentence) == part:
            found[sentence] = None

    if len(found) < n:
        raise ValueError(
            f"the grammar gives no {n} different sentences for {part}: ask for fewer minutes"
        )
    return list(found)


# --- speakers ---

# espeak-ng calls British English "en"; it has no voice of the name "en-gb".
ACCENTS = (
    "en-us",
    "en",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbcwmd",
    "en-gb-x-gbclan",
    "en-us-nyc",
    "en-029",
)
# Every variant of espeak-ng 1.52 speaks every accent without a crash. Left out are the plain voice
# under another name, and two that are so overdriven that samples are cut off at any volume.
LEFT_OUT = frozenset({"fast", "antonio", "iven"})
# Voices of a family that may go to dev or test. A larger one (robosoft has eight) would be most of
# either, so it goes to train.
LARGEST_HELD_OUT = 2


@dataclass(frozen=True)
class Speaker:
    """How one voice speaks.

    ``rate`` is in words per minute; ``pitch`` and ``melody`` go from 0 to 100, 50 being usual.
    """

    name: str
    variant: str
    accent: str
    rate: int
    pitch: int
    melody: int


def voices() -> list[str]:
    """List the voice variants of the installed espeak-ng, sorted."""
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return sorted({file.name for file in folder.iterdir()} - LEFT_OUT)


def family(variant: str) -> str:
    """Name the family of a variant.

    Variants of one family (Steph, Steph2) are near copies; f1 to f5 and m1 to m8 differ.
    """
    name = variant.lower()
    is_numbered_only = len(name) <= 2
    return name if is_numbered_only else re.sub(r"\d+$", "", name)


def speakers(seed: int) -> dict[str, list[Speaker]]:
    """Assign every voice to one part, whole families together.

    About a tenth of the voices go to dev, a tenth to test, and the rest to train.
    """
    variants = voices()
    families: dict[str, list[str]] = {}
    for variant in variants:
        families.setdefault(family(variant), []).append(variant)

    names = sorted(families)
    stream(seed, "families").shuffle(names)

    parts: dict[str, list[Speaker]] = {"test": [], "dev": [], "train": []}
    enough = len(variants) / 10
    for name in names:
        part = "train"
        if len(families[name]) <= LARGEST_HELD_OUT:
            wanting = [held_out for held_out in ("test", "dev") if len(parts[held_out]) < enough]
            part = wanting[0] if wanting else "train"
        parts[part] += [make_speaker(seed, variant) for variant in families[name]]

    # In order of families, the few labelled voices could all be of one.
    stream(seed, "train").shuffle(parts["train"])
    return parts


def make_speaker(seed: int, variant: str, accents: Sequence[str] = ACCENTS) -> Speaker:
    """Draw an accent, a rate and a pitch for a variant."""
    draws = stream(seed, "speaker", variant)
    accent = draws.choice(accents)
    rate = draws.randint(140, 205)
    pitch = draws.randint(30, 70)
    melody = draws.randint(30, 70)

    name = re.sub(r"[^a-z0-9-]", "_", f"{variant}-{accent}".lower())
    return Speaker(name, variant, accent, rate, pitch, melody)


# --- sound ---


class Espeak:
    """espeak-ng with the voice of one speaker.

    Make at most one in a process: the library is one global state.
    """

    def __init__(self, speaker: Speaker, seed: int) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._pieces: list[bytes] = []

        synchronous = 2
        do_not_exit = 0x8000
        data_path = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate_hz: int = self._library.espeak_Initialize(
            synchronous, 0, data_path, do_not_exit
        )
        if self.sample_rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start")

        # Without this the breath noise is seeded by the clock.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))

        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        # Held here, or it would be collected while espeak-ng calls it.
        self._callback = signature(self._keep)
        self._library.espeak_SetSynthCallback(self._callback)

        self._choose(speaker)

    def say(self, text: str) -> Wave:
        """Speak one sentence, with a short silence behind it.

        Returns:
            (S,) float64 in -1..1 at ``sample_rate_hz``.
        """
        self._pieces.clear()
        # The full stop makes it a sentence: the pitch falls at the end.
        encoded = (text + ".").encode()
        by_character = 1
        utf8 = 1
        failed = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, by_character, 0, utf8, None, None
        )
        if failed:
            raise RuntimeError(f"espeak-ng could not speak {text!r}")

        return np.frombuffer(b"".join(self._pieces), dtype="<i2") / 32768.0

    def _keep(self, samples: int | None, count: int, _events: int | None) -> int:
        """Keep 16-bit samples: espeak-ng calls this for every block."""
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))

        go_on = 0
        return go_on

    def _choose(self, speaker: Speaker) -> None:
        """Set the voice and how it speaks."""
        voice = f"{speaker.accent}+{speaker.variant}"
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")

        # By number: espeakRATE, espeakVOLUME, espeakPITCH and espeakRANGE.
        # The volume is half the usual one, so that no sample is cut off.
        parameters = {1: speaker.rate, 2: 50, 3: speaker.pitch, 4: speaker.melody}
        for parameter, value in parameters.items():
            self._library.espeak_SetParameter(parameter, value, 0)


def record(wave: Wave, sample_rate_hz: int, draws: random.Random) -> npt.NDArray[np.int16]:
    """Make clean speech sound recorded: a tilt of the spectrum, a level, and a noise floor.

    Returns:
        (S,) at 16 kHz.
    """
    wave = tilted_to_16k(wave, sample_rate_hz, draws.uniform(*TILT_DB_PER_OCTAVE))

    peak = np.abs(wave).max()
    # Pauses do not count for the level.
    speech = wave[np.abs(wave) > 0.01 * peak]
    level = math.sqrt(np.mean(speech**2))
    wanted_level = 10 ** (draws.uniform(*LEVEL_DB) / 20)
    gain = min(wanted_level / level, 0.9 / peak)

    noise_level = level * 10 ** (-draws.uniform(*SNR_DB) / 20)
    noise = np.random.default_rng(draws.getrandbits(64)).standard_normal(len(wave))
    recorded: Wave = gain * (wave + noise_level * noise)
    return np.round(32767 * recorded.clip(-1, 1)).astype(np.int16)


def tilted_to_16k(wave: Wave, sample_rate_hz: int, db_per_octave: float) -> Wave:
    """Resample, and tilt around 1 kHz, both at once in the spectrum of the whole recording."""
    # Whole blocks become whole samples.
    block = sample_rate_hz // math.gcd(sample_rate_hz, SAMPLE_RATE_HZ)
    wave = np.pad(wave, (0, -len(wave) % block))

    num_samples = len(wave) * SAMPLE_RATE_HZ // sample_rate_hz
    spectrum = np.fft.rfft(wave)[: num_samples // 2 + 1]

    frequencies_hz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(frequencies_hz.clip(min=60) / 1000)
    spectrum *= 10 ** (db_per_octave * octaves / 20) * num_samples / len(wave)

    resampled: Wave = np.fft.irfft(spectrum, num_samples)
    return resampled


# --- corpus ---


@dataclass(frozen=True)
class Settings:
    """Everything that the bytes of the corpus depend on."""

    seed: int
    unlabelled_minutes: float
    labelled_minutes: float
    dev_minutes: float
    test_minutes: float
    sentences: int


@dataclass(frozen=True)
class Job:
    """The recordings of one speaker for one part.

    ``length_s``: shortest and longest recording; None means one sentence for each.
    """

    part: str
    folder: Path
    speaker: Speaker
    texts: list[str]
    seconds: float
    length_s: tuple[float, float] | None
    seed: int


@dataclass(frozen=True)
class Recording:
    """One finished file."""

    part: str
    speaker: str
    file_name: str
    text: str
    num_samples: int


def plan(settings: Settings, out: Path) -> list[Job]:
    """Decide who records what.

    The unlabelled speakers include those of the labelled training part, and nobody of dev or test.
    """
    parts = speakers(settings.seed)
    everybody = len(parts["train"])
    unlabelled = share(parts["train"], settings.unlabelled_minutes, everybody)
    train = share(unlabelled or parts["train"], settings.labelled_minutes, LABELLED_TRAIN_SPEAKERS)
    dev = share(parts["dev"], settings.dev_minutes, len(parts["dev"]))
    test = share(parts["test"], settings.test_minutes, len(parts["test"]))

    wanted = (
        ("unlabelled", unlabelled, settings.unlabelled_minutes),
        ("train", train, settings.labelled_minutes),
        ("dev", dev, settings.dev_minutes),
        ("test", test, settings.test_minutes),
    )
    jobs: list[Job] = []
    for part, who, minutes in wanted:
        jobs += jobs_of(part, who, minutes, settings.seed, out)
    return jobs


def share(who: list[Speaker], minutes: float, most: int) -> list[Speaker]:
    """Take so many speakers that each has at least ``MIN_SHARE_S`` to say, and one at least."""
    if minutes <= 0:
        return []

    with_enough_to_say = max(1, int(60 * minutes / MIN_SHARE_S))
    return who[: min(most, with_enough_to_say)]


def jobs_of(part: str, who: list[Speaker], minutes: float, seed: int, out: Path) -> Iterator[Job]:
    """Make one job for each speaker, with texts that nobody else of this part says."""
    if not who:
        return

    if part == "unlabelled":
        purpose = "unlabelled"
        text_part = "train"
        length_s = UNLABELLED_LENGTH_S
    else:
        purpose = "labelled"
        text_part = part
        length_s = None

    seconds = 60 * minutes / len(who)
    # A sentence lasts longer than a second.
    per_speaker = math.ceil(seconds) + 1
    texts = sentences(seed, per_speaker * len(who), text_part, purpose)

    for i, speaker in enumerate(who):
        folder = out / purpose / speaker.name
        own = texts[i * per_speaker : (i + 1) * per_speaker]
        yield Job(part, folder, speaker, own, seconds, length_s, seed)


def perform(job: Job) -> list[Recording]:
    """Speak and write all recordings of a job. Runs in a process of its own."""
    draws = stream(job.seed, job.part, job.speaker.name)
    espeak = Espeak(job.speaker, draws.getrandbits(31))
    job.folder.mkdir(parents=True)

    texts = iter(job.texts)
    recordings: list[Recording] = []
    left_s = job.seconds
    while left_s > 0:
        length_s = 0.0
        if job.length_s is not None:
            length_s = min(left_s, draws.uniform(*job.length_s))

        wave, text = read_aloud(espeak, texts, length_s, draws)
        samples = record(wave, espeak.sample_rate_hz, draws)

        path = job.folder / f"{len(recordings):04d}.flac"
        soundfile.write(path, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")

        name = f"{job.speaker.name}/{path.name}"
        recordings.append(Recording(job.part, job.speaker.name, name, text, len(samples)))
        left_s -= len(samples) / SAMPLE_RATE_HZ

    return recordings


def read_aloud(
    espeak: Espeak, texts: Iterator[str], length_s: float, draws: random.Random
) -> tuple[Wave, str]:
    """Speak one sentence, and more with pauses between them until the wave is long enough.

    Args:
        length_s: at least this much; 0 = one sentence.
    """

    def silence(range_s: tuple[float, float]) -> Wave:
        return np.zeros(round(draws.uniform(*range_s) * espeak.sample_rate_hz))

    said = [next(texts)]
    pieces = [silence(EDGE_S), espeak.say(said[0])]

    while sum(map(len, pieces)) < length_s * espeak.sample_rate_hz:
        said.append(next(texts))
        pieces += [silence(PAUSE_S), espeak.say(said[-1])]

    pieces.append(silence(EDGE_S))
    return np.concatenate(pieces), " ".join(said)


def perform_alone(job: Job) -> list[Recording]:
    """Run ``perform`` in a fresh process.

    espeak-ng keeps state, so a wave depends on everything that the process has said before.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(perform, job).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"espeak-ng crashed with variant {job.speaker.variant!r}: add it to LEFT_OUT"
            ) from error


def make(out: Path, settings: Settings, num_jobs: int) -> dict[str, Any]:
    """Make the corpus unless it is there; return what ``finished.json`` holds.

    Raises:
        ValueError: ``out`` holds something that this recipe has not made.
    """

    def fill(folder: Path) -> list[Recording]:
        recordings = speak(plan(settings, folder), num_jobs)
        text = sentences(settings.seed, settings.sentences, purpose="text")
        write_text(folder / "text.txt", text)
        return recordings

    return make_once(out, asdict(settings), fill)


def make_once(
    out: Path, settings: dict[str, Any], fill: Callable[[Path], list[Recording]]
) -> dict[str, Any]:
    """Make a corpus unless it is there; return what ``finished.json`` holds.

    A corpus of this recipe with other settings is replaced, when the new one is complete.

    Args:
        settings: everything that the bytes depend on.
        fill: writes the recordings into a folder.

    Raises:
        ValueError: ``out`` holds something that this recipe has not made.
    """
    out = out.resolve()
    marker = out / "finished.json"
    wanted = {"settings": settings, "espeakng_loader": version("espeakng_loader")}

    if marker.is_file():
        finished: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        if wanted.items() <= finished.items():
            return finished
    elif out.exists() and any(out.iterdir()):
        raise ValueError(
            f"{out} is not empty and holds no corpus of this recipe: give another folder"
        )

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)

    recordings = fill(partial)
    write_metadata(partial / "labelled" / "metadata.csv", recordings)
    finished = wanted | {"parts": table(recordings)}
    (partial / "finished.json").write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")

    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return finished


def speak(jobs: Iterable[Job], num_jobs: int) -> list[Recording]:
    """Let every speaker record, ``num_jobs`` at the same time."""
    recordings: list[Recording] = []
    with ThreadPoolExecutor(num_jobs) as threads:
        for done in threads.map(perform_alone, jobs):
            recordings += done
    return recordings


def write_metadata(path: Path, recordings: list[Recording]) -> None:
    """Write the labelled recordings as a table that many tools read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labelled = [recording for recording in recordings if recording.part != "unlabelled"]

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "transcription", "speaker", "split"])
        for recording in labelled:
            writer.writerow(
                [recording.file_name, recording.text, recording.speaker, recording.part]
            )


def write_text(path: Path, texts: list[str]) -> None:
    """Write text for a language model, a sentence a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def table(recordings: list[Recording]) -> dict[str, dict[str, float]]:
    """Count speakers, recordings and hours of each part."""
    by_part: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_part.setdefault(recording.part, []).append(recording)

    rows: dict[str, dict[str, float]] = {}
    for part, own in by_part.items():
        num_samples = sum(recording.num_samples for recording in own)
        rows[part] = {
            "speakers": len({recording.speaker for recording in own}),
            "recordings": len(own),
            "hours": round(num_samples / SAMPLE_RATE_HZ / 3600, 4),
        }
    return rows


def print_parts(finished: dict[str, Any]) -> None:
    """Print speakers, recordings and hours of each part."""
    print(f"{'part':<12}{'speakers':>9}{'recordings':>12}{'hours':>9}")
    for part, row in finished["parts"].items():
        print(f"{part:<12}{row['speakers']:>9}{row['recordings']:>12}{row['hours']:>9.3f}")


def duration(text: str) -> float:
    """Parse minutes from the command line."""
    minutes = float(text)
    if not 0 <= minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes: give 0 or more")
    return minutes


def main() -> None:
    """Run the command line."""
    given = vars(parse())
    out = given.pop("out")
    num_jobs = given.pop("jobs")

    try:
        finished = make(out, Settings(**given), max(1, num_jobs))
    except ModuleNotFoundError as error:
        sys.exit(f"prepare.py: no module {error.name}: pip install 'speechssl[demo]'")
    except ValueError as error:
        sys.exit(f"prepare.py: {error}")

    print_parts(finished)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make a synthetic speech corpus with espeak-ng.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)

    default_minutes = {"unlabelled": 60.0, "labelled": 10.0, "dev": 3.0, "test": 5.0}
    for part, minutes in default_minutes.items():
        help_text = f"default {minutes:g}"
        parser.add_argument(
            f"--{part}-minutes", type=duration, default=minutes, metavar="M", help=help_text
        )

    parser.add_argument(
        "--sentences", type=int, default=20_000, metavar="N", help="of text.txt (default 20000)"
    )

    jobs_help = "speakers made at the same time (default 2)"
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help=jobs_help)
    return parser.parse_args()


if __name__ == "__main__":
    main()
