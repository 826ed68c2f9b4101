"""A recogniser: encoder, linear head and CTC loss; its freeze schedule, its masks, and its model folder."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speechssl.config import Settings, as_table, build
from speechssl.data.dataset import Batch
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.encoder.augment import AugmentConfig, augment
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, EncoderOutput
from speechssl.encoder.kernels import Dropout
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.encoder.padding import valid_mask
from speechssl.errors import CheckpointError, ConfigError
from speechssl.runtime.seeds import generator
from speechssl.scoring.calibration import Scaling
from speechssl.storage.checkpoint import load_folder, load_into, model_folder, save_folder
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import Tokenizer, load_tokenizer
from speechssl.training.loss import LossOutput


class CtcConfig(Settings):
    """How the encoder takes part in fine-tuning; defaults are wav2vec 2.0's for little data."""

    head_only_steps: int = Field(
        0, ge=0, description="updates at the start in which only the new head learns"
    )
    train_front_end: bool = Field(
        False, description="whether the front end learns; the reference never does"
    )
    frozen: bool = Field(
        False, description="the encoder never learns: the head reads fixed features"
    )
    time_mask: MaskConfig = Field(MaskConfig(), description="spans of frames hidden while training")
    channel_mask_prob: float = Field(
        0.25, ge=0, le=1, description="expected share of masked channels before overlap"
    )
    channel_mask_length: int = Field(64, ge=1, description="neighbouring channels of a masked span")
    dropout: float = Field(0.1, ge=0, lt=1, description="before the head")
    tokens_per_frame: int = Field(
        1, ge=1, le=16, description="outputs of the head for each frame, one after another in time"
    )
    augment: AugmentConfig = Field(
        AugmentConfig(), description="changes of the log-mel rows while training"
    )


