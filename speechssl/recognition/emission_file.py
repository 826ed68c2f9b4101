"""The log-probabilities of a whole dataset, kept on the disk to be searched again and again."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.recognition.decoders import Emissions


class _Batch(NamedTuple):
    """What is known of a batch without its log-probabilities."""

    ids: tuple[str, ...]
    shape: tuple[int, ...]
    num_outputs: Tensor


class EmissionFile:
    """Batches of emissions in a file that has no name: it is gone when the process ends, however.

    In memory, an hour of speech and 4,000 characters would take 8 GB. Here one batch at a time is
    in memory. What is read is equal to the bit to what was written.

    >>> with EmissionFile(emissions(model, dataset)) as batches:
    ...     for batch in batches: ...
    """

    def __init__(self, batches: Iterable[Emissions], folder: Path | None = None) -> None:
        """Write all batches.

        Args:
            folder: on whose disk the file lies; None takes that of temporary files, which may be
                memory.
        """
        self._batches: list[_Batch] = []
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed with the object

        for batch in batches:
            rows = batch.log_probs.float().cpu().contiguous().numpy()
            self._file.write(rows.data)
            self._batches.append(_Batch(batch.ids, rows.shape, batch.num_outputs.cpu()))

    def __iter__(self) -> Iterator[Emissions]:
        """Read the batches in their order, on the CPU."""
        place = 0
        for batch in self._batches:
            rows = np.empty(batch.shape, dtype=np.float32)
            self._file.seek(place)
            self._file.readinto(rows.data)
            place += rows.nbytes
            yield Emissions(batch.ids, torch.from_numpy(rows), batch.num_outputs)

    def __enter__(self) -> "EmissionFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
