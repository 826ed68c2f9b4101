"""Takes note of what looks like transcripts and is not read: columns of tables, and others."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechssl.corpus.columns import Columns, names_a_transcript
from speechssl.corpus.manifest import printable
from speechssl.corpus.transcripts import is_sentence, says_nothing

# Different cells of a column that are remembered: as many show whether they are sentences.
_MOST_CELLS = 1000

# Files that a message names.
_NUM_SHOWN = 5


class UnusedTranscripts:
    """What the readers of a source found, and did not read.

    Attributes:
        read_files: the files that were read as transcripts or tables.
        recording_ids: the names that a manifest gives to recordings of which it lists the parts.
    """

    def __init__(self) -> None:
        self.read_files: set[Path] = set()
        self.recording_ids: set[str] = set()
        self._files: set[Path] = set()
        self._notes: list[str] = []
        # The others are by file and column.
        self._transcripts: Counter[tuple[Path, str]] = Counter()
        self._sentences: Counter[tuple[Path, str]] = Counter()
        self._different: dict[tuple[Path, str], set[str]] = defaultdict(set)
        self._rows_without_text: Counter[Path] = Counter()

    def note(self, what: str) -> None:
        """Take note of transcripts that are in no column."""
        self._notes.append(what)

    def note_files(self, files: Sequence[Path]) -> None:
        """Take note of files that look like transcripts."""
        self._files.update(files)

    def add(self, path: Path, row: Mapping[str, Any], columns: Columns) -> None:
        """Look at the cells of a row that are not read.

        A column counts by its name, or by its cells: sentences in rows that have no transcript.
        """
        text = None if columns.text is None else row[columns.text]
        has_text = isinstance(text, str) and not says_nothing(text)
        if not has_text:
            self._rows_without_text[path] += 1

        for name in columns.others:
            cell = _as_text(row[name])
            # A copy of the transcript that is read adds nothing to it.
            if says_nothing(cell) or cell == text:
                continue

            place = (path, name)
            if names_a_transcript(name):
                self._transcripts[place] += 1
            elif not has_text and is_sentence(cell.split()):
                self._sentences[place] += 1
                different = self._different[place]
                if len(different) < _MOST_CELLS:
                    different.add(cell)

    def found(self) -> list[str]:
        """Name what looks like transcripts: columns with the numbers of their cells, and notes."""
        counts = dict(self._transcripts)
        for place, count in self._sentences.items():
            path, _ = place
            is_in_most_rows = 2 * count >= self._rows_without_text[path]
            differs = 2 * len(self._different[place]) > min(count, _MOST_CELLS)
            if is_in_most_rows and differs:
                counts[place] = count

        columns = [f"{count} cells of {name!r} in {path}" for (path, name), count in counts.items()]
        return columns + self._notes + _named(sorted(self._files))


def _named(files: Sequence[Path]) -> list[str]:
    """Count files, and name the first ones."""
    if not files:
        return []
    names = ", ".join(printable(str(path)) for path in files[:_NUM_SHOWN])
    dots = " and more" if len(files) > _NUM_SHOWN else ""
    return [f"{len(files)} files ({names}{dots}){_conversion(files)}"]


def _conversion(files: Sequence[Path]) -> str:
    """Name the command that makes a table which is read of the first Parquet table among files."""
    parquet = next((path for path in files if path.suffix.lower() == ".parquet"), None)
    if parquet is None:
        return ""

    # A file of another name would not be read either.
    table = parquet.with_name("metadata.csv")
    given, made = repr(str(parquet)), repr(str(table))
    code = f"import pandas; pandas.read_parquet({given}).to_csv({made}, index=False)"
    command = printable(f"python -c {shlex.quote(code)}")
    return f"; this command converts Parquet (it needs pandas and pyarrow): {command}"


def _as_text(cell: Any) -> str:
    if isinstance(cell, str):
        return cell.strip()
    # Lists of words or of sentences are transcripts too; numbers and truth values are none.
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else ""
