"""Front ends (waveform or log-mel -> frames) and the context network above them: wav2vec 2.0's encoder."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechssl.config import build
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.context import ContextNetwork, Visible
from speechssl.encoder.front_end import LogMelFrontEnd, WaveformFrontEnd
from speechssl.encoder.kernels import Dropout
from speechssl.encoder.padding import after_window, normalise_valid, zero_padding
from speechssl.errors import CheckpointError
from speechssl.storage.checkpoint import load_folder, load_into, model_folder


class EncoderOutput(NamedTuple):
    """What the encoder makes of a batch. Padded frames hold no meaning."""

    hidden: Tensor
    """(B, T, D)"""
    num_frames: Tensor
    """(B,) int64, valid frames"""


class Encoder(nn.Module):
    """Front end, LayerNorm, projection, mask vector and context network.

    Inputs everywhere: ``inputs`` (B, S) float32 samples or (B, U, F) float32 log-mel, ``input_lengths`` (B,) int64 valid
    samples or mel frames, on the host. Whatever stands in the padding changes no valid output.

    Source: wav2vec 2.0, section 2; BASE and LARGE as released.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end: nn.Module
        if config.features.kind == "waveform":
            grouped = config.conv_norm == "group"
            self.front_end = WaveformFrontEnd(
                config.conv_layers, grouped, config.conv_bias, config.normalise_input
            )
        else:
            self.front_end = LogMelFrontEnd(
                config.features.num_mels, config.channels, config.frame_windows
            )
        self.norm = nn.LayerNorm(config.front_width)
        self.projection = nn.Linear(config.front_width, config.width)
        self.dropout = Dropout(config.dropout)
        self.mask_embedding = nn.Parameter(torch.rand(config.width))
        self.context = ContextNetwork(config)
        for module in [
            self.projection,
            *(m for m in self.context.modules() if isinstance(m, nn.Linear)),
        ]:
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def num_frames(self, input_lengths: Tensor) -> Tensor:
        """(B,) valid samples or mel frames -> (B,) valid encoder frames; exact for any front end."""
        for kernel, stride in self.config.frame_windows:
            input_lengths = after_window(input_lengths, kernel, stride)
        return input_lengths

    def extract(self, inputs: Tensor, input_lengths: Tensor) -> EncoderOutput:
        """Front-end frames (B, T, C), before any normalisation of theirs."""
        inputs = zero_padding(inputs, input_lengths)
        frames: Tensor = self.front_end(inputs, input_lengths)
        return EncoderOutput(frames, self.num_frames(input_lengths))

    def stacked_log_mel(self, inputs: Tensor, input_lengths: Tensor, num_frames: int) -> Tensor:
        """(B, U, F) log-mel -> (B, T, subsampling x F): the normalised rows in the middle of each frame's window."""
        subsampling = self.config.subsampling
        inputs = zero_padding(inputs, input_lengths)
        rows = normalise_valid(inputs, input_lengths, 1e-5)[:, 1 : 1 + subsampling * num_frames]
        return rows.reshape(rows.shape[0], num_frames, -1)

    def contextualise(
        self,
        normed: Tensor,
        num_frames: Tensor,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """LayerNormed front-end frames -> context.

        Args:
            normed: (B, T, C).
            num_frames: (B,) int64, valid frames.
            mask: (B, T) bool, True = replaced by the learned mask vector, after the projection.
            channel_mask: (B, D) bool, True = this channel of the projection is zero in every frame.
            wanted: (B, M) int64, the frames to return; None = all.
            visible: the frames that the Transformer layers read and answer for; None = all.

        Returns:
            (B, T, D), or (B, M, D), or (B, K, D) of K ``visible`` ones.
        """
        projected: Tensor = self.dropout(self.projection(normed))
        if mask is not None:
            projected = torch.where(
                mask[..., None], self.mask_embedding.to(projected.dtype), projected
            )
        if channel_mask is not None:
            projected = projected.masked_fill(channel_mask[:, None], 0.0)
        hidden: Tensor = self.context(projected, num_frames, wanted, visible)
        return hidden

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> EncoderOutput:
        """Unmasked context, (B, T, D) with (B,) valid frames."""
        frames, num_frames = self.extract(inputs, input_lengths)
        return EncoderOutput(self.contextualise(self.norm(frames), num_frames), num_frames)


@torch.no_grad()  # not inference mode: probes learn from what comes out
def layer_outputs(
    encoder: Encoder, inputs: Tensor, input_lengths: Tensor
) -> tuple[list[Tensor], Tensor]:
    """(B, T, D) of the projected front end and of each Transformer layer, nothing dropped, and (B,) valid frames."""
    kept: list[Tensor] = []
    modules = [encoder.projection, *encoder.context.layers]
    hooks = [
        m.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        for m in modules
    ]
    training = encoder.training
    try:
        _, num_frames = encoder.eval()(inputs, input_lengths)
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return kept, num_frames


def load_encoder(path: str | Path, config: EncoderConfig | None = None) -> Encoder:
    """The encoder of a model folder or finished run, pretrained or fine-tuned.

    Args:
        config: build it with these settings (another dropout, say) instead of its own; its weights must fit them.

    Raises:
        CheckpointError: not a model, damaged, or weights that do not fit.
    """
    folder = model_folder(Path(path))
    tensors, record = load_folder(folder)
    if record.get("kind") not in ("encoder", "pretraining", "ctc"):
        raise CheckpointError(
            f"{folder} holds a {record.get('kind')!r}, not a model with an encoder"
        )
    encoder = Encoder(config or build(EncoderConfig, record["encoder"]))
    own = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    load_into(encoder, own, str(folder))
    return encoder
