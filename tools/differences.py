"""Table of the largest differences between our numbers and those of transformers and torchaudio, with equal weights.

    python tools/differences.py [--full] [--threads 2]

Random weights, float32, on the processor. --full adds BASE and LARGE at their published sizes: minutes, and 8 GiB.
Exit code 1 if a number is further away than is allowed.
"""

import argparse
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
import torchaudio
import transformers

# One oracle for the tests and for this table: it lies beside the tests.
from reference.ctc import collapse
from reference.models import batch_of, gradients, noise, objective_as_theirs
from reference.twins import ctc_twin, their_inputs, their_training
from torch import Tensor, nn

from speechssl.config import Table, build, read_preset
from speechssl.data.dataset import Batch
from speechssl.decoding.greedy import greedy
from speechssl.encoder.config import WAV2VEC2_CONVS, EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.interop.torchaudio import their_model, their_settings
from speechssl.interop.weight_names import to_dialect
from speechssl.pretraining.contrastive import Contrastive, ContrastiveConfig
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.tables import text_table
from speechssl.text.tokenizers import CharTokenizer

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
STEP = 1000
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "layer_drop")
STILL = dict.fromkeys(DROPOUTS, 0.0)
SMALL = {
    "conv_layers": [(32, kernel, stride) for _, kernel, stride in WAV2VEC2_CONVS],
    "width": 64,
    "num_layers": 3,
    "num_heads": 4,
    "ffn_width": 128,
    "pos_kernel": 32,
    "pos_groups": 4,
}
SMALL_OBJECTIVE = {"width": 24, "num_negatives": 20}
SMALL_QUANTIZER = {"width": 32, "num_codes": 20}


@dataclass(frozen=True)
class Style:
    """Which model, and what it hears."""

    name: str
    encoder: EncoderConfig
    objective: ContrastiveConfig
    quantizer: QuantizerConfig
    lengths: tuple[int, ...]
    """samples of the utterances, the longest first"""
    published: bool

    @property
    def padding_safe(self) -> bool:
        """Whether the other libraries keep padding out: their group norm averages over it."""
        return self.encoder.conv_norm == "layer"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    style: str
    library: str
    quantity: str
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """NaN is not."""
        return self.difference <= self.allowed


def style(name: str, preset: str, small: bool, **changes: object) -> Style:
    """A published model, or its like in small: without dropout, and with what transformers has no setting for off."""
    table = read_preset(preset)
    published: Table = table["pretrain"]
    objective = published.get("contrastive", {}) | {
        "penalty_weight": 0.0,
        "front_end_gradient": 1.0,
    }
    quantizer = published.get("quantizer", {})
    return Style(
        name,
        build(EncoderConfig, table["encoder"] | STILL | (SMALL if small else {}) | changes),
        build(ContrastiveConfig, objective | (SMALL_OBJECTIVE if small else {})),
        build(QuantizerConfig, quantizer | (SMALL_QUANTIZER if small else {})),
        (16_000, 12_345, 9_001) if small else (48_000, 32_001),
        not small,
    )


def styles(full: bool) -> list[Style]:
    found = [
        style("BASE, small", "base", small=True),
        style("LARGE, small", "large", small=True),
        style("LARGE with adapters, small", "large", small=True, adapter_width=16),
    ]
    if full:
        found += [
            style("BASE, published", "base", small=False),
            style("LARGE, published", "large", small=False),
        ]
    return found


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """All weights random, those of the norms too.

    Not larger: with matrices three times these, BASE's twelve layers average all frames into one, and what is left of
    the gradients of attention is mostly rounding, in which the libraries differ by 2 %.
    """
    for parameter in model.parameters():
        scale = 0.1 if parameter.dim() == 1 else 0.3 * parameter[0].numel() ** -0.5
        parameter.add_(scale * torch.randn_like(parameter))


def batch_for(style: Style) -> Batch:
    """Noise with texts, padded where the others can take it; else all are cut to one length."""
    lengths = [length if style.padding_safe else min(style.lengths) for length in style.lengths]
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list(LETTERS[1:]), length // 1600)) for length in lengths]
    return batch_of(noise(style.encoder, lengths), texts=texts)


