"""Seeds and random generators, derived from names: every random draw belongs to something."""

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed that depends on every part: stable across processes, unlike ``hash``."""
    # A separator that no part holds: ("a", "b") and ("ab",) are two seeds.
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.sha256(text.encode()).digest()

    # torch takes signed 64-bit seeds: the lowest bit is dropped.
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Make random numbers that depend only on ``parts``.

    Args:
        parts: such as ("masks", seed, step, utterance key). A purpose among them keeps streams
            apart: a crop and a mask of one utterance and step must not be correlated.
    """
    # Hashed first: SeedSequence takes (1, 0) and (1,) for the same seed.
    seed = np.random.SeedSequence(derive_seed(*parts))
    return np.random.Generator(np.random.SFC64(seed))
