"""Splits train, dev and test as the names of a corpus tell them."""

import re

STANDARD_SPLITS = ("train", "dev", "test")

# What corpora call our splits.
_OTHER_NAMES = {
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "devel": "dev",
    "development": "dev",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
    "training": "train",
}


def split_name(name: str | None) -> str | None:
    """Map a corpus's name of a split to ours.

    ``train-clean-100`` becomes train, ``dev-other`` and ``validation`` become dev. Another name
    stays as it is.
    """
    if not name:
        return None

    parts = re.split(r"[-_.]", name.lower())
    first_word = parts[0]
    split = _OTHER_NAMES.get(first_word, first_word)
    if split in STANDARD_SPLITS:
        return split
    return name


def split_of_folder(name: str) -> str | None:
    """Return train, dev or test where the name of a folder says so, and None for any other name."""
    split = split_name(name)
    if split in STANDARD_SPLITS:
        return split
    return None
