"""Largest differences between our numbers and those of transformers and torchaudio, as a table.

    python tools/differences.py [--full] [--threads 2]

All have equal random weights, in float32, on the processor. --full adds BASE and LARGE at their
published sizes: minutes, and 8 GiB. Exit code 1 if a number is further away than is allowed.
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
from speechssl.data.collate import Batch
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
from speechssl.text.character_tokenizer import CharTokenizer

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
        """Whether the difference is allowed; NaN is not."""
        return self.difference <= self.allowed


def style(name: str, preset: str, small: bool, **changes: object) -> Style:
    """Make a published model, or its like in small.

    It is without dropout, and with nothing that transformers cannot switch off.
    """
    table = read_preset(preset)
    published: Table = table["pretrain"]

    encoder = table["encoder"] | STILL
    without_penalty = {"penalty_weight": 0.0, "front_end_gradient": 1.0}
    objective = published.get("contrastive", {}) | without_penalty
    quantizer = dict(published.get("quantizer", {}))
    lengths = (48_000, 32_001)
    if small:
        encoder |= SMALL
        objective |= SMALL_OBJECTIVE
        quantizer |= SMALL_QUANTIZER
        lengths = (16_000, 12_345, 9_001)

    return Style(
        name,
        build(EncoderConfig, encoder | changes),
        build(ContrastiveConfig, objective),
        build(QuantizerConfig, quantizer),
        lengths,
        published=not small,
    )


def styles(full: bool) -> list[Style]:
    """List the models that are compared; ``full``: those of published sizes too."""
    found = [
        style("BASE, small", "base", small=True),
        style("LARGE, small", "large", small=True),
        style("LARGE with adapters, small", "large", small=True, adapter_width=16),
    ]
    if full:
        found.append(style("BASE, published", "base", small=False))
        found.append(style("LARGE, published", "large", small=False))
    return found


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Make all weights random, those of the norms too.

    Not larger: with matrices three times these, BASE's twelve layers average all frames into one,
    and what is left of the gradients of attention is mostly rounding, in which the libraries differ
    by 2 %.
    """
    for parameter in model.parameters():
        is_vector = parameter.dim() == 1
        scale = 0.1 if is_vector else 0.3 * parameter[0].numel() ** -0.5
        parameter.add_(scale * torch.randn_like(parameter))


def batch_for(style: Style) -> Batch:
    """Make a batch of noise with texts.

    It is padded where the other libraries can take that; else all are cut to one length.
    """
    lengths = list(style.lengths)
    if not style.padding_safe:
        lengths = [min(lengths)] * len(lengths)

    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list(LETTERS[1:]), length // 1600)) for length in lengths]
    return batch_of(noise(style.encoder, lengths), texts=texts)


def largest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Find the largest difference over all entries; NaN stays NaN."""
    differences = [(own - other).abs().max() for own, other in zip(ours, theirs, strict=True)]
    return float(torch.stack(differences).max())


def valid_rows(values: Tensor, num_frames: Tensor) -> list[Tensor]:
    """Cut the padding off each row of a batch."""
    return [row[:t] for row, t in zip(values, num_frames.tolist(), strict=True)]


class Outputs(NamedTuple):
    """The outputs of a recogniser: (T, D) or (T, V) for each utterance, valid frames only."""

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
    """Run a model, given as functions from a batch to (B, T, D) context and (B, T, V) logits."""
    utterances = valid_rows(batch.inputs, batch.input_lengths)
    alone = [context(batch_of([utterance]))[0] for utterance in utterances]
    together = valid_rows(context(batch), num_frames)
    return Outputs(alone, together, valid_rows(logits(batch), num_frames))


@torch.no_grad()
def recogniser(style: Style, batch: Batch) -> CtcModel:
    """Make a random recogniser in whose outputs each token has its turn."""
    torch.manual_seed(0)
    model = CtcModel(Encoder(style.encoder), CharTokenizer(LETTERS), "none-1", CtcConfig()).eval()
    randomise(model)

    # Otherwise one token is best in nearly all frames.
    hidden = model.encoder(batch.inputs, batch.input_lengths).hidden
    model.head.bias.sub_(model.head(hidden).mean((0, 1)))
    return model


@torch.no_grad()
def recogniser_rows(style: Style) -> Iterator[Row]:
    """Compare encoder and CTC with both libraries."""
    batch = batch_for(style)
    model = recogniser(style, batch)
    num_frames = model.encoder.num_frames(batch.input_lengths)

    def our_context(heard: Batch) -> Tensor:
        hidden: Tensor = model.encoder(heard.inputs, heard.input_lengths).hidden
        return hidden

    def our_logits(heard: Batch) -> Tensor:
        logits: Tensor = model.head(our_context(heard))
        return logits

    ours = outputs(our_context, our_logits, batch, num_frames)
    yield from transformers_rows(style, model, batch, ours)

    # torchaudio has no adapters.
    if not style.encoder.adapter_width:
        yield from encoder_rows(style, "torchaudio", ours, torchaudio_outputs(style, model, batch))


def encoder_rows(
    style: Style, library: str, ours: Outputs, theirs: Outputs, note: str = ""
) -> Iterator[Row]:
    """Compare outputs with those of one library."""
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
    """Compare outputs, the CTC loss and greedy tokens with transformers."""
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
    # transformers takes -100 for padding.
    labels = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    result = theirs(**given(batch), labels=labels)
    output = model(batch, 0)
    difference = abs(float(output.total - result.loss)) / output.weight
    yield Row(style.name, "transformers", "CTC loss per token", difference, 1e-5)

    yield greedy_row(style, model, batch, single)

    if style.published:
        # How much of the difference is float32's own.
        in_double = "transformers in float64"
        theirs.double()
        double = found()
        yield from encoder_rows(style, in_double, ours, double)
        yield from encoder_rows(style, in_double, single, double, "; theirs in float32")


def greedy_row(style: Style, model: CtcModel, batch: Batch, theirs: Outputs) -> Row:
    """Count greedy tokens that differ from those of transformers' logits."""
    # Ends the tokens of an utterance, so that they are compared with those of the same one.
    end = -1
    ids: list[int] = []
    for own in greedy(*model.log_probs(batch), model.tokenizer.blank_id):
        ids += [*own, end]

    expected: list[int] = []
    for logits in theirs.logits:
        expected += [*collapse(logits.argmax(-1).tolist()), end]

    num_different = sum(one != other for one, other in zip_longest(ids, expected))
    num_tokens = len(expected) - len(theirs.logits)
    quantity = f"greedy tokens, different of {num_tokens}"
    return Row(style.name, "transformers", quantity, num_different, 0)


