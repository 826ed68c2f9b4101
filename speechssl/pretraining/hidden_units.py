"""Pretext task: name the unit of each frame, a cluster of cepstra or of what another model makes of the speech."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.encoder.augment import AugmentConfig, augment
from speechssl.encoder.encoder import Encoder, layer_outputs
from speechssl.encoder.masking import MaskConfig
from speechssl.encoder.padding import valid_mask
from speechssl.errors import ConfigError
from speechssl.pretraining.kmeans import CEPSTRA_WIDTH, cepstra, k_means, nearest
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    draw_masks,
    make_decoder,
    masked_context,
)
from speechssl.runtime.seeds import generator
from speechssl.training.loss import LossOutput

FIT_FRAMES = 50_000  # that clusters are found on


class HiddenUnitsConfig(Settings):
    """Clusters of what, and which frames are asked about."""

    teacher: str | None = Field(
        None,
        description="run or model folder whose layers are clustered, a recogniser too; None = cepstra",
    )
    layers: int = Field(2, ge=1, description="last layers of the teacher, averaged")
    num_codes: tuple[PositiveInt, ...] = Field(
        (256, 64), min_length=1, description="clusters of each codebook"
    )
    visible_weight: float = Field(
        0.5, ge=0, description="of a frame that is not masked; a masked one has 1"
    )
    augment: AugmentConfig = Field(
        AugmentConfig(tempo=0.15, mel_masks=2),
        description="of the input; units are named before all but the tempo is changed",
    )


class HiddenUnits(nn.Module):
    """Cross-entropy of the units, at masked frames and, with a weight, at the others.

    Source: HuBERT (arXiv 2106.07447), section 2. Differs: clusters of cepstra have those of neighbouring frames in
    them; a teacher's layers are normalised and averaged as in data2vec (arXiv 2202.03555), section 3.3; units are named
    anew in each update, so that inputs can be changed. A recogniser as teacher: cf. PBERT (arXiv 2206.10125).

    Raises:
        ConfigError: the encoder reads waveforms where log-mel is needed, or the teacher reads or gives other frames or
            has fewer layers.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        teacher: Encoder | None,
        config: HiddenUnitsConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__()
        own = encoder.config
        if own.features.kind != "logmel" and (config.augment.active or teacher is None):
            raise ConfigError(
                "this encoder reads waveforms: give --set hidden_units.teacher=RUN, and "
                "--set hidden_units.augment.tempo=0 --set hidden_units.augment.mel_masks=0"
            )
        if teacher is not None and (teacher.config.features, teacher.config.frame_windows) != (
            own.features,
            own.frame_windows,
        ):
            raise ConfigError(
                f"the teacher {config.teacher} reads other features or makes other frames than the encoder: "
                "pretrain with its preset, or take another teacher"
            )
        if teacher is not None and config.layers > teacher.config.num_layers:
            raise ConfigError(
                f"hidden_units.layers is {config.layers}, but the teacher {config.teacher} has {teacher.config.num_layers}"
            )
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        # Hidden in a tuple: no part of what is trained, moved or saved.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(False),)
        self.decoder = make_decoder(own.width, decoder)
        self.head = nn.Linear(own.width, sum(config.num_codes))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        width = CEPSTRA_WIDTH if teacher is None else teacher.config.width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        for index, size in enumerate(config.num_codes):
            self.register_buffer(f"codes_{index}", torch.zeros(size, width))

    @torch.no_grad()
    def fit(self, dataset: Dataset) -> None:
        """Find the clusters in some chunks, drawn at random; the same ones whenever it is called.

        Raises:
            ConfigError: fewer frames than clusters.
        """
        device = self.mean.device
        found, count = [], 0
        for position in generator("units", self.seed).permutation(len(dataset)):
            described, _ = self.describe(dataset.batch([int(position)]).to(device))
            found.append(described[0])
            count += len(described[0])
            if count >= FIT_FRAMES:
                break
        frames, most = torch.cat(found), max(self.config.num_codes)
        if count < most:
            raise ConfigError(
                f"hidden_units.num_codes: {most} clusters of {count} frames in all: give fewer, or more audio"
            )
        self.mean.copy_(frames.mean(0))
        self.scale.copy_(1 / (frames.std(0) + 1e-5))
        frames = (frames - self.mean) * self.scale
        for index, size in enumerate(self.config.num_codes):
            first = generator("units", self.seed, index).choice(len(frames), size, replace=False)
            self.get_buffer(f"codes_{index}").copy_(
                k_means(frames, frames[torch.from_numpy(first).to(device)])
            )

    @torch.no_grad()
    def describe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, T, W) float32, what is clustered, and (B,) valid frames."""
        num_frames = self.encoder.num_frames(batch.input_lengths)
        if not self._teacher:
            length = int(self.encoder.num_frames(torch.tensor([batch.inputs.shape[1]])))
            rows = self.encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)
            with torch.autocast(rows.device.type, enabled=False):
                return cepstra(
                    rows.float(), num_frames, self.encoder.config.subsampling
                ), num_frames
        (teacher,) = self._teacher
        teacher.to(batch.inputs.device)
        outputs = layer_outputs(teacher, batch.inputs, batch.input_lengths)[0][1:][
            -self.config.layers :
        ]
        return torch.stack([F.layer_norm(x.float(), x.shape[-1:]) for x in outputs]).mean(
            0
        ), num_frames

    def units(self, described: Tensor) -> Tensor:
        """(..., W) -> (..., G) int64, the nearest cluster of each codebook."""
        with torch.autocast(described.device.type, enabled=False):
            placed = (described - self.mean) * self.scale
            codebooks = [
                self.get_buffer(f"codes_{index}") for index in range(len(self.config.num_codes))
            ]
            return torch.stack([nearest(placed, codes) for codes in codebooks], -1)

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Loss of a batch at update ``step``: the weighted sum over frames of the mean over codebooks, nats."""
        config, encoder = self.config, self.encoder
        batch, inputs = self._changed(batch, step)
        raw, num_frames = encoder.extract(inputs, batch.input_lengths)
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        everywhere = config.visible_weight > 0
        context = masked_context(
            encoder, self.decoder, encoder.norm(raw), num_frames, masked, everywhere
        ).flatten(0, 1)
        slots = torch.from_numpy(masked.slots).to(raw.device)
        if everywhere:
            hidden = torch.zeros(len(context), dtype=torch.bool, device=raw.device).index_fill(
                0, slots, True
            )
            slots = valid_mask(num_frames, raw.shape[1], raw.device).flatten().nonzero()[:, 0]
            context, hidden = context[slots], hidden[slots]
        else:
            context = context[torch.from_numpy(masked.places).to(raw.device)]
            hidden = torch.ones(len(context), dtype=torch.bool, device=raw.device)
        units = self.units(self.describe(batch)[0].flatten(0, 1)[slots])
        weights = torch.where(hidden, 1.0, config.visible_weight)
        losses, right = self._answers(context, units)
        loss, weight = (losses * weights).sum(), len(slots)
        metrics: dict[str, Tensor | float] = {
            "loss": loss.detach(),
            "chance": sum(math.log(size) for size in config.num_codes)
            / len(config.num_codes)
            * weights.sum(),
            "accuracy": right.sum(),  # of all frames that were asked about
            "masked_share": float(masked.mask.sum()) / max(1, int(num_frames.sum())) * weight,
        }
        return LossOutput(loss, weight, metrics)

    def _changed(self, batch: Batch, step: int) -> tuple[Batch, Tensor]:
        """The batch at other tempos, whose units are named, and its inputs with all other changes too."""
        config = self.config.augment
        if not config.active:
            return batch, batch.inputs
        rngs = [generator("augment", self.seed, step, key) for key in batch.keys]
        least = [self.encoder.config.min_input_length(1)] * len(rngs)
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, least, AugmentConfig(tempo=config.tempo), rngs
        )
        changed = replace(batch, inputs=inputs, input_lengths=input_lengths)
        others = config.model_copy(update={"tempo": 0.0})
        return changed, augment(inputs, input_lengths, input_lengths.tolist(), others, rngs)[0]

    def _answers(self, context: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) and (N, G) -> (N,) losses and (N,) shares of codebooks that were right."""
        logits = self.head(context).float().split(list(self.config.num_codes), -1)
        pairs = list(zip(logits, units.unbind(-1), strict=True))
        losses = torch.stack(
            [F.cross_entropy(found, wanted, reduction="none") for found, wanted in pairs]
        ).mean(0)
        right = torch.stack(
            [(found.detach().argmax(-1) == wanted).float() for found, wanted in pairs]
        ).mean(0)
        return losses, right
