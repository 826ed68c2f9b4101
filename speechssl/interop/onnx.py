"""A recogniser as an ONNX graph from samples to log-probabilities, compared with the model before it is kept."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from speechssl.audio.features import INT16_SCALE, LOG_FLOOR, FeatureConfig, featurise, mel_filters
from speechssl.data.dataset import collate
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import EncoderOutput
from speechssl.encoder.padding import after_window, zero_padding
from speechssl.errors import CheckpointError, ConfigError
from speechssl.recognition.model import CtcModel
from speechssl.runtime.seeds import generator
from speechssl.storage.atomic import new_folder
from speechssl.storage.json_text import as_json

GRAPH = "model.onnx"
ABOUT = "about.json"
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a log-probability (nats) between the graph and the model."""
_IMPOSSIBLE = (
    -1000.0
)  # nats: probability 0 in any format; below it float32 counts in steps that exceed the tolerance

Recordings = Sequence[NDArray[np.float32]]


class _LogMel(nn.Module):
    """``features.log_mel`` with its transform as matrix products; ONNX Runtime's own DFT is slow and less exact.

    float64, as in ``featurise``: so both round to the same float16.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.window, self.hop = config.window, config.hop
        window, filters = mel_filters(config)
        turns = torch.outer(torch.arange(self.window), torch.arange(len(filters))) % self.window
        angles = turns.double() * (2 * math.pi / self.window)
        self.cosines = nn.Buffer(window.double()[:, None] * angles.cos())
        self.sines = nn.Buffer(window.double()[:, None] * angles.sin())
        self.filters = nn.Buffer(filters.double())

    def forward(self, samples: Tensor) -> Tensor:
        """(B, S) float32 -> (B, U, F) float32 values of float16."""
        frames = samples.double().unfold(1, self.window, self.hop)
        power = (frames @ self.cosines).square() + (frames @ self.sines).square()
        return (power @ self.filters).clamp_min(LOG_FLOOR).log().half().float()


class _Recogniser(nn.Module):
    """What is exported: (B, S) float32 samples, (B,) int64 valid samples -> log-probabilities, valid frames."""

    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self.model = model
        self.features = model.encoder.config.features
        self.log_mel = _LogMel(self.features) if self.features.kind == "logmel" else None

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        samples = zero_padding(waveform, num_samples)
        if self.log_mel is None:
            inputs = (samples * INT16_SCALE).round().clamp(-32768, 32767) / INT16_SCALE
        else:
            inputs = self.log_mel(samples)
        input_lengths = after_window(num_samples, self.features.window, self.features.hop)
        hidden, num_frames = self.model.encoder(inputs, input_lengths)
        log_probs, num_outputs = self.model.token_log_probs(hidden, num_frames)
        return log_probs, num_outputs


def export_onnx(model: CtcModel, path: Path) -> float:
    """Write the folder ``path``: the graph, what its numbers mean (``about.json``), and the tokenizer's files.

    The graph takes samples at the model's rate and does everything that transcription does to them, roundings
    included; batch and length are free. It is run and compared with the model; the folder is there only if they agree.

    Args:
        model: on the CPU; is left in evaluation mode.
        path: does not exist.

    Returns:
        The largest difference of a log-probability, in nats.

    Raises:
        ConfigError: ``path`` exists, or a package for the export is missing.
        CheckpointError: the graph and the model differ by more than ``TOLERANCE``.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _package(name)
    if path.exists() or path.is_symlink():
        raise ConfigError(
            f"{path} exists already: give the export another folder, or remove this one"
        )

    with new_folder(path) as folder:
        _write_graph(model.eval(), folder / GRAPH)

        difference = largest_difference(model, folder)
        if not difference <= TOLERANCE:  # NaN is refused too
            raise CheckpointError(
                f"the ONNX graph differs from the model by {difference:.2g} in log-probabilities, allowed are "
                f"{TOLERANCE:g}; nothing was written: try another version of onnxruntime, or use the model itself"
            )

        about = _about(model) | {"max_difference": difference, "max_difference_allowed": TOLERANCE}
        (folder / ABOUT).write_text(as_json(about), encoding="utf-8")

        for name, data in model.tokenizer.files().items():
            (folder / name).write_bytes(data)

    return difference


def onnx_session(folder: Path) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU of a folder that ``export_onnx`` wrote, with torch's threads."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; its advice about the graph would go to stderr
    return runtime.InferenceSession(
        str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
    )


def onnx_log_probs(
    session: Any, recordings: Recordings, padding: NDArray[np.float32] | None = None
) -> EncoderOutput:
    """What the graph hears in some recordings, as one batch.

    Args:
        recordings: (S,) float32 each, in -1..1 at the model's sample rate.
        padding: stands behind the longest, and cut to fit behind the others; None = zeros, no longer than needed.

    Returns:
        (B, T, V) float32 log-probabilities with (B,) valid frames.
    """
    longest = max(map(len, recordings))
    padding = np.zeros(0, dtype=np.float32) if padding is None else padding
    waveform = np.zeros((len(recordings), longest + len(padding)), dtype=np.float32)
    for row, samples in zip(waveform, recordings, strict=True):
        row[: len(samples)] = samples
        behind = row[len(samples) :]
        behind[: len(padding)] = padding[: len(behind)]
    lengths = np.array([len(samples) for samples in recordings], dtype=np.int64)
    log_probs, num_frames = session.run(None, {"waveform": waveform, "num_samples": lengths})
    return EncoderOutput(torch.from_numpy(log_probs), torch.from_numpy(num_frames))


