"""Recognise with pocketsphinx: a model of ``sphinx_train`` and a language model."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx_train import (
    ABOUT,
    ACOUSTIC,
    FILLERS,
    LEXICON,
    Phones,
    dictionary,
    require_packages,
    samples_of,
)

from speechssl.audio.features import INT16_SCALE
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.arpa import ArpaReader, arpa_words
from speechssl.errors import ConfigError
from speechssl.recognition.training_set import text_of
from speechssl.scoring.score import Score, score
from speechssl.scoring.score_files import write_score
from speechssl.storage.atomic import write_atomic
from speechssl.storage.text_files import open_text
from speechssl.text.normalise import normalise
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.pronunciations import parse_own

NORMALISER = "basic-1"

# Where the search on dev begins, and how far it steps.
FIRST_WEIGHT = 8.0
WEIGHT_STEP = 2.0
FIRST_INSERTION = 0.5
INSERTION_FACTOR = 10.0
# Weights of pocketsphinx's second and third pass, as multiples of the first: those of its defaults.
SECOND_PASS = 8.5 / 6.5
THIRD_PASS = 9.5 / 6.5
# Words of the longest n-grams that it decodes with.
LONGEST = 3


@dataclass(frozen=True)
class Weights:
    """What is found on dev.

    Attributes:
        lm: weight of the language model.
        insertion: factor for each word; below 1 there are fewer words.
    """

    lm: float
    insertion: float


@dataclass(frozen=True)
class Split:
    """Utterances to recognise, by id.

    Attributes:
        texts: normalised transcripts.
        samples: 16-bit little-endian samples at 16 kHz.
    """

    texts: dict[str, str]
    samples: dict[str, bytes]


def evaluate(model: Path, store: Path, out: Path, audio: Path, lm: Path, split: str) -> str:
    """Find the weights on dev, recognise a split once with them, and write its score.

    Args:
        audio: the folder that the store was prepared from.
        lm: ARPA file. Its words with a pronunciation can be recognised.

    Returns:
        what was found, in one line.

    Raises:
        ConfigError: something is not installed, no model, or a language model without such words.
    """
    require_packages()
    opened = Store(store)
    dev = read_split(opened, "dev", audio)
    measured = dev if split == "dev" else read_split(opened, split, audio)
    spoken = spoken_words(model, lm)

    with TemporaryDirectory() as scratch:
        decoder = PeerDecoder(model / ACOUSTIC, spoken, lm, Path(scratch))
        weights, dev_wer = find_weights(lambda tried: decoder.decode(dev.samples, tried), dev.texts)

        started = time.monotonic()
        found = decoder.decode(measured.samples, weights)
        decoding_s = time.monotonic() - started

    result = score(measured.texts, found)
    running = [word for text in measured.texts.values() for word in text.split()]
    unknown = sum(word not in spoken for word in running) / len(running)

    about = {
        "model": str(model),
        "store": str(store),
        "split": split,
        "normaliser": NORMALISER,
        "lm": str(lm),
        "lm_weight": weights.lm,
        "word_insertion": weights.insertion,
        "dev_wer": dev_wer,
        "words": len(spoken),
        "out_of_vocabulary": unknown,
        "decoding_s": round(decoding_s, 1),
    }

    write_score(result, out, about)

    return (
        f"dev {dev_wer:.1%} with weight {weights.lm:g} and word insertion {weights.insertion:g}; "
        f"{split} {result.wer:.1%}, {unknown:.1%} out of the {len(spoken)} words, "
        f"{decoding_s:.0f} s"
    )


def check_order(lm: Path) -> None:
    """See that pocketsphinx uses all n-grams of an ARPA file.

    It reads longer ones than three words and decodes with the 3-grams alone. In a Kneser-Ney model
    these are made for backing off, and worse than a 3-gram model's
    (findings/pocketsphinx_four_grams.sh).

    Raises:
        ConfigError: there are longer n-grams.
    """
    with open_text(lm) as file:
        order = len(ArpaReader(lm, file).header())
    if order > LONGEST:
        raise ConfigError(
            f"{lm} has n-grams of {order} words, and pocketsphinx decodes with {LONGEST} at most: "
            f"give it a model of --order {LONGEST}"
        )


def spoken_words(model: Path, lm: Path) -> dict[str, list[Phones]]:
    """Find the words of a language model that a model can recognise, with their pronunciations.

    Raises:
        ConfigError: no model, or none of the words.
    """
    if not (model / ABOUT).is_file():
        raise ConfigError(f"{model} holds no finished model: sphinx_peer.py train makes one")

    about = json.loads((model / ABOUT).read_text(encoding="utf-8"))
    trained = set(about["phones"])
    lexicon = parse_own((model / LEXICON).read_text(encoding="utf-8"))
    tokenizer = PhoneTokenizer(lexicon)

    check_order(lm)
    listed = arpa_words(lm)
    spoken: dict[str, list[Phones]] = {}
    for word in listed:
        all_phones = [spelling.ids for spelling in tokenizer.spellings(word)]
        usable = [phones for phones in all_phones if trained.issuperset(phones)]
        if usable:
            spoken[word] = usable

    if not spoken:
        raise ConfigError(f"no word of {lm} has a pronunciation: check its language and lexicon")
    print(f"{len(spoken)} of {len(listed)} words of {lm} have a pronunciation", file=sys.stderr)
    return spoken


def read_split(store: Store, name: str, audio: Path) -> Split:
    """Read all utterances of a split.

    Raises:
        ConfigError: one has no transcript.
    """
    dataset = Dataset([store], [name])
    texts: dict[str, str] = {}
    samples: dict[str, bytes] = {}

    for position in range(len(dataset)):
        utterance_id, _ = dataset.id_text(position)
        texts[utterance_id] = normalise(text_of(dataset, position), NORMALISER)

        scaled = samples_of(dataset, position, audio) * INT16_SCALE
        whole = scaled.round().clip(-32768, 32767)
        samples[utterance_id] = whole.astype("<i2").tobytes()

    return Split(texts, samples)


class PeerDecoder:
    """Pocketsphinx with an acoustic model, words and a language model."""

    def __init__(
        self, acoustic: Path, words: Mapping[str, list[Phones]], lm: Path, scratch: Path
    ) -> None:
        """``scratch``: a folder for files that it reads again for every try of weights."""
        import pocketsphinx

        pocketsphinx.set_loglevel("FATAL")
        self._new = pocketsphinx.Decoder

        words_file = scratch / "words.dic"
        fillers_file = scratch / "fillers.dic"
        write_atomic(words_file, dictionary(words))
        write_atomic(fillers_file, FILLERS)

        # The binary form is read in a moment, ARPA in many.
        binary_lm = scratch / "lm.bin"
        pocketsphinx.NGramModel.readfile(str(lm)).write(str(binary_lm))

        self._files = {
            "hmm": str(acoustic),
            "dict": str(words_file),
            "fdict": str(fillers_file),
            "lm": str(binary_lm),
        }

    def decode(self, samples: Mapping[str, bytes], weights: Weights) -> dict[str, str]:
        """Recognise utterances, each by itself: texts by id."""
        decoder = self._new(
            **self._files,
            lw=weights.lm,
            fwdflatlw=weights.lm * SECOND_PASS,
            bestpathlw=weights.lm * THIRD_PASS,
            wip=weights.insertion,
            loglevel="FATAL",
        )

        found: dict[str, str] = {}
        for utterance_id, data in samples.items():
            decoder.start_utt()
            decoder.process_raw(data, full_utt=True)
            decoder.end_utt()
            hypothesis = decoder.hyp()
            found[utterance_id] = hypothesis.hypstr if hypothesis else ""
        return found


def find_weights(
    decode: Callable[[Weights], Mapping[str, str]], texts: Mapping[str, str]
) -> tuple[Weights, float]:
    """Climb to the weights with the lowest word error rate.

    Args:
        decode: recognises with the weights that it is given: texts by utterance id.
        texts: transcripts by utterance id.

    Returns:
        the weights and their rate.
    """
    rates: dict[Weights, float] = {}

    def rate(weights: Weights) -> float:
        if weights not in rates:
            result: Score = score(texts, decode(weights), num_bootstrap=1)
            rates[weights] = result.wer
            print(
                f"dev {result.wer:.1%} with weight {weights.lm:g}, insertion {weights.insertion:g}",
                file=sys.stderr,
            )
        return rates[weights]

    best = Weights(FIRST_WEIGHT, FIRST_INSERTION)
    improves = True
    while improves:
        improves = False
        for weights in neighbours(best, WEIGHT_STEP, INSERTION_FACTOR):
            if rate(weights) < rate(best):
                best = weights
                improves = True

    # Finer steps of the insertion move nothing.
    finer = neighbours(best, WEIGHT_STEP / 2, insertion_factor=None)
    best = min([best, *finer], key=rate)
    return best, rates[best]


def neighbours(
    weights: Weights, weight_step: float, insertion_factor: float | None
) -> list[Weights]:
    """List the weights one step away, those below zero left out."""
    near = [Weights(weights.lm + step, weights.insertion) for step in (weight_step, -weight_step)]
    if insertion_factor is not None:
        for factor in (insertion_factor, 1 / insertion_factor):
            near.append(Weights(weights.lm, weights.insertion * factor))
    return [one for one in near if one.lm > 0]
