"""Export a recogniser as an ONNX graph, from samples to log-probabilities.

Shapes: B utterances, S samples, U mel frames, F mel bins, T outputs in time, V tokens.
"""

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

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import INT16_SCALE, LOG_FLOOR, featurise, mel_filters
from speechssl.data.collate import collate
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

# Version of ONNX's set of operators that the graph uses.
OPSET = 18

# Largest difference of a log-probability between the graph and the model that is accepted, nats.
TOLERANCE = 1e-4

# Log-probabilities below this count as equal, nats. Their probability is 0 in any format, and
# float32 counts there in steps that exceed the tolerance.
_IMPOSSIBLE = -1000.0

# Duration beyond one frame (seconds) and amplitude of each recording that graph and model are
# compared on: from one frame to some seconds, from beyond full scale to nearly silent.
_CHECKED = ((0.0, 0.3), (0.41, 0.5), (1.3, 1.5), (2.71, 0.1), (4.0, 0.01))

_LEVELLING = (
    "not in the graph: speechssl.audio.levelling.levelled(samples, sample_rate_hz). It leaves "
    "recordings of usual level as they are. Of others it takes out an offset and strong hum, "
    "scales peaks above 1 down, lowers bangs, and raises quiet speech. docs/guides/interop.md has "
    "its steps"
)

Recordings = Sequence[NDArray[np.float32]]