@torch.inference_mode()
def model_log_probs(model: CtcModel, recordings: Recordings) -> EncoderOutput:
    """The same from the model itself, by the way that transcription takes."""
    config = model.encoder.config.features
    arrays = [featurise(samples, config) for samples in recordings]
    ids = [str(i) for i in range(len(arrays))]
    return model.log_probs(collate(ids, arrays, [None] * len(ids), config))


def output_difference(found: EncoderOutput, expected: EncoderOutput) -> float:
    """The largest difference of a log-probability in a valid frame, nats; NaN where one is, inf for other lengths.

    Below -1000 all count as equal: there are tokens of probability 0, which other libraries' models do not have.
    """
    if not torch.equal(found.num_frames, expected.num_frames):
        return math.inf
    largest = torch.zeros(())
    for row, count in enumerate(expected.num_frames.tolist()):
        ours, theirs = (x.hidden[row, :count].clamp_min(_IMPOSSIBLE) for x in (expected, found))
        largest = torch.maximum(largest, (ours - theirs).abs().max())  # passes NaN on
    return float(largest)


def largest_difference(model: CtcModel, folder: Path) -> float:
    """The graph in ``folder`` against the model: synthetic recordings in one batch with junk behind, and one by one."""
    session = onnx_session(folder)
    recordings = _check_recordings(model.encoder.config)
    junk = np.full(model.encoder.config.features.sample_rate_hz // 2, np.nan, dtype=np.float32)
    together = model_log_probs(model, recordings)
    differences = [output_difference(onnx_log_probs(session, recordings, junk), together)]
    for samples in recordings:
        differences.append(
            output_difference(onnx_log_probs(session, [samples]), model_log_probs(model, [samples]))
        )
    return float(np.max(differences))


def min_samples(config: EncoderConfig) -> int:
    """Samples of the shortest recording that gives a frame."""
    return (config.min_input_length(1) - 1) * config.features.hop + config.features.window


def _check_recordings(config: EncoderConfig) -> list[NDArray[np.float32]]:
    """Gliding tones in noise, from one frame to some seconds, from loud (beyond full scale) to nearly silent."""
    random = generator("onnx check")
    rate = config.features.sample_rate_hz
    recordings = []
    for seconds, level in ((0.0, 0.3), (0.41, 0.5), (1.3, 1.5), (2.71, 0.1), (4.0, 0.01)):
        time = np.arange(min_samples(config) + round(seconds * rate)) / rate
        wave = np.sin(2 * np.pi * (150 + 400 * random.random() * time) * time) * np.hanning(
            len(time)
        )
        wave += 0.2 * np.sin(2 * np.pi * 0.2 * rate * time) + 0.1 * random.standard_normal(
            len(time)
        )
        recordings.append((level * wave).astype(np.float32))
    return recordings


def _write_graph(model: CtcModel, path: Path) -> None:
    """The graph with the weights inside, or in a file beside it where they exceed ONNX's 2 GB."""
    rate = model.encoder.config.features.sample_rate_hz
    # Sizes of 1 would be taken as fixed; any other stands for all.
    example = (torch.zeros(2, 2 * rate), torch.tensor([2 * rate, rate]))
    with torch.no_grad(), _without_advice():
        program = torch.onnx.export(
            _Recogniser(model).eval(),
            example,
            input_names=["waveform", "num_samples"],
            output_names=["log_probs", "num_frames"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: "batch", 1: "samples"}, {0: torch.export.Dim.DYNAMIC}),
            verbose=False,
        )
    assert program is not None
    # Notes of where each operator comes from: they hold paths of this machine.
    _package("onnx_ir.passes.common").ClearMetadataAndDocStringPass()(program.model)
    program.save(path)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without four lines on stderr about torchvision, whose operators no model here uses."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _about(model: CtcModel) -> dict[str, Any]:
    """What a program in any language needs to know of the graph."""
    config = model.encoder.config
    return {
        "graph": GRAPH,
        "opset": OPSET,
        "sample_rate_hz": config.features.sample_rate_hz,
        "min_samples": min_samples(config),
        "samples_per_frame": config.samples_per_frame / model.config.tokens_per_frame,
        "inputs": {
            "waveform": "(batch, samples) float32 in -1..1; at least min_samples long, anything behind num_samples",
            "num_samples": "(batch,) int64, valid samples of each; fewer than min_samples give no frame",
        },
        "outputs": {
            "log_probs": "(batch, frames, tokens) float32, natural logarithm; no meaning from num_frames on",
            "num_frames": "(batch,) int64, valid frames of each",
        },
        "blank_id": model.tokenizer.blank_id,
        "normaliser": model.normaliser,
        "tokens": list(model.tokenizer.texts),
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ONNX export needs {name}, which is missing: pip install 'speechssl[convert]'"
        ) from error