class CtcModel(nn.Module):
    """Speech -> log-probabilities of tokens per frame.

    Source: CTC (Graves et al. 2006); fine-tuning as in wav2vec 2.0 section 3.3 and appendix B. Differs where asked to:
    the head may give several outputs for each frame, so that slow frames have room for fast letters.

    Raises:
        ConfigError: changes of log-mel rows asked for, and the encoder reads waveforms.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        normaliser: str,
        config: CtcConfig,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if config.augment.active and encoder.config.features.kind != "logmel":
            raise ConfigError(
                "ctc.augment changes log-mel rows, and this encoder reads waveforms: leave it out"
            )
        self.encoder, self.tokenizer, self.normaliser = encoder, tokenizer, normaliser
        self.config, self.seed, self.scaling = config, seed, Scaling()
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(encoder.config.width, config.tokens_per_frame * tokenizer.size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        encoder.requires_grad_(not config.frozen)
        encoder.front_end.requires_grad_(config.train_front_end and not config.frozen)

    def encode_text(self, text: str) -> list[int]:
        """Normalised and tokenised transcript."""
        return self.tokenizer.encode(normalise(text, self.normaliser))

    def log_probs(self, batch: Batch) -> EncoderOutput:
        """(B, T, V) float32 log-probabilities with (B,) valid outputs; for evaluation, so without masks."""
        return self.token_log_probs(*self.encoder(batch.inputs, batch.input_lengths))

    def num_outputs(self, input_lengths: Tensor) -> Tensor:
        """(B,) valid samples or mel frames -> (B,) valid rows of ``log_probs``."""
        return self.encoder.num_frames(input_lengths) * self.config.tokens_per_frame

    @property
    def seconds_per_output(self) -> float:
        """From one row of ``log_probs`` to the next."""
        config = self.encoder.config
        return config.samples_per_frame / (
            self.config.tokens_per_frame * config.features.sample_rate_hz
        )

    def token_log_probs(self, hidden: Tensor, num_frames: Tensor) -> EncoderOutput:
        """Encoder frames (B, T, D) -> log-probabilities (B, n T, V), n of them in a row from each frame."""
        count, size = self.config.tokens_per_frame, self.tokenizer.size
        logits = self.head(hidden).unflatten(-1, (count, size)).flatten(1, 2)
        return EncoderOutput(logits.float().log_softmax(-1), num_frames * count)

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """CTC loss of a batch at update ``step``: the sum over utterances (nats), weighed by target tokens.

        Every utterance must have frames enough for its tokens (``min_ctc_frames``), which fine-tuning checks
        before it starts: otherwise the loss is infinite.
        """
        targets = [
            torch.tensor(self.encode_text(text or ""), dtype=torch.int64) for text in batch.texts
        ]
        if self.training and self.config.augment.active and not self.config.frozen:
            batch = self._augmented(batch, step, targets)
        hidden, num_frames = self._encode(batch, step)
        log_probs, num_frames = self.token_log_probs(self.dropout(hidden), num_frames)
        lengths = torch.tensor([len(t) for t in targets])
        joined = torch.cat(targets).to(log_probs.device)
        blank = self.tokenizer.blank_id
        loss = F.ctc_loss(
            log_probs.transpose(0, 1), joined, num_frames, lengths, blank=blank, reduction="sum"
        )
        with torch.no_grad():
            valid = valid_mask(num_frames, log_probs.shape[1], log_probs.device)
            blanks = ((log_probs.argmax(-1) == blank) & valid).sum() / valid.sum()
        weight = int(lengths.sum())
        return LossOutput(loss, weight, {"loss": loss.detach(), "blank_share": blanks * weight})

    def _augmented(self, batch: Batch, step: int, targets: list[Tensor]) -> Batch:
        """The batch with changed log-mel rows, never too few for the transcripts."""
        config, shape = self.config, self.encoder.config
        needed = [
            -(-min_ctc_frames(tokens.tolist()) // config.tokens_per_frame) for tokens in targets
        ]
        rngs = [generator("augment", self.seed, step, key) for key in batch.keys]
        least = [shape.min_input_length(max(1, frames)) for frames in needed]
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, least, config.augment, rngs
        )
        return replace(batch, inputs=inputs, input_lengths=input_lengths)

    def _encode(self, batch: Batch, step: int) -> EncoderOutput:
        """Training-time encoder: masks and freezing as configured for this step."""
        config, encoder = self.config, self.encoder
        learns = not config.frozen and step >= config.head_only_steps
        if config.frozen:
            encoder.eval()  # fixed features: no dropout inside the encoder either
        with nullcontext() if learns else torch.no_grad():
            frames, num_frames = encoder.extract(batch.inputs, batch.input_lengths)
            mask = channel_mask = None
            if self.training and not config.frozen:
                mask, channel_mask = self._masks(batch, num_frames.tolist(), frames.shape[1], step)
                mask, channel_mask = mask.to(frames.device), channel_mask.to(frames.device)
            hidden = encoder.contextualise(encoder.norm(frames), num_frames, mask, channel_mask)
        return EncoderOutput(hidden, num_frames)

    def _masks(
        self, batch: Batch, num_frames: list[int], width: int, step: int
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        channels = MaskConfig(
            prob=config.channel_mask_prob, length=config.channel_mask_length, min_spans=0
        )
        time = np.zeros((len(num_frames), width), dtype=bool)
        channel = np.zeros((len(num_frames), self.encoder.config.width), dtype=bool)
        for row, (count, key) in enumerate(zip(num_frames, batch.keys, strict=True)):
            rng = generator("masks", self.seed, step, key)
            time[row, :count] = span_mask(count, config.time_mask, rng)
            channel[row] = span_mask(channel.shape[1], channels, rng)
        return torch.from_numpy(time), torch.from_numpy(channel)


def save_ctc(
    model: CtcModel, path: Path, about: Mapping[str, Any], scaling: Scaling | None = None
) -> None:
    """A folder that ``load_ctc`` reads anywhere: weights, settings, tokenizer; ``about`` is kept as it is.

    Args:
        scaling: of the confidences of words; the model's.
    """
    record = {
        "kind": "ctc",
        "encoder": as_table(model.encoder.config),
        "normaliser": model.normaliser,
        "tokens_per_frame": model.config.tokens_per_frame,
        "confidence": asdict(scaling or model.scaling),
        "about": dict(about),
    }
    save_folder(path, model.state_dict(), record, model.tokenizer.files())


def load_ctc(path: str | Path) -> CtcModel:
    """A recogniser from its model folder or finished run, ready to use, on the CPU.

    Raises:
        CheckpointError: no model folder, damaged, or an encoder without a CTC head.
    """
    path = model_folder(Path(path))
    tensors, record = load_folder(path)
    if record.get("kind") != "ctc":
        raise CheckpointError(
            f"{path} holds an encoder without a CTC head: fine-tune it first (speechssl finetune)"
        )
    encoder = Encoder(build(EncoderConfig, record["encoder"]))
    # Neither of the two is in folders from before there was a choice.
    config = build(CtcConfig, {"tokens_per_frame": record.get("tokens_per_frame", 1)})
    model = CtcModel(encoder, load_tokenizer(path), str(record["normaliser"]), config)
    load_into(model, tensors, str(path))
    model.scaling = _read_scaling(record.get("confidence", {}), path)
    return model.eval()


def _read_scaling(table: Any, path: Path) -> Scaling:
    try:
        values = {name: float(value) for name, value in table.items()}
        if not all(map(math.isfinite, values.values())):
            raise ValueError("not finite")
        return Scaling(**values)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path} has no scaling of confidences but {table!r}: {error}"
        ) from error
