"""Find out what a frozen encoder knows, by linear probes on each of its layers.

Log-mel rows and an encoder of random weights are probed beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from speechssl.analysis.probe_examples import choose_examples
from speechssl.analysis.probe_frames import ReadFrames, log_mel_frames
from speechssl.analysis.probe_heads import character_errors, class_errors
from speechssl.analysis.probe_targets import ProbeTarget
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, layer_outputs
from speechssl.runtime.seeds import derive_seed

# Name of the layers weighed by a softmax that the probe learns, where a layer has its number.
MIX = "mix"

# Name of the log-mel rows, as a system and as its only layer.
LOG_MEL = "log-mel"


@dataclass(frozen=True)
class Probed:
    """The result of one probe."""

    target: ProbeTarget
    system: str
    """model, random or log-mel"""
    layer: str
    """0 = projected frames of the front end, then Transformer layers; or ``MIX``, or log-mel."""
    error: float
    """A fraction: of classes that were wrong, or the character error rate, which may exceed 1."""
    chance: float
    """The error of always naming the most frequent class; 1 for characters."""
    examples: int
    """Held-out recordings that the error was measured on."""


def probe(
    encoder: Encoder,
    stores: Mapping[ProbeTarget, str | Path],
    minutes: float = 10.0,
    seed: int = 0,
    only_mix: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Probed]:
    """Train linear probes on every layer of ``encoder`` and on their learned mix.

    Recordings are classified by the mean of their frames (multinomial logistic regression,
    L-BFGS). Characters are read frame by frame (one linear layer and CTC). Nothing of the encoder
    is changed.

    Args:
        stores: what to ask, and of which store; ``PROBE_TARGETS`` says what each needs.
        minutes: labelled audio that the probe of characters learns from, a seeded choice.
        only_mix: no probe of single layers, nor of the baselines, which are log-mel rows and an
            encoder with the same shape and random weights. It takes a third of the time of the
            layers and the mix together.
        progress: told what comes next.

    Raises:
        ConfigError: a store does not have what is asked of it, or features that the encoder does
            not read.

    Source: the protocol of SUPERB (arXiv 2105.01051), section 3: frozen model, learned mix of
    layers, light head.
    """
    systems: dict[str, ReadFrames] = {"model": _layers_of(encoder)}
    if not only_mix:
        systems["random"] = _layers_of(_random_twin(encoder, seed))
        systems[LOG_MEL] = lambda batch: log_mel_frames(encoder, batch)

    results = []
    for target, path in stores.items():
        dataset = Dataset([Store(path)])
        examples = choose_examples(target, dataset, encoder, minutes, seed)
        num_recordings = len(examples.labels)
        num_held_out = num_recordings - examples.train

        for system, read_frames in systems.items():
            progress(f"probing {target}: {system}, {num_recordings} recordings")

            if target == "characters":
                errors, chance = character_errors(examples, encoder, read_frames, seed, only_mix)
            else:
                errors, chance = class_errors(examples, encoder, read_frames, only_mix)

            layers = _layer_names(system, len(errors))
            # Log-mel is one layer, and the mix of one layer is that layer: its error is left out.
            for layer, error in zip(layers, errors, strict=False):
                results.append(Probed(target, system, layer, error, chance, num_held_out))

    return results


def watch(
    stores: Mapping[ProbeTarget, str | Path],
    shape: EncoderConfig,
    minutes: float = 10.0,
    seed: int = 0,
) -> Callable[[Encoder], dict[str, float]]:
    """Make a function that probes an encoder while ``pretrain`` trains it.

    Args:
        stores: as of ``probe``.
        shape: of the encoder that will be probed.
        minutes: as of ``probe``.
        seed: as of ``probe``.

    Returns:
        An encoder -> the error of the layers' mix for each target, and their mean.

    Raises:
        ConfigError, ManifestError: as ``probe``, but now and not hours later.
    """
    blank = Encoder(shape)
    for target, path in stores.items():
        dataset = Dataset([Store(path)])
        choose_examples(target, dataset, blank, minutes, seed)

    def measure(encoder: Encoder) -> dict[str, float]:
        results = probe(encoder, stores, minutes, seed, only_mix=True)
        errors = {f"probe_{result.target}": result.error for result in results}
        mean = sum(errors.values()) / len(errors)
        return errors | {"probe_mean": mean}

    return measure


def _layers_of(encoder: Encoder) -> ReadFrames:
    """Make a function that reads the layers of ``encoder`` for a batch."""

    def read_frames(batch: Batch) -> tuple[list[Tensor], Tensor]:
        return layer_outputs(encoder, batch.inputs, batch.input_lengths)

    return read_frames


def _random_twin(encoder: Encoder, seed: int) -> Encoder:
    """Make an encoder of the same shape with random weights, and keep torch's generator."""
    any_parameter = next(encoder.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "random encoder"))
        twin = Encoder(encoder.config)

    # What is usual in the corpus is measured, not learned.
    measured = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if name.startswith("front_end.mel_norm.")
    }
    twin.load_state_dict(measured, strict=False)
    return twin.to(any_parameter.device)


def _layer_names(system: str, num_heads: int) -> list[str]:
    """Name what the heads of a system read: its layers, then their mix."""
    if system == LOG_MEL:
        return [LOG_MEL]
    numbers = [str(number) for number in range(num_heads - 1)]
    return [*numbers, MIX]
