"""Pretext task: name the unit of each frame.

A unit is a cluster of cepstra, or of the features in which another model (the teacher) describes
the speech.

Shapes, besides those of masked_prediction.py:
    W  width of what is clustered
    G  codebooks; each has a size of its own
    A  frames that are asked about: the masked ones, and the other valid ones where
       ``visible_weight`` is not 0
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from speechssl.config import Settings, Table
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.encoder.augment import AugmentConfig, augment
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, layer_outputs
from speechssl.encoder.masking import MaskConfig
from speechssl.encoder.padding import valid_mask
from speechssl.errors import ConfigError
from speechssl.pretraining.kmeans import CEPSTRA_WIDTH, cepstra, k_means, nearest
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    MaskedFrames,
    PretextTask,
    draw_masks,
    make_decoder,
    masked_context,
)
from speechssl.runtime.seeds import generator
from speechssl.training.lineage import origin_of
from speechssl.training.loss import LossOutput

# Frames that clusters are found on.
FIT_FRAMES = 50_000

# The seed of the clusters. It is older than the name of the task, and stays: another would give
# other clusters.
SEED_NAME = "units"


class HiddenUnitsConfig(Settings):
    """Clusters of what, and which frames are asked about."""

    teacher: str | None = Field(
        None,
        description="run or model folder whose layers are clustered, a recogniser too; "
        "None = cepstra",
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


class HiddenUnits(PretextTask):
    """Cross-entropy of the units, at masked frames and, with a weight, at the others.

        unit_tg = the cluster of codebook g that is nearest to the description of frame t
        loss = sum over frames t of w_t mean over g of -ln softmax(head_g(context_t))[unit_tg]
        with w_t = 1 where t is masked, ``visible_weight`` where it is not

    Source: HuBERT (arXiv 2106.07447), section 2. Differs: clusters of cepstra have those of
    neighbouring frames in them; a teacher's layers are normalised and averaged as in data2vec
    (arXiv 2202.03555), section 3.3; units are named anew in each update, so that inputs can be
    changed. A recogniser as teacher: cf. PBERT (arXiv 2206.10125).

    Raises:
        ConfigError: the encoder reads waveforms where log-mel is needed, or the teacher reads or
            gives other frames or has fewer layers.
    """

    # The clusters of a later run are of other features, so its answers mean something else.
    continues: ClassVar[bool] = False

    mean: Tensor
    """(W,) of what is clustered"""
    scale: Tensor
    """(W,) one over its standard deviation"""

    def __init__(
        self,
        encoder: Encoder,
        teacher: Encoder | None,
        config: HiddenUnitsConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        teacher_config = None if teacher is None else teacher.config
        _check_fit(config, encoder.config, teacher_config)

        super().__init__(encoder, mask, seed)
        self.config = config
        # Hidden in a tuple: no part of what is trained, moved or saved.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(False),)

        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, sum(config.num_codes))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

        described_width = CEPSTRA_WIDTH if teacher is None else teacher.config.width
        self.register_buffer("mean", torch.zeros(described_width))
        self.register_buffer("scale", torch.ones(described_width))
        for index, size in enumerate(config.num_codes):
            self.register_buffer(f"codes_{index}", torch.zeros(size, described_width))

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss (nats) of a batch at update ``step``, weighed by the A frames."""
        config = self.config
        batch, inputs = self._changed(batch, step)

        raw, num_frames = self.encoder.extract(inputs, batch.input_lengths)  # (B, T, C)
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        asked = self._ask(raw, num_frames, masked)

        described, _ = self.describe(batch)  # (B, T, W)
        described = described.flatten(0, 1)  # (B T, W)
        units = self.units(described[asked.positions])  # (A, G)

        cross_entropy, is_right = self._answers(asked.context, units)
        frame_weights = torch.where(asked.is_masked, 1.0, config.visible_weight)
        loss = (cross_entropy * frame_weights).sum()

        weight = len(asked.positions)
        # All logits equal, mean over codebooks.
        chance = sum(math.log(size) for size in config.num_codes) / len(config.num_codes)
        masked_share = (float(masked.mask.sum()), int(num_frames.sum()))
        metrics: dict[str, Tensor | float] = {
            "loss": loss.detach(),
            "chance": chance * frame_weights.sum(),
            # Of all frames that were asked about.
            "accuracy": is_right.sum(),
        }
        return LossOutput(loss, weight, metrics, {"masked_share": masked_share})

    def prepare(self, dataset: Dataset, device: torch.device) -> None:
        """Find the clusters on the device that trains."""
        self.to(device)
        self.fit(dataset)

    def made_from(self) -> Table:
        """Name the teacher's files."""
        if self.config.teacher is None:
            return {}
        return {"teacher": origin_of(Path(self.config.teacher))["files"]}

    @torch.no_grad()
    def fit(self, dataset: Dataset) -> None:
        """Find the clusters in some chunks, drawn at random; the same ones whenever it is called.

        Raises:
            ConfigError: fewer frames than clusters.
        """
        frames = self._frames_to_cluster(dataset)
        most_codes = max(self.config.num_codes)
        if len(frames) < most_codes:
            raise ConfigError(
                f"hidden_units.num_codes: {most_codes} clusters of {len(frames)} frames in all: "
                "give fewer, or more audio"
            )

        self.mean.copy_(frames.mean(0))
        spread = frames.std(0) + 1e-5
        self.scale.copy_(1 / spread)
        frames = (frames - self.mean) * self.scale

        for index, size in enumerate(self.config.num_codes):
            rng = generator(SEED_NAME, self.seed, index)
            drawn = rng.choice(len(frames), size, replace=False)
            positions = torch.from_numpy(drawn)
            positions = positions.to(frames.device)

            first_codes = frames[positions]
            codes = k_means(frames, first_codes)
            self.get_buffer(f"codes_{index}").copy_(codes)

    @torch.no_grad()
    def describe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, T, W) float32, what is clustered, and (B,) valid frames."""
        num_frames = self.encoder.num_frames(batch.input_lengths)
        if not self._teacher:
            return self._cepstra(batch, num_frames), num_frames

        (teacher,) = self._teacher
        teacher.to(batch.inputs.device)
        outputs, _ = layer_outputs(teacher, batch.inputs, batch.input_lengths)
        # The first output is the front end's.
        last_layers = outputs[1:][-self.config.layers :]
        normed = [F.layer_norm(output.float(), output.shape[-1:]) for output in last_layers]
        return torch.stack(normed).mean(0), num_frames

    def units(self, described: Tensor) -> Tensor:
        """(..., W) -> (..., G) int64, the nearest cluster of each codebook."""
        with torch.autocast(described.device.type, enabled=False):
            scaled = (described - self.mean) * self.scale
            units = [nearest(scaled, codes) for codes in self._codebooks()]
            return torch.stack(units, -1)

    def _codebooks(self) -> Iterator[Tensor]:
        """The clusters of each codebook, (its size, W)."""
        for index in range(len(self.config.num_codes)):
            yield self.get_buffer(f"codes_{index}")

    def _cepstra(self, batch: Batch, num_frames: Tensor) -> Tensor:
        """(B, T, W) float32 cepstra of log-mel rows."""
        encoder = self.encoder
        padded_length = torch.tensor([batch.inputs.shape[1]])
        length = int(encoder.num_frames(padded_length))
        rows = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)

        with torch.autocast(rows.device.type, enabled=False):
            return cepstra(rows.float(), num_frames, encoder.config.subsampling)

    def _frames_to_cluster(self, dataset: Dataset) -> Tensor:
        """(FIT_FRAMES or a few more, W) of chunks drawn at random; all where there are fewer."""
        device = self.mean.device
        found = []
        count = 0

        rng = generator(SEED_NAME, self.seed)
        for position in rng.permutation(len(dataset)):
            batch = dataset.batch([int(position)])
            described, _ = self.describe(batch.to(device))
            frames = described[0]
            found.append(frames)
            count += len(frames)
            if count >= FIT_FRAMES:
                break

        return torch.cat(found)

    def _changed(self, batch: Batch, step: int) -> tuple[Batch, Tensor]:
        """The batch at other tempos, whose units are named, and its inputs with all changes."""
        config = self.config.augment
        if not config.active:
            return batch, batch.inputs

        rngs = [generator("augment", self.seed, step, key) for key in batch.keys]
        one_frame = self.encoder.config.min_input_length(1)
        tempo_only = AugmentConfig(tempo=config.tempo)
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, [one_frame] * len(rngs), tempo_only, rngs
        )
        at_other_tempos = replace(batch, inputs=inputs, input_lengths=input_lengths)

        all_but_tempo = config.model_copy(update={"tempo": 0.0})
        changed, _ = augment(inputs, input_lengths, input_lengths.tolist(), all_but_tempo, rngs)
        return at_other_tempos, changed

    def _ask(self, raw: Tensor, num_frames: Tensor, masked: MaskedFrames) -> "_Asked":
        """(B, T, C) front-end frames -> the context of those that are asked about."""
        encoder = self.encoder
        normed = encoder.norm(raw)
        also_visible = self.config.visible_weight > 0
        context = masked_context(
            encoder, self.decoder, normed, num_frames, masked, everywhere=also_visible
        )
        context = context.flatten(0, 1)  # (B T, D) or (B M, D)
        device = raw.device
        masked_positions = torch.from_numpy(masked.batch_positions).to(device)

        if not also_visible:
            packed_positions = torch.from_numpy(masked.packed_positions)
            of_masked = context[packed_positions.to(device)]
            all_masked = torch.ones(len(of_masked), dtype=torch.bool, device=device)
            return _Asked(of_masked, masked_positions, all_masked)

        is_masked = torch.zeros(len(context), dtype=torch.bool, device=device)
        is_masked = is_masked.index_fill(0, masked_positions, True)
        valid = valid_mask(num_frames, raw.shape[1], device)
        positions = valid.flatten().nonzero()[:, 0]
        return _Asked(context[positions], positions, is_masked[positions])

    def _answers(self, context: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """(A, D) and (A, G) -> (A,) cross-entropies and (A,) shares of right codebooks."""
        sizes = list(self.config.num_codes)
        logits_by_codebook = self.head(context).float().split(sizes, -1)
        units_by_codebook = units.unbind(-1)

        cross_entropies = []
        rights = []
        for logits, wanted in zip(logits_by_codebook, units_by_codebook, strict=True):
            cross_entropy = F.cross_entropy(logits, wanted, reduction="none")
            cross_entropies.append(cross_entropy)
            is_right = logits.detach().argmax(-1) == wanted
            rights.append(is_right.float())

        mean_cross_entropy = torch.stack(cross_entropies).mean(0)
        share_right = torch.stack(rights).mean(0)
        return mean_cross_entropy, share_right


class _Asked(NamedTuple):
    """The frames that are asked about."""

    context: Tensor
    """(A, D)"""
    positions: Tensor
    """(A,) int64, where each stands in the flattened batch (B T)"""
    is_masked: Tensor
    """(A,) bool"""


def _check_fit(
    config: HiddenUnitsConfig, encoder: EncoderConfig, teacher: EncoderConfig | None
) -> None:
    """Refuse settings that do not fit the encoder, or a teacher that fits neither.

    Raises:
        ConfigError: names what does not fit.
    """
    needs_log_mel = config.augment.active or teacher is None
    if needs_log_mel and encoder.features.kind != "logmel":
        raise ConfigError(
            "this encoder reads waveforms: give --set hidden_units.teacher=RUN, and "
            "--set hidden_units.augment.tempo=0 --set hidden_units.augment.mel_masks=0"
        )

    if teacher is None:
        return

    same_features = teacher.features == encoder.features
    same_frames = teacher.frame_windows == encoder.frame_windows
    if not (same_features and same_frames):
        raise ConfigError(
            f"the teacher {config.teacher} reads other features or makes other frames than the "
            "encoder: pretrain with its preset, or take another teacher"
        )

    if config.layers > teacher.num_layers:
        raise ConfigError(
            f"hidden_units.layers is {config.layers}, but the teacher {config.teacher} has "
            f"{teacher.num_layers}"
        )
