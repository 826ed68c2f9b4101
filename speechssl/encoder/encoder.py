"""wav2vec 2.0's encoder: a front end (waveform or log-mel -> frames) and the context network.

Shapes:
    B  utterances of the batch
    S  audio samples of the padded batch, U mel frames of it, F mel bins
    T  encoder frames of the padded batch
    C  width of the front end's frames
    D  width of the context network
    M  frames that are asked for, K frames that the context network reads (context.py)
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechssl.config import build
from speechssl.data.dataset import Dataset
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.context import ContextNetwork, ConvolutionContext, Visible
from speechssl.encoder.front_end import LogMelFrontEnd, PlaneFrontEnd, WaveformFrontEnd
from speechssl.encoder.kernels import Dropout
from speechssl.encoder.mel_norm import (
    CorpusMelNorm,
    SpeechMelNorm,
    UtteranceMelNorm,
    learn_mel_norm,
)
from speechssl.encoder.padding import after_window, normalise_valid, zero_padding
from speechssl.errors import CheckpointError
from speechssl.storage.checkpoint import load_folder, load_into
from speechssl.storage.saved_folders import RECORD, model_folder


class EncoderOutput(NamedTuple):
    """What the encoder makes of a batch. Padded frames hold no meaning."""

    hidden: Tensor
    """(B, T, D)"""
    num_frames: Tensor
    """(B,) int64, valid frames"""


class Encoder(nn.Module):
    """Front end, LayerNorm, projection, mask vector and context network.

    Inputs everywhere: ``inputs`` (B, S) float32 samples or (B, U, F) float32 log-mel,
    ``input_lengths`` (B,) int64 valid samples or mel frames, on the host. Whatever stands in the
    padding changes no valid output.

    Source: wav2vec 2.0, section 2; BASE and LARGE as released.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end = _make_front_end(config)
        # Frames behind a batch norm keep how loud they are beside each other.
        self.norm = nn.Identity() if config.batch_norm else nn.LayerNorm(config.front_width)
        self.projection = nn.Linear(config.front_width, config.width)
        self.dropout = Dropout(config.dropout)
        self.mask_embedding = nn.Parameter(torch.rand(config.width))
        self.context = _make_context(config)

        _init_linear(self.projection)
        for module in self.context.modules():
            if isinstance(module, nn.Linear):
                _init_linear(module)

    def learn_corpus(self, dataset: Dataset) -> None:
        """Take from the training data what the front end has to know of it before the first update.

        Args:
            dataset: what an encoder with random weights will be trained on.
        """
        if isinstance(self.front_end, (LogMelFrontEnd, PlaneFrontEnd)):
            learn_mel_norm(self.front_end.mel_norm, dataset)

    def num_frames(self, input_lengths: Tensor) -> Tensor:
        """(B,) valid samples or mel frames -> (B,) valid encoder frames, for any front end."""
        lengths = input_lengths
        for kernel, stride in self.config.frame_windows:
            lengths = after_window(lengths, kernel, stride)

        return lengths

    def extract(self, inputs: Tensor, input_lengths: Tensor) -> EncoderOutput:
        """Compute the front end's frames (B, T, C), before the LayerNorm above them."""
        inputs = zero_padding(inputs, input_lengths)
        frames: Tensor = self.front_end(inputs, input_lengths)
        return EncoderOutput(frames, self.num_frames(input_lengths))

    def stacked_log_mel(self, inputs: Tensor, input_lengths: Tensor, num_frames: int) -> Tensor:
        """Stack the normalised log-mel rows under each frame, which log-mel targets are made of.

        They are the rows in the middle of a frame's window.

        Args:
            inputs: (B, U, F) log-mel.
            input_lengths: (B,) valid rows.
            num_frames: encoder frames of the padded batch, T.

        Returns:
            (B, T, subsampling x F).
        """
        inputs = zero_padding(inputs, input_lengths)
        normalised = normalise_valid(inputs, input_lengths, eps=1e-5)

        first = self.config.rows_before_middle
        last = first + self.config.subsampling * num_frames
        rows = normalised[:, first:last]  # (B, subsampling T, F)
        batch = len(rows)
        return rows.reshape(batch, num_frames, -1)

    def contextualise(
        self,
        normed: Tensor,
        num_frames: Tensor,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """Compute the context of LayerNormed front-end frames.

        Args:
            normed: (B, T, C).
            num_frames: (B,) int64, valid frames.
            mask: (B, T) bool, True = replaced by the learned mask vector, after the projection.
            channel_mask: (B, D) bool, True = this channel of the projection is zero in every frame.
            wanted: (B, M) int64, the frames to return; None = all.
            visible: the only frames that the Transformer layers read and return; None = all.

        Returns:
            (B, T, D), or (B, M, D) of ``wanted``, or (B, K, D) of ``visible``.
        """
        projected: Tensor = self.projection(normed)  # (B, T, C) -> (B, T, D)
        projected = self.dropout(projected)

        if mask is not None:
            mask_vector = self.mask_embedding.to(projected.dtype)
            projected = torch.where(mask[..., None], mask_vector, projected)

        if channel_mask is not None:
            projected = projected.masked_fill(channel_mask[:, None], 0.0)

        hidden: Tensor = self.context(projected, num_frames, wanted, visible)
        return hidden

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> EncoderOutput:
        """Compute the unmasked context: (B, T, D) with (B,) valid frames."""
        frames, num_frames = self.extract(inputs, input_lengths)
        normed = self.norm(frames)
        hidden = self.contextualise(normed, num_frames)
        return EncoderOutput(hidden, num_frames)


@torch.no_grad()  # not inference mode: probes learn from what comes out
def layer_outputs(
    encoder: Encoder, inputs: Tensor, input_lengths: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Compute the output of the projected front end and of each Transformer layer, without dropout.

    Args:
        encoder: is put into evaluation mode, and back.
        inputs: (B, S) or (B, U, F).
        input_lengths: (B,) int64, valid samples or mel frames.

    Returns:
        (B, T, D) for each, the lowest first; (B,) int64 valid frames.
    """
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    modules = [encoder.projection, *encoder.context.layers]
    hooks = [module.register_forward_hook(keep) for module in modules]
    was_training = encoder.training

    try:
        encoder.eval()
        _, num_frames = encoder(inputs, input_lengths)
    finally:
        encoder.train(was_training)
        for hook in hooks:
            hook.remove()

    return outputs, num_frames


def load_encoder(path: str | Path, config: EncoderConfig | None = None) -> Encoder:
    """Load the encoder of a model folder or finished run, pretrained or fine-tuned.

    Args:
        path: the folder.
        config: build it with these settings (another dropout, say) instead of its own; its weights
            must fit them.

    Raises:
        CheckpointError: not a model, damaged, or weights that do not fit.
    """
    folder = model_folder(Path(path))
    tensors, record = load_folder(folder)
    kind = record.get("kind")
    if kind not in ("encoder", "pretraining", "ctc"):
        raise CheckpointError(f"{folder} holds a {kind!r}, not a model with an encoder")

    if config is None:
        config = build(EncoderConfig, record["encoder"], folder / RECORD)
    encoder = Encoder(config)

    of_the_encoder = {}
    for name, tensor in tensors.items():
        if name.startswith("encoder."):
            own_name = name.removeprefix("encoder.")
            of_the_encoder[own_name] = tensor

    load_into(encoder, of_the_encoder, str(folder))
    return encoder


def _make_front_end(config: EncoderConfig) -> nn.Module:
    """Make the front end that reads ``config.features``."""
    features = config.features
    if features.kind == "logmel":
        mel_norm = _make_mel_norm(config)
        if config.front_end == "conv2d":
            return PlaneFrontEnd(
                mel_norm,
                config.channels,
                config.frame_windows,
                config.mel_strides,
                config.batch_norm,
            )
        return LogMelFrontEnd(mel_norm, features.num_mels, config.channels, config.frame_windows)

    grouped = config.conv_norm == "group"
    return WaveformFrontEnd(config.conv_layers, grouped, config.conv_bias, config.normalise_input)


def _make_mel_norm(config: EncoderConfig) -> nn.Module:
    """Make what normalises the log-mel rows."""
    if config.mel_norm == "speech":
        return SpeechMelNorm(config.features)
    if config.mel_norm == "corpus":
        return CorpusMelNorm(config.features.num_mels)
    return UtteranceMelNorm()


def _make_context(config: EncoderConfig) -> ContextNetwork | ConvolutionContext:
    """Make the network above the front end."""
    if config.context == "convolution":
        return ConvolutionContext(config)
    return ContextNetwork(config)


def _init_linear(linear: nn.Linear) -> None:
    """Draw the initial weights as wav2vec 2.0 does; the bias is zero."""
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