def largest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Over all entries; NaN stays NaN."""
    differences = [(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(differences).max())


def valid_rows(values: Tensor, num_frames: Tensor) -> list[Tensor]:
    return [row[:t] for row, t in zip(values, num_frames.tolist(), strict=True)]


class Outputs(NamedTuple):
    """What a recogniser makes of the utterances: (T, D) or (T, V) each, valid frames only."""

    alone: list[Tensor]
    """context of each by itself"""
    batch: list[Tensor]
    """context of each in the batch"""
    logits: list[Tensor]
    """of each in the batch"""


def outputs(
    context: Callable[[Batch], Tensor],
    logits: Callable[[Batch], Tensor],
    batch: Batch,
    num_frames: Tensor,
) -> Outputs:
    """Run a model, given as what turns a batch into (B, T, D) context and into (B, T, V) logits."""
    utterances = valid_rows(batch.inputs, batch.input_lengths)
    alone = [context(batch_of([utterance]))[0] for utterance in utterances]
    return Outputs(
        alone, valid_rows(context(batch), num_frames), valid_rows(logits(batch), num_frames)
    )


def recogniser(style: Style, batch: Batch) -> CtcModel:
    """Random, but each token has its turn: otherwise one is best in nearly all frames."""
    torch.manual_seed(0)
    model = CtcModel(Encoder(style.encoder), CharTokenizer(LETTERS), "none-1", CtcConfig()).eval()
    randomise(model)
    model.head.bias.sub_(
        model.head(model.encoder(batch.inputs, batch.input_lengths).hidden).mean((0, 1))
    )
    return model


@torch.no_grad()
def recogniser_rows(style: Style) -> Iterator[Row]:
    """Encoder and CTC of both libraries."""
    batch = batch_for(style)
    model = recogniser(style, batch)
    num_frames = model.encoder.num_frames(batch.input_lengths)

    def our_context(heard: Batch) -> Tensor:
        hidden: Tensor = model.encoder(heard.inputs, heard.input_lengths).hidden
        return hidden

    ours = outputs(our_context, lambda heard: model.head(our_context(heard)), batch, num_frames)
    yield from transformers_rows(style, model, batch, ours)
    if not style.encoder.adapter_width:  # torchaudio has none
        yield from encoder_rows(style, "torchaudio", ours, torchaudio_outputs(style, model, batch))


def encoder_rows(
    style: Style, library: str, ours: Outputs, theirs: Outputs, note: str = ""
) -> Iterator[Row]:
    pairs = {
        "encoder output, alone": (ours.alone, theirs.alone),
        "encoder output, padded batch": (ours.batch, theirs.batch),
        "CTC logits": (ours.logits, theirs.logits),
    }
    if not style.padding_safe:
        del pairs["encoder output, padded batch"]
    for quantity, pair in pairs.items():
        yield Row(style.name, library, quantity + note, largest(*pair), 1e-5)


def transformers_rows(style: Style, model: CtcModel, batch: Batch, ours: Outputs) -> Iterator[Row]:
    theirs = ctc_twin(model)

    def given(heard: Batch) -> dict[str, Tensor]:
        inputs, attention = their_inputs(heard, style.encoder.normalise_input)
        return {"input_values": inputs.to(theirs.dtype), "attention_mask": attention}

    def found() -> Outputs:
        return outputs(
            lambda heard: theirs.wav2vec2(**given(heard)).last_hidden_state,
            lambda heard: theirs(**given(heard)).logits,
            batch,
            model.encoder.num_frames(batch.input_lengths),
        )

    single = found()
    yield from encoder_rows(style, "transformers", ours, single)
    targets = [torch.tensor(model.encode_text(text or "")) for text in batch.texts]
    labels = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    result, output = theirs(**given(batch), labels=labels), model(batch, 0)
    difference = abs(float(output.total - result.loss)) / output.weight
    yield Row(style.name, "transformers", "CTC loss per token", difference, 1e-5)
    # -1 = the end of an utterance
    ids = [
        i for own in greedy(*model.log_probs(batch), model.tokenizer.blank_id) for i in (*own, -1)
    ]
    expected = [i for own in single.logits for i in (*collapse(own.argmax(-1).tolist()), -1)]
    different = sum(a != b for a, b in zip_longest(ids, expected))
    quantity = f"greedy tokens, different of {len(expected) - len(targets)}"
    yield Row(style.name, "transformers", quantity, different, 0)
    if style.published:  # how much of the difference is float32's own
        theirs.double()
        double = found()
        yield from encoder_rows(style, "transformers in float64", ours, double)
        yield from encoder_rows(
            style, "transformers in float64", single, double, "; theirs in float32"
        )


def torchaudio_outputs(style: Style, model: CtcModel, batch: Batch) -> Outputs:
    tensors = to_dialect(model.state_dict(), style.encoder, "torchaudio")
    settings = their_settings(style.encoder)
    whole = their_model(settings, tensors)
    encoder = their_model(settings, {n: t for n, t in tensors.items() if not n.startswith("aux.")})

    def run(theirs: nn.Module, heard: Batch) -> Tensor:
        inputs, _ = their_inputs(heard, style.encoder.normalise_input)
        found: Tensor = theirs(inputs, heard.input_lengths if style.padding_safe else None)[0]
        return found

    num_frames = model.encoder.num_frames(batch.input_lengths)
    return outputs(partial(run, encoder), partial(run, whole), batch, num_frames)


def objective_rows(style: Style) -> Iterator[Row]:
    """Losses and gradients of pretraining, in training: same masks, negatives and Gumbel noise."""
    torch.manual_seed(0)
    model = Contrastive(
        Encoder(style.encoder), style.objective, style.quantizer, MaskConfig(), seed=3
    ).train()
    randomise(model)
    batch = batch_for(style)
    output = model(batch, STEP)
    output.total.backward()
    ours = objective_as_theirs(gradients(model), style.encoder)
    theirs, result = their_training(model, batch, STEP)
    result.loss.backward()
    metrics = {name: float(value) / output.weight for name, value in output.metrics.items()}
    pairs = {
        "contrastive loss per masked frame": (
            metrics["loss"],
            float(result.contrastive_loss.detach()) / output.weight,
        ),
        "diversity": (metrics["diversity"], float(result.diversity_loss.detach()) / output.weight),
        # Theirs is the sum over codebooks, ours the mean.
        "code perplexity": (
            style.quantizer.num_codebooks * metrics["code_perplexity"],
            float(result.codevector_perplexity.detach()),
        ),
    }
    for quantity, (own, other) in pairs.items():
        yield Row(style.name, "transformers", quantity, abs(own - other), 1e-4)
    yield from gradient_rows(style.name, ours, {n: p.grad for n, p in theirs.named_parameters()})


def gradient_rows(
    name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor | None]
) -> Iterator[Row]:
    """Relative to the largest entry of each gradient.

    The bias of the keys adds one number to all scores of a query, which the softmax does not see: its gradient is zero
    but for rounding, and what is left of it in either is compared with the gradient of the keys' weights.
    """
    assert ours.keys() == theirs.keys()
    relative, vanishing = [], []
    for parameter, expected in theirs.items():
        assert expected is not None, parameter
        if parameter.endswith("k_proj.bias"):
            scale = ours[parameter.replace("bias", "weight")].abs().max()
            vanishing.append(
                torch.maximum(ours[parameter].abs().max(), expected.abs().max()) / scale
            )
        else:
            relative.append((ours[parameter] - expected).abs().max() / expected.abs().max())
    entries = sum(gradient.numel() for gradient in ours.values())
    quantity = f"gradients of {len(relative)} parameters, {entries / 1e6:.1f} M entries, relative"
    yield Row(name, "transformers", quantity, float(torch.stack(relative).max()), 1e-3)
    quantity = f"gradients of {len(vanishing)} key biases, zero but for rounding"
    yield Row(name, "transformers", quantity, float(torch.stack(vanishing).max()), 1e-5)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--full", action="store_true", help="BASE and LARGE at their published sizes too"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = [
        row
        for one in styles(options.full)
        for rows_of in (recogniser_rows, objective_rows)
        for row in rows_of(one)
    ]
    cells = [
        (
            r.style,
            r.library,
            r.quantity,
            f"{r.difference:.2g}",
            f"{r.allowed:g}",
            "yes" if r.ok else "NO",
        )
        for r in rows
    ]
    print(
        text_table(("style", "library", "quantity", "largest difference", "allowed", "ok"), cells)
    )
    versions = ", ".join(
        f"{library.__name__} {library.__version__}" for library in (torch, torchaudio, transformers)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**30 if sys.platform == "darwin" else 2**20
    )
    print(
        f"{versions}; {options.threads} threads on {platform.machine()}; peak memory {peak:.1f} GiB"
    )
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
