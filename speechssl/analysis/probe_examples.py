"""Choose the recordings of a probe: what is asked of them, and which are held out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.analysis.probe_targets import PROBE_TARGETS, ProbeTarget
from speechssl.data.dataset import Dataset, choose_minutes
from speechssl.data.store import Chunk
from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError
from speechssl.runtime.seeds import derive_seed, generator
from speechssl.text.normalise import normalise

# How transcripts are normalised before they are asked for.
NORMALISER = "basic-1"

# Most audio that the probe of characters is measured on, minutes. All layers of all its frames are
# held in memory at once: 14 MB for a minute and layer of width 768.
HELD_OUT_MINUTES = 10.0

# Most recordings that a classifier learns from and is measured on.
_MAX_LEARNED = 1500
_MAX_HELD_OUT = 500


@dataclass(frozen=True)
class Examples:
    """Recordings with what is asked of them."""

    dataset: Dataset
    labels: Sequence[str]
    """Of each recording: its transcript, or the name of its class."""
    train: int
    """The first so many are learned from, the others are measured."""


def choose_examples(
    target: ProbeTarget, dataset: Dataset, encoder: Encoder, minutes: float, seed: int
) -> Examples:
    """Choose the recordings that a probe learns from and those that it is measured on.

    Args:
        dataset: of one store.
        encoder: whose frames will be probed.
        minutes: audio that the probe of characters learns from.

    Raises:
        ConfigError: the store does not have what is asked of it, or features that the encoder does
            not read.
    """
    if dataset.features != encoder.config.features:
        raise ConfigError(
            f"the store holds {dataset.features}, the encoder reads {encoder.config.features}: "
            "prepare it anew"
        )

    store = dataset.stores[0]
    records = [store.record(int(index)) for index in dataset.index_of]
    labels = [_label(target, record) for record in records]
    is_learned, is_held_out = _sides(target, records, seed)

    input_lengths = torch.from_numpy(dataset.input_lengths)
    num_frames = encoder.num_frames(input_lengths)
    has_frames = num_frames.numpy() > 0
    has_label = np.array([bool(label) for label in labels])
    is_usable = has_label & has_frames
    learned = np.flatnonzero(is_usable & is_learned)
    held_out = np.flatnonzero(is_usable & is_held_out)

    classes = {labels[position] for position in learned}
    _check_enough(target, dataset, len(learned), len(held_out), len(classes))

    if target == "characters":
        learned = _some_minutes(dataset, learned, minutes, seed)
        held_out = _some_minutes(dataset, held_out, HELD_OUT_MINUTES, seed)
    else:
        rng = generator("probe examples", seed)
        drawn_learned = rng.permutation(learned)[:_MAX_LEARNED]
        drawn_held_out = rng.permutation(held_out)[:_MAX_HELD_OUT]
        learned = np.sort(drawn_learned)
        held_out = np.sort(drawn_held_out)

    together = np.concatenate([learned, held_out])
    chosen_labels = [labels[position] or "" for position in together]
    return Examples(dataset.subset(together), chosen_labels, len(learned))


def _label(target: ProbeTarget, record: Chunk) -> str | None:
    """Find what is asked of a recording; None or an empty text where it is not known."""
    if target == "speaker":
        return record.speaker
    if target == "keyword":
        # A recording at the top lies in no folder and has no keyword.
        folders, _, _ = record.audio.rpartition("/")
        first_folder, _, _ = folders.partition("/")
        return first_folder
    if record.text:
        return normalise(record.text, NORMALISER)
    return None


def _sides(
    target: ProbeTarget, records: Sequence[Chunk], seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which recordings may be learned from and which are held out.

    Words are measured on split dev. Of a keyword or a speaker, which dev may not have, a quarter of
    split train is held out.
    """
    splits = np.array([record.split for record in records])
    in_train = splits == "train"
    if target in ("characters", "digit"):
        return in_train, splits == "dev"

    # By recording, not by chunk: two pieces of one recording are no independent evidence.
    draws = [derive_seed("hold out", seed, record.audio) for record in records]
    in_quarter = np.array([draw % 4 == 0 for draw in draws])
    return in_train & ~in_quarter, in_train & in_quarter


def _check_enough(
    target: ProbeTarget, dataset: Dataset, num_learned: int, num_held_out: int, num_classes: int
) -> None:
    """See that there are recordings on both sides, and of each class about two.

    Raises:
        ConfigError: there are fewer.
    """
    refusal = f"{dataset.stores[0].path} cannot answer for {target} ({PROBE_TARGETS[target]})"

    if num_learned == 0 or num_held_out == 0 or num_classes < 2:
        raise ConfigError(
            f"{refusal}: it needs such recordings to learn from and to measure on, "
            "of two classes at least"
        )
    # Each transcript is a class of its own, which is no harm where characters are asked for.
    if target != "characters" and 2 * num_classes > num_learned:
        raise ConfigError(
            f"{refusal}: the {num_learned} recordings to learn from are of {num_classes} classes, "
            "at least two of each are needed"
        )


def _some_minutes(
    dataset: Dataset, positions: NDArray[np.int64], minutes: float, seed: int
) -> NDArray[np.int64]:
    """Choose about so many minutes of the recordings at ``positions``, or all if they are less."""
    subset = dataset.subset(positions)
    if subset.seconds <= 60 * minutes:
        return positions

    chosen = choose_minutes(subset, minutes, seed)
    is_chosen = np.isin(dataset.index_of[positions], chosen.index_of)
    return positions[is_chosen]