def torchaudio_outputs(style: Style, model: CtcModel, batch: Batch) -> Outputs:
    """Run torchaudio's model with our weights, with its head and without."""
    tensors = to_dialect(model.state_dict(), style.encoder, "torchaudio")
    without_head = {n: t for n, t in tensors.items() if not n.startswith("aux.")}
    settings = their_settings(style.encoder)
    whole = their_model(settings, tensors)
    encoder = their_model(settings, without_head)

    def run(theirs: nn.Module, heard: Batch) -> Tensor:
        inputs, _ = their_inputs(heard, style.encoder.normalise_input)
        found: Tensor = theirs(inputs, heard.input_lengths if style.padding_safe else None)[0]
        return found

    num_frames = model.encoder.num_frames(batch.input_lengths)
    return outputs(partial(run, encoder), partial(run, whole), batch, num_frames)


def objective_rows(style: Style) -> Iterator[Row]:
    """Compare losses and gradients of pretraining: same masks, negatives and Gumbel noise."""
    torch.manual_seed(0)
    encoder = Encoder(style.encoder)
    model = Contrastive(encoder, style.objective, style.quantizer, MaskConfig(), seed=3).train()
    randomise(model)

    batch = batch_for(style)
    output = model(batch, STEP)
    output.total.backward()
    ours = objective_as_theirs(gradients(model), style.encoder)
    metrics = {name: float(value) / output.weight for name, value in output.metrics.items()}

    theirs, result = their_training(model, batch, STEP)
    result.loss.backward()
    contrastive_loss = float(result.contrastive_loss.detach()) / output.weight
    diversity_loss = float(result.diversity_loss.detach()) / output.weight

    # Theirs is the sum over codebooks, ours the mean.
    code_perplexity = style.quantizer.num_codebooks * metrics["code_perplexity"]
    pairs = {
        "contrastive loss per masked frame": (metrics["loss"], contrastive_loss),
        "diversity": (metrics["diversity"], diversity_loss),
        "code perplexity": (code_perplexity, float(result.codevector_perplexity.detach())),
    }
    for quantity, (own, other) in pairs.items():
        yield Row(style.name, "transformers", quantity, abs(own - other), 1e-4)

    yield from gradient_rows(style.name, ours, {n: p.grad for n, p in theirs.named_parameters()})


def gradient_rows(
    name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor | None]
) -> Iterator[Row]:
    """Compare gradients, relative to the largest entry of each.

    The bias of the keys adds one number to all scores of a query, which the softmax does not see:
    its gradient is zero but for rounding, and what is left of it in either is compared with the
    gradient of the keys' weights.
    """
    assert ours.keys() == theirs.keys()
    relative = []
    vanishing = []
    for parameter, expected in theirs.items():
        assert expected is not None, parameter
        own = ours[parameter]
        if parameter.endswith("k_proj.bias"):
            scale = ours[parameter.replace("bias", "weight")].abs().max()
            vanishing.append(torch.maximum(own.abs().max(), expected.abs().max()) / scale)
        else:
            relative.append((own - expected).abs().max() / expected.abs().max())

    entries = sum(gradient.numel() for gradient in ours.values())
    quantity = f"gradients of {len(relative)} parameters, {entries / 1e6:.1f} M entries, relative"
    yield Row(name, "transformers", quantity, float(torch.stack(relative).max()), 1e-3)
    quantity = f"gradients of {len(vanishing)} key biases, zero but for rounding"
    yield Row(name, "transformers", quantity, float(torch.stack(vanishing).max()), 1e-5)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    full_help = "BASE and LARGE at their published sizes too"
    parser.add_argument("--full", action="store_true", help=full_help)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    rows: list[Row] = []
    for one in styles(options.full):
        rows += recogniser_rows(one)
        rows += objective_rows(one)

    print(as_table(rows))
    libraries = (torch, torchaudio, transformers)
    versions = ", ".join(f"{library.__name__} {library.__version__}" for library in libraries)
    print(
        f"{versions}; {options.threads} threads on {platform.machine()}; "
        f"peak memory {peak_gib():.1f} GiB"
    )
    return 0 if all(row.ok for row in rows) else 1


def as_table(rows: Sequence[Row]) -> str:
    """Write all rows as a Markdown table."""
    cells = []
    for row in rows:
        numbers = (f"{row.difference:.2g}", f"{row.allowed:g}")
        cells.append((row.style, row.library, row.quantity, *numbers, "yes" if row.ok else "NO"))
    header = ("style", "library", "quantity", "largest difference", "allowed", "ok")
    return text_table(header, cells)


def peak_gib() -> float:
    """Measure what this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB elsewhere.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return peak / unit


if __name__ == "__main__":
    raise SystemExit(main())