def export_onnx(model: CtcModel, path: Path) -> float:
    """Write the folder ``path``: the graph, its description ``about.json``, the tokenizer's files.

    The graph takes samples at the model's rate. Of what transcription does to them it lacks only
    ``levelled``, which stands in ``about.json``; all else is in it, roundings included. Batch size
    and length are free. The graph is run and compared with the model, and the folder appears only
    if they agree.

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
        agrees = difference <= TOLERANCE  # false for NaN too
        if not agrees:
            raise CheckpointError(
                f"the ONNX graph differs from the model by {difference:.2g} in log-probabilities, "
                f"allowed are {TOLERANCE:g}; nothing was written: try another version of "
                "onnxruntime, or use the model itself"
            )

        about = _about(model)
        about["max_difference"] = difference
        about["max_difference_allowed"] = TOLERANCE
        (folder / ABOUT).write_text(as_json(about), encoding="utf-8")

        for name, data in model.tokenizer.files().items():
            (folder / name).write_bytes(data)

    return difference


def onnx_session(folder: Path) -> Any:
    """Load the graph that ``export_onnx`` wrote, to run on the CPU with torch's number of threads.

    Returns:
        An ``onnxruntime.InferenceSession``.
    """
    runtime = _package("onnxruntime")

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # 3 shows errors only: advice about the graph would go to stderr.
    options.log_severity_level = 3

    graph = str(folder / GRAPH)
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def onnx_log_probs(
    session: Any, recordings: Recordings, padding: NDArray[np.float32] | None = None
) -> EncoderOutput:
    """Run the graph on some recordings as one batch.

    Args:
        recordings: (S,) float32 each, in -1..1 at the model's sample rate. ``levelled`` makes them
            as transcription hears them.
        padding: stands behind the longest recording, and its start behind the others; None = zeros,
            and no more of them than the longest recording needs.

    Returns:
        (B, T, V) float32 log-probabilities with (B,) valid frames.
    """
    if padding is None:
        padding = np.zeros(0, dtype=np.float32)

    lengths = np.array([len(samples) for samples in recordings], dtype=np.int64)
    width = int(lengths.max()) + len(padding)
    waveform = np.zeros((len(recordings), width), dtype=np.float32)

    for row, samples in zip(waveform, recordings, strict=True):
        row[: len(samples)] = samples
        behind = row[len(samples) :]
        behind[: len(padding)] = padding[: len(behind)]

    inputs = {"waveform": waveform, "num_samples": lengths}
    log_probs, num_frames = session.run(None, inputs)
    return EncoderOutput(torch.from_numpy(log_probs), torch.from_numpy(num_frames))


@torch.inference_mode()
def model_log_probs(model: CtcModel, recordings: Recordings) -> EncoderOutput:
    """Run the model itself on the same recordings: on levelled ones as transcription does."""
    config = model.encoder.config.features
    arrays = [featurise(samples, config) for samples in recordings]
    ids = [str(number) for number in range(len(arrays))]
    no_texts = [None] * len(ids)
    return model.log_probs(collate(ids, arrays, no_texts, config))


def output_difference(found: EncoderOutput, expected: EncoderOutput) -> float:
    """Find the largest difference of a log-probability in a valid frame.

    All log-probabilities below -1000 count as equal: models of other libraries lack some tokens,
    which have probability 0 here.

    Returns:
        Nats. NaN where a log-probability is NaN, infinity where the numbers of frames differ.
    """
    if not torch.equal(found.num_frames, expected.num_frames):
        return math.inf

    largest = torch.zeros(())
    for row, count in enumerate(expected.num_frames.tolist()):
        wanted = expected.hidden[row, :count].clamp_min(_IMPOSSIBLE)
        given = found.hidden[row, :count].clamp_min(_IMPOSSIBLE)
        # torch.maximum passes NaN on, where max() of Python may lose it.
        largest = torch.maximum(largest, (wanted - given).abs().max())

    return float(largest)


def largest_difference(model: CtcModel, folder: Path) -> float:
    """Compare the graph in ``folder`` with the model on synthetic recordings.

    They are run in one batch, where the graph has NaN behind each recording, and one by one.

    Returns:
        As ``output_difference``.
    """
    session = onnx_session(folder)
    config = model.encoder.config
    recordings = _check_recordings(config)

    # Half a second that must not change any valid frame.
    junk = np.full(config.features.sample_rate_hz // 2, np.nan, dtype=np.float32)
    together = model_log_probs(model, recordings)
    differences = [output_difference(onnx_log_probs(session, recordings, junk), together)]

    for samples in recordings:
        found = onnx_log_probs(session, [samples])
        expected = model_log_probs(model, [samples])
        differences.append(output_difference(found, expected))

    # numpy's max is NaN where one value is.
    return float(np.max(differences))


def min_samples(config: EncoderConfig) -> int:
    """Count the samples of the shortest recording that gives a frame."""
    features = config.features
    return (config.min_input_length(1) - 1) * features.hop + features.window


class _Recogniser(nn.Module):
    """The computation that is exported: features, encoder and head."""

    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self.model = model
        self.features = model.encoder.config.features
        self.log_mel = _LogMel(self.features) if self.features.kind == "logmel" else None

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probabilities of samples.

        Args:
            waveform: (B, S) float32.
            num_samples: (B,) int64, valid samples.

        Returns:
            log_probs: (B, T, V) float32.
            num_outputs: (B,) int64, valid rows of ``log_probs``.
        """
        samples = zero_padding(waveform, num_samples)

        if self.log_mel is None:
            # As a store of waveforms holds them: int16, back in -1..1.
            rounded = (samples * INT16_SCALE).round().clamp(-32768, 32767)
            inputs = rounded / INT16_SCALE  # (B, S)
        else:
            inputs = self.log_mel(samples)  # (B, U, F)

        # A waveform has window 1 and hop 1, so its length stays.
        input_lengths = after_window(num_samples, self.features.window, self.features.hop)

        hidden, num_frames = self.model.encoder(inputs, input_lengths)
        log_probs, num_outputs = self.model.token_log_probs(hidden, num_frames)
        return log_probs, num_outputs


