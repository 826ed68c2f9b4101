"""Seeds and generators: stable, and none shares a stream with another."""

import numpy as np

from speechssl.runtime.seeds import derive_seed, generator


def test_seeds_are_stable_and_depend_on_every_part() -> None:
    assert derive_seed(0, "weights") == 863023461364182508  # from sha256sum, by hand
    seeds = {
        derive_seed(*parts)
        for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (10,), ("a", "b"), ("ab",)]
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_never_share_a_stream() -> None:
    """Also for trailing zeros, which numpy's own seed sequence does not see."""
    streams = [
        (0,),
        (0, 0),
        (0, 0, 0),
        (1,),
        (1, 0),
        (2**62, 5),
        (5, 2**62),
        ("masks", 0, 0),
        ("crop", 0, 0),
    ]

    drawn = {generator(*parts).random() for parts in streams}
    assert len(drawn) == len(streams)

    assert (generator("masks", 3, 4).random(5) == generator("masks", 3, 4).random(5)).all()


def test_neighbouring_generators_are_uncorrelated() -> None:
    draws = np.array([generator("masks", 0, step).random(2000) for step in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.1
