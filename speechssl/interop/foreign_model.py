"""What every other library's model is read into, and how its tokens get our order.

Shapes: S samples, V tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speechssl.config import Table
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import CheckpointError

# Logit of a token that another library's head does not have: its probability is 0 in float32.
NEVER = -1e4


@dataclass(frozen=True)
class Foreign:
    """A model of another library, read as one of ours.

    It is a recogniser if ``tensors`` hold a head, a pretext task if they hold a codebook, and an
    encoder alone otherwise.
    """

    encoder: EncoderConfig
    tensors: Mapping[str, Tensor]
    """Weights under our names, with ``encoder.`` before those of the encoder."""
    run: Callable[[Tensor], tuple[Tensor, ...]]
    """(S,) float32 samples -> what the original computes, in the order of ``convert.outputs``."""
    tokens: tuple[str, ...] = ()
    """Of a recogniser: texts by id, the blank and the unknown token first."""
    settings: Table | None = None
    """Of a pretext task: the tables ``quantizer`` and ``contrastive``."""


def our_token_order(
    names: Sequence[str], blank: int, unknown: int
) -> tuple[tuple[str, ...], list[int]]:
    """Put the blank at 0 and the unknown token at 1, and keep the order of the others.

    Args:
        names: text of each row of a foreign head.
        blank: its row; -1 = there is none.
        unknown: its row; -1 = there is none.

    Returns:
        texts: of our tokens in our order.
        rows: the row of each; -1 for an unknown token that is not there.

    Raises:
        CheckpointError: there is no row for the blank.
    """
    if blank < 0:
        raise CheckpointError(
            "the vocabulary has no id within the CTC head for its padding token, which is the blank"
        )

    others = [row for row in range(len(names)) if row not in (blank, unknown)]
    rows = [blank, unknown, *others]
    texts = tuple(names[row] if row >= 0 else "<unk>" for row in rows)
    return texts, rows


def take_rows(values: Tensor, rows: Sequence[int], absent: float) -> Tensor:
    """Take ``values[..., rows]`` along the last axis, with ``absent`` where the row is -1."""
    indices = [max(0, row) for row in rows]
    is_absent = torch.tensor([row < 0 for row in rows])
    return values[..., indices].masked_fill(is_absent, absent)


def with_rows(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Put the rows of the head into this order; -1 becomes a token that is never recognised.

    Args:
        tensors: under our names; ``head.weight`` is (V, D), ``head.bias`` (V,).
    """
    # take_rows picks along the last axis, and the tokens are the first one of a weight.
    weight = take_rows(tensors["head.weight"].T, rows, 0.0).T.contiguous()
    bias = take_rows(tensors["head.bias"], rows, NEVER)
    return {**tensors, "head.weight": weight, "head.bias": bias}
