"""Whether what a verb reads is there: said before the libraries that read it are imported."""

from collections.abc import Iterable
from pathlib import Path

from speechssl.data.store import read_meta
from speechssl.storage.saved_folders import model_folder


def check_stores(paths: Iterable[Path]) -> None:
    """See that these are finished stores.

    Raises:
        ManifestError: one is not.
    """
    for path in paths:
        read_meta(path)


def check_models(*paths: Path | None) -> None:
    """See that these are model folders, or finished runs; None is passed over.

    Raises:
        CheckpointError: one is not.
    """
    for path in paths:
        if path is not None:
            model_folder(path)