class _LogMel(nn.Module):
    """``audio.features.log_mel`` with its Fourier transform as two matrix products.

    ONNX Runtime's own DFT is slow and less exact. All is float64, as in ``featurise``, so that both
    round to the same float16.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.window = config.window
        self.hop = config.hop
        window, filters = mel_filters(config)

        # The whole turns are taken off as integers, so that the angles stay small and exact.
        turns = torch.outer(torch.arange(self.window), torch.arange(len(filters))) % self.window
        angles = turns.double() * (2 * math.pi / self.window)

        weighting = window.double()[:, None]
        self.cosines = nn.Buffer(weighting * angles.cos())
        self.sines = nn.Buffer(weighting * angles.sin())
        self.filters = nn.Buffer(filters.double())

    def forward(self, samples: Tensor) -> Tensor:
        """(B, S) float32 samples -> (B, U, F) float32, rounded to values of float16."""
        frames = samples.double().unfold(1, self.window, self.hop)  # (B, U, window)

        real = frames @ self.cosines
        imaginary = frames @ self.sines
        power = real.square() + imaginary.square()

        energies = (power @ self.filters).clamp_min(LOG_FLOOR)
        return energies.log().half().float()


def _check_recordings(config: EncoderConfig) -> list[NDArray[np.float32]]:
    """Make the recordings of ``_CHECKED``: gliding tones in noise."""
    random = generator("onnx check")
    rate = config.features.sample_rate_hz
    recordings = []

    for seconds, level in _CHECKED:
        length = min_samples(config) + round(seconds * rate)
        time = np.arange(length) / rate

        # The tone starts at 150 Hz and rises at a speed that is drawn.
        glide = 150 + 400 * random.random() * time
        wave = np.sin(2 * np.pi * glide * time) * np.hanning(length)
        steady_tone = 0.2 * np.sin(2 * np.pi * 0.2 * rate * time)
        noise = 0.1 * random.standard_normal(length)
        wave += steady_tone + noise

        recordings.append((level * wave).astype(np.float32))

    return recordings


def _write_graph(model: CtcModel, path: Path) -> None:
    """Write the graph with its weights, in a file beside it if they exceed ONNX's 2 GB."""
    rate = model.encoder.config.features.sample_rate_hz
    # A size of 1 would be taken as fixed; any other stands for all sizes.
    waveform = torch.zeros(2, 2 * rate)
    num_samples = torch.tensor([2 * rate, rate])
    free_sizes = ({0: "batch", 1: "samples"}, {0: torch.export.Dim.DYNAMIC})

    with torch.no_grad(), _without_advice():
        program = torch.onnx.export(
            _Recogniser(model).eval(),
            (waveform, num_samples),
            input_names=["waveform", "num_samples"],
            output_names=["log_probs", "num_frames"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=free_sizes,
            verbose=False,
        )
    assert program is not None

    # Each operator notes where in the code it comes from: those notes hold paths of this machine.
    clear_notes = _package("onnx_ir.passes.common").ClearMetadataAndDocStringPass()
    clear_notes(program.model)
    program.save(path)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep four lines about torchvision off stderr, whose operators no model here uses."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _about(model: CtcModel) -> dict[str, Any]:
    """Describe the graph for a program in any language."""
    config = model.encoder.config

    return {
        "graph": GRAPH,
        "opset": OPSET,
        "sample_rate_hz": config.features.sample_rate_hz,
        "min_samples": min_samples(config),
        "samples_per_frame": config.samples_per_frame / model.config.tokens_per_frame,
        "inputs": {
            "waveform": "(batch, samples) float32 in -1..1, each recording levelled as below; at "
            "least min_samples long, anything behind num_samples",
            "num_samples": "(batch,) int64, valid samples of each; "
            "fewer than min_samples give no frame",
        },
        "levelling": _LEVELLING,
        "outputs": {
            "log_probs": "(batch, frames, tokens) float32, natural logarithm; "
            "no meaning from num_frames on",
            "num_frames": "(batch,) int64, valid frames of each",
        },
        "blank_id": model.tokenizer.blank_id,
        "normaliser": model.normaliser,
        "tokens": list(model.tokenizer.texts),
    }


def _package(name: str) -> Any:
    """Import a package that only the extra ``convert`` installs.

    Raises:
        ConfigError: it is missing.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ONNX export needs {name}, which is missing: pip install 'speechssl[convert]'"
        ) from error
