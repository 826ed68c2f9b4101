"""Files of folders, and records whose own checksum is right."""

import json
from hashlib import sha256
from pathlib import Path

from speechssl.storage.saved_folders import RECORD


def seal(folder: Path, record: dict[str, object]) -> None:
    """A record whose own checksum is right, whatever it says."""
    body = json.dumps(record, sort_keys=True)
    sealed = {"sha256": sha256(body.encode()).hexdigest(), "record": record}
    (folder / RECORD).write_text(json.dumps(sealed, indent=1, sort_keys=True) + "\n")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
