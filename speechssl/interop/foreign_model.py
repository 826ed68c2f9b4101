"""A model of another library on its way into ours: its files of weights, its order of tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speechssl.config import Table
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import CheckpointError

NEVER = (
    -1e4
)  # logit of a token that another library's head does not have: its probability is 0 in float32


@dataclass(frozen=True)
class Foreign:
    """A model of another library, read as one of ours."""

    encoder: EncoderConfig
    tensors: Mapping[str, Tensor]
    """under our names, ``encoder.`` before the encoder's; with a head a recogniser, with a codebook an objective"""
    run: Callable[[Tensor], tuple[Tensor, ...]]
    """(S,) float32 samples -> what the original computes of them, as ``convert.outputs`` lists it for ours"""
    tokens: tuple[str, ...] = ()
    """of a recogniser: texts by id, the blank and the unknown token first"""
    settings: Table | None = None
    """of an objective: tables ``quantizer`` and ``contrastive``"""


def our_token_order(
    names: Sequence[str], blank: int, unknown: int
) -> tuple[tuple[str, ...], list[int]]:
    """Tokens with the blank at 0 and the unknown token at 1, the others in their order.

    Args:
        names: text of each row of a foreign head.
        blank, unknown: their rows; -1 = there is none.

    Returns:
        the texts in our order, and for each its row; -1 for an unknown token that is not there.

    Raises:
        CheckpointError: there is no row for the blank.
    """
    if blank < 0:
        raise CheckpointError(
            "the vocabulary has no id within the CTC head for its padding token, which is the blank"
        )
    rows = [blank, unknown, *(row for row in range(len(names)) if row not in (blank, unknown))]
    return tuple(names[row] if row >= 0 else "<unk>" for row in rows), rows


def take_rows(values: Tensor, rows: Sequence[int], absent: float) -> Tensor:
    """``values[..., rows]`` along the last axis, with ``absent`` where the row is -1."""
    taken = values[..., [max(0, row) for row in rows]]
    return taken.masked_fill(torch.tensor([row < 0 for row in rows]), absent)


def with_rows(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Our tensors with the rows of the head in this order; -1 becomes a token that is never recognised."""
    weight = take_rows(tensors["head.weight"].T, rows, 0.0).T.contiguous()
    return {
        **tensors,
        "head.weight": weight,
        "head.bias": take_rows(tensors["head.bias"], rows, NEVER),
    }
