"""How loud the speech of an utterance is, told from its log-mel rows.

Shapes: B utterances, U rows (mel frames) of the padded batch, F mel bins.
"""

import torch
from torch import Tensor

from speechssl.encoder.padding import valid_mask

# The more, the less do quiet rows count: see ``speech_level``.
_SHARPNESS = 2.0


def speech_level(rows: Tensor, num_valid: Tensor) -> Tensor:
    """Return the level of the loud rows of each utterance, which are those of speech.

        r(u)  = mean over the bins of row u
        level = ln(mean over u of exp(2 r(u))) / 2

    A mean over all rows would fall with each second of silence around the speech. Here a recording
    that is half silence has a level of 0.35 less, which is 1.5 dB. As r(u) is a mean of logarithms,
    a hum in a few bins hardly counts.

    Args:
        rows: (B, U, F) log-mel.
        num_valid: (B,) int64 on the host, valid rows.

    Returns:
        (B,) in nats of power, as the rows.
    """
    valid = valid_mask(num_valid, rows.shape[1], rows.device)
    count = num_valid.to(rows.device, non_blocking=True)
    count = count.clamp_min(1)

    sharpened = _SHARPNESS * rows.mean(2)  # (B, U)
    # The least number rather than minus infinity: without valid rows nothing may become NaN.
    least = torch.finfo(sharpened.dtype).min
    sharpened = sharpened.masked_fill(~valid, least)

    total = sharpened.logsumexp(1)
    level: Tensor = (total - count.log()) / _SHARPNESS
    return level
