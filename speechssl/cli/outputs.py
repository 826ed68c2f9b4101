"""Whether a file may be written, before the work for it is done."""

from collections.abc import Iterable
from pathlib import Path

from speechssl.data.store import is_store
from speechssl.errors import ConfigError
from speechssl.storage.atomic import check_is_file
from speechssl.storage.compression import COMPRESSED_SUFFIXES


def check_output(out: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """See that a file may be written: better before the work than after it.

    Args:
        force: a file that is there may be replaced.
        inputs: what the command reads, which is never replaced.

    Raises:
        ConfigError: it may not.
    """
    if out.exists() and any(_is_read(out, path) for path in inputs):
        raise ConfigError(
            f"--out would replace {out}, which this command reads: give another --out"
        )
    check_plain(out)
    check_is_file(out, "--out")
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already: give another --out, or --force")


def check_plain(out: Path) -> None:
    """See that a name does not promise a compressed file: readers would believe it.

    Raises:
        ConfigError: it does.
    """
    suffix = out.suffix.lower()
    if suffix in COMPRESSED_SUFFIXES:
        raise ConfigError(
            f"{out} would not be compressed: give --out without {suffix}, and compress the file "
            "afterwards"
        )


def _is_read(out: Path, path: Path) -> bool:
    """Whether a file is an input itself, or one of the files of a store that is one."""
    if is_store(path):
        return out.resolve().is_relative_to(path.resolve())
    return path.exists() and path.samefile(out)
