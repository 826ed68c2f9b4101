"""How threads wait, decided before torch and numpy are imported: this imports nothing heavy."""

import os

# Variables by which a user chooses how OpenMP threads wait, of any OpenMP library.
WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Let OpenMP threads sleep while they wait for each other, unless the user has chosen.

    By default they spin at the end of each small loop, also while a neighbour needs their core.
    Measured on 2 cores, beside one other training of one thread, in seconds of audio a second: 2.4
    with the default policy, 88 with passive waiting, 95 with one thread alone. On an idle machine
    passive waiting costs a quarter of the speed: 93 to 103 instead of 122 to 155.

    OpenMP reads the variable once, when it is loaded: call this before torch and numpy are
    imported.
    """
    if not any(name in os.environ for name in WAIT_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "passive"
