"""The recogniser: an encoder, a linear head and the CTC loss; how it is trained, saved and loaded.

Shapes: B utterances, S samples or U log-mel rows of input with F values each, T encoder frames of
width D, V tokens of the vocabulary. The head gives n outputs for each frame, so N = n T in all.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speechssl.config import Settings, as_table, build
from speechssl.data.collate import Batch
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.encoder.augment import AugmentConfig, augment
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, EncoderOutput
from speechssl.encoder.kernels import Dropout
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.encoder.padding import valid_mask
from speechssl.errors import CheckpointError, ConfigError
from speechssl.recognition.ctc_crf import TokenBigram, log_all_sequences
from speechssl.runtime.seeds import generator
from speechssl.scoring.calibration import Scaling
from speechssl.storage.checkpoint import load_folder, load_into, save_folder
from speechssl.storage.saved_folders import RECORD, model_folder
from speechssl.text.normalise import normalise
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.tokenizers import load_tokenizer
from speechssl.training.loss import LossOutput

# Weight of CTC's own loss beside CTC-CRF's. The latter alone is free to shift all probabilities
# towards the blank or away from it.
CTC_BESIDE_CRF = 0.2


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
    criterion: Literal["ctc", "ctc-crf"] = Field(
        "ctc", description="the loss: CTC alone, or CTC first and then CTC-CRF"
    )
    crf_share: float = Field(
        0.3, gt=0, le=1, description="share of the updates, the last ones, that CTC-CRF takes"
    )
    max_epochs: int | None = Field(
        None,
        ge=1,
        description="passes over the labels at most, where train.steps are more; None = no limit",
    )


class CtcModel(nn.Module):
    """Speech to log-probabilities of tokens.

    Attributes:
        scaling: what makes the confidences of words probabilities, as found on the dev split.

    Source: CTC (Graves et al. 2006); fine-tuning as in wav2vec 2.0 (arXiv 2006.11477), section 3.3
    and appendix B. Where asked to we differ: the head may give several outputs for each frame, so
    that slow frames have room for fast letters.

    Raises:
        ConfigError: changes of log-mel rows are asked for, and the encoder reads waveforms.
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

        self.encoder = encoder
        self.tokenizer = tokenizer
        self.normaliser = normaliser
        self.config = config
        self.seed = seed
        self.scaling = Scaling()
        self._bigram: TokenBigram | None = None
        self._crf_from = 0

        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(encoder.config.width, config.tokens_per_frame * tokenizer.size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

        encoder.requires_grad_(not config.frozen)
        encoder.front_end.requires_grad_(config.train_front_end and not config.frozen)

    @property
    def seconds_per_output(self) -> float:
        """Seconds from one row of ``log_probs`` to the next."""
        shape = self.encoder.config
        outputs_per_second = self.config.tokens_per_frame * shape.features.sample_rate_hz
        return shape.samples_per_frame / outputs_per_second

    def encode_text(self, text: str) -> list[int]:
        """Normalise a transcript and give its tokens."""
        return self.tokenizer.encode(normalise(text, self.normaliser))

    def num_outputs(self, input_lengths: Tensor) -> Tensor:
        """(B,) valid samples or mel rows -> (B,) valid rows of ``log_probs``."""
        return self.encoder.num_frames(input_lengths) * self.config.tokens_per_frame

    def log_probs(self, batch: Batch) -> EncoderOutput:
        """Give (B, N, V) float32 log-probabilities and (B,) valid outputs, without any mask."""
        hidden, num_frames = self.encoder(batch.inputs, batch.input_lengths)
        return self.token_log_probs(hidden, num_frames)

    def learn_by_crf(self, bigram: TokenBigram, first_step: int) -> None:
        """Use the loss of CTC-CRF in training, from update ``first_step`` (from 0) on.

        Args:
            bigram: of the tokens of the transcripts.
        """
        self._bigram = bigram
        self._crf_from = first_step

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Give the loss of a batch at update ``step``: a sum over utterances, in nats.

            ctc = - sum over utterances of ln P(tokens | log_probs)
            crf = sum over utterances of ln sum over sequences s of P(s) P(s | log_probs)

            loss = ctc                             at first
            loss = ctc + crf + CTC_BESIDE_CRF ctc  from the update that ``learn_by_crf`` names

        Each utterance's part is multiplied by its weight in the batch, where that has weights.

        The weight of the sum is the number of target tokens. Every utterance must have outputs
        enough for its tokens (``min_ctc_frames``), else the loss is infinite; fine-tuning checks
        that before it starts.
        """
        targets = [self._target(text) for text in batch.texts]
        if self.training and self.config.augment.active and not self.config.frozen:
            batch = self._augmented(batch, step, targets)

        hidden, num_frames = self._encode(batch, step)
        log_probs, num_outputs = self.token_log_probs(self.dropout(hidden), num_frames)

        target_lengths = torch.tensor([len(tokens) for tokens in targets])
        ctc = F.ctc_loss(
            log_probs.transpose(0, 1),  # (N, B, V), as torch wants it
            torch.cat(targets).to(log_probs.device),
            num_outputs,
            target_lengths,
            blank=self.tokenizer.blank_id,
            reduction="none",
        )  # (B,)

        losses = ctc
        if self._bigram is not None and step >= self._crf_from:
            bigram = self._bigram.to(log_probs.device)
            crf = log_all_sequences(log_probs, num_outputs, bigram)
            losses = ctc + crf + CTC_BESIDE_CRF * ctc

        if batch.weights is not None:
            losses = losses * batch.weights.to(losses.device)
        loss = losses.sum()

        weight = int(target_lengths.sum())
        metrics = {"loss": loss.detach(), "ctc": ctc.detach().sum()}
        num_blank = self._num_blank(log_probs, num_outputs)
        shares = {"blank_share": (num_blank, int(num_outputs.sum()))}
        return LossOutput(loss, weight, metrics, shares)

    def _target(self, text: str | None) -> Tensor:
        return torch.tensor(self.encode_text(text or ""), dtype=torch.int64)

    def token_log_probs(self, hidden: Tensor, num_frames: Tensor) -> EncoderOutput:
        """Turn (B, T, D) frames into (B, N, V) log-probabilities, n in a row from each frame."""
        count = self.config.tokens_per_frame
        logits = self.head(hidden)  # (B, T, n V)
        logits = logits.unflatten(-1, (count, self.tokenizer.size))  # (B, T, n, V)
        logits = logits.flatten(1, 2)  # (B, N, V)
        return EncoderOutput(logits.float().log_softmax(-1), num_frames * count)

    @torch.no_grad()
    def _num_blank(self, log_probs: Tensor, num_outputs: Tensor) -> Tensor:
        """Count the valid outputs whose best token is the blank."""
        valid = valid_mask(num_outputs, log_probs.shape[1], log_probs.device)
        is_blank = log_probs.argmax(-1) == self.tokenizer.blank_id
        return (is_blank & valid).sum()

    def _augmented(self, batch: Batch, step: int, targets: Sequence[Tensor]) -> Batch:
        """Change the log-mel rows of a batch, and leave enough of them for the transcripts."""
        shortest: list[int] = []
        for tokens in targets:
            num_outputs = min_ctc_frames(tokens.tolist())
            num_frames = math.ceil(num_outputs / self.config.tokens_per_frame)
            shortest.append(self.encoder.config.min_input_length(max(1, num_frames)))

        rngs = [generator("augment", self.seed, step, key) for key in batch.keys]
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, shortest, self.config.augment, rngs
        )
        return replace(batch, inputs=inputs, input_lengths=input_lengths)

    def _encode(self, batch: Batch, step: int) -> EncoderOutput:
        """Run the encoder as training does: with the masks and the freezing of this update."""
        encoder = self.encoder
        frozen = self.config.frozen
        encoder_learns = not frozen and step >= self.config.head_only_steps
        if frozen:
            # Fixed features: no dropout inside of the encoder either.
            encoder.eval()

        with nullcontext() if encoder_learns else torch.no_grad():
            frames, num_frames = encoder.extract(batch.inputs, batch.input_lengths)

            time_mask = channel_mask = None
            if self.training and not frozen:
                time_mask, channel_mask = self._masks(batch, num_frames.tolist(), frames, step)

            hidden = encoder.contextualise(
                encoder.norm(frames), num_frames, time_mask, channel_mask
            )

        return EncoderOutput(hidden, num_frames)

    def _masks(
        self, batch: Batch, num_frames: Sequence[int], frames: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Draw (B, T) masked frames and (B, D) masked channels, True = masked."""
        width = self.encoder.config.width
        channel_config = MaskConfig(
            prob=self.config.channel_mask_prob,
            length=self.config.channel_mask_length,
            min_spans=0,
        )

        time_mask = np.zeros((len(num_frames), frames.shape[1]), dtype=bool)
        channel_mask = np.zeros((len(num_frames), width), dtype=bool)
        for row, (count, key) in enumerate(zip(num_frames, batch.keys, strict=True)):
            rng = generator("masks", self.seed, step, key)
            time_mask[row, :count] = span_mask(count, self.config.time_mask, rng)
            channel_mask[row] = span_mask(width, channel_config, rng)

        device = frames.device
        return torch.from_numpy(time_mask).to(device), torch.from_numpy(channel_mask).to(device)


def save_ctc(
    model: CtcModel, path: Path, about: Mapping[str, Any], scaling: Scaling | None = None
) -> None:
    """Write a model folder that ``load_ctc`` reads anywhere: weights, settings and tokenizer.

    Args:
        about: JSON values, kept as they are.
        scaling: of the confidences of words; None takes the model's.
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
    """Load a recogniser from its model folder or finished run: ready to use, on the CPU.

    Raises:
        CheckpointError: no model folder, a damaged one, or an encoder without a CTC head.
    """
    folder = model_folder(Path(path))
    tensors, record = load_folder(folder)
    if record.get("kind") != "ctc":
        raise CheckpointError(
            f"{folder} holds an encoder without a CTC head: fine-tune it first (speechssl finetune)"
        )

    encoder = Encoder(build(EncoderConfig, record["encoder"], folder / RECORD))
    # Folders from before there was a choice hold neither this nor the confidences' scaling.
    tokens_per_frame = record.get("tokens_per_frame", 1)
    config = build(CtcConfig, {"tokens_per_frame": tokens_per_frame}, folder / RECORD)

    model = CtcModel(encoder, load_tokenizer(folder), str(record["normaliser"]), config)
    load_into(model, tensors, str(folder))
    model.scaling = _read_scaling(record.get("confidence", {}), folder)
    return model.eval()


def _read_scaling(table: Any, folder: Path) -> Scaling:
    try:
        values = {name: float(value) for name, value in table.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise ValueError("not finite")
        return Scaling(**values)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{folder} has no scaling of confidences but {table!r}: {error}"
        ) from error
