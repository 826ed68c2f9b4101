"""Prepare a folder of recordings, and look into the store that comes of it.

    python examples/prepare_and_look.py RECORDINGS STORE

RECORDINGS is anything that ``speechssl prepare`` reads, such as a folder of audio files. To try it
without data, make some with ``python examples/made_up_speech.py RECORDINGS``.
"""

import sys
from pathlib import Path

import speechssl as ssl


def main(recordings: Path, store: Path) -> None:
    # The manifest: one record for each recording, with its text, speaker and split where known.
    manifest = ssl.scan(recordings)
    print(f"{len(manifest.records)} recordings, the first one: {manifest.records[0]}")

    # The report accounts for every sample: kept, or dropped for a reason.
    report = ssl.prepare(manifest, store)
    print(report.table())

    # A store is a sequence of chunks. Each has a record and an array of features.
    opened = ssl.Store(store)
    chunk = opened.record(0)
    features = opened.array(0)
    print(f"chunk {chunk.id}: {chunk.duration_s:.2f} s, split {chunk.split}, text {chunk.text!r}")
    print(f"its features: {features.shape} {features.dtype}, mean {features.mean():.2f}")

    # A data set chooses splits of one or more stores.
    for split in ("train", "dev", "test"):
        chosen = ssl.Dataset([opened], [split])
        print(f"{split}: {chosen.seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
