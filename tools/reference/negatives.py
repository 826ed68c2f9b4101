"""Which frames may be negatives, in sets of frames."""

import numpy as np
from numpy.typing import NDArray

Frame = tuple[int, int]
"""Row of the batch, frame."""


def candidates(mask: NDArray[np.bool_], num_frames: list[int]) -> dict[Frame, set[Frame]]:
    """Of every masked frame: the other masked frames of its utterance, padding excluded."""
    masked = {(int(row), int(t)) for row, t in np.argwhere(mask) if t < num_frames[row]}
    return {
        frame: {other for other in masked if other[0] == frame[0] and other != frame}
        for frame in masked
    }


def faults(
    mask: NDArray[np.bool_],
    num_frames: list[int],
    slots: NDArray[np.int64],
    valid: NDArray[np.bool_],
    negatives: NDArray[np.int64],
) -> list[str]:
    """What is wrong with the draws of a batch, in words; nothing if all is well.

    Args:
        mask: (B, T) True = masked.
        slots: (B, M) frame in the flattened (B T).
        valid: (B, M) True = a frame that takes part.
        negatives: (B, M, K) places among 0..M-1 of the same row.
    """
    width = mask.shape[1]
    found = [
        f"padding is masked: {row, t}"
        for row, t in np.argwhere(mask).tolist()
        if t >= num_frames[row]
    ]
    seen = []
    for row, m in np.argwhere(valid).tolist():
        frame = divmod(int(slots[row, m]), width)
        seen.append(frame)
        for place in negatives[row, m].tolist():
            other = divmod(int(slots[row, place]), width)
            if other == frame:
                found.append(f"{frame} is its own negative")
            if other[0] != frame[0]:
                found.append(f"{frame} has a negative of another utterance: {other}")
            if other[1] >= num_frames[other[0]]:
                found.append(f"{frame} has a negative in the padding: {other}")
            if not mask[other]:
                found.append(f"{frame} has a negative that is not masked: {other}")
            if not valid[row, place]:
                found.append(f"{frame} has a negative at an empty place: {place}")
    expected = sorted(frame for frame, others in candidates(mask, num_frames).items() if others)
    return found + (
        [] if sorted(seen) == expected else ["the frames that take part are not the masked ones"]
    )
