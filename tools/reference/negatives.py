"""Which frames may be negatives, in sets of frames."""

import numpy as np
from numpy.typing import NDArray

Frame = tuple[int, int]
"""Row of the batch, frame."""


def candidates(mask: NDArray[np.bool_], num_frames: list[int]) -> dict[Frame, set[Frame]]:
    """List the possible negatives of every masked frame.

    They are the other masked frames of its utterance, padding excluded.
    """
    masked = {(int(row), int(t)) for row, t in np.argwhere(mask) if t < num_frames[row]}

    found: dict[Frame, set[Frame]] = {}
    for frame in masked:
        own_row = {other for other in masked if other[0] == frame[0]}
        found[frame] = own_row - {frame}
    return found


def faults(
    mask: NDArray[np.bool_],
    num_frames: list[int],
    slots: NDArray[np.int64],
    valid: NDArray[np.bool_],
    negatives: NDArray[np.int64],
) -> list[str]:
    """Say what is wrong with the draws of a batch; nothing if all is well.

    Args:
        mask: (B, T) True = masked.
        slots: (B, M) frame in the flattened (B T).
        valid: (B, M) True = a frame that takes part.
        negatives: (B, M, K) places among 0..M-1 of the same row.
    """
    found: list[str] = []
    for row, t in np.argwhere(mask).tolist():
        if t >= num_frames[row]:
            found.append(f"padding is masked: {row, t}")

    width = mask.shape[1]
    seen: list[Frame] = []
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

    # A masked frame without any other to compare with takes no part.
    others_of = candidates(mask, num_frames)
    expected = sorted(frame for frame, others in others_of.items() if others)
    if sorted(seen) != expected:
        found.append("the frames that take part are not the masked ones")
    return found
