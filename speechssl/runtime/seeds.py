"""Seeds and random generators, derived from names: every draw belongs to something."""

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: stable across processes, unlike ``hash``."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Random numbers that depend only on ``parts``, such as ("masks", seed, step, utterance key).

    A purpose among the parts keeps streams apart: a crop and a mask of one utterance and step must not be correlated.
    """
    # Hashed first: SeedSequence takes (1, 0) and (1,) for the same seed.
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(derive_seed(*parts))))
