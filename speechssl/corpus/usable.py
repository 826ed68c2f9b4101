"""Which recordings of a manifest can be used, as far as a first look at their files tells."""

from dataclasses import replace

from speechssl.audio.first_look import why_unusable
from speechssl.corpus.manifest import Manifest, Record


def usable_part(manifest: Manifest) -> Manifest:
    """Leave out the records whose file is missing, empty, or of a kind that is not read.

    Nothing is decoded, so a file that is damaged further behind stays. So do all records where no
    file at all can be used: then the manifest was perhaps moved away from its audio.
    """
    audio = {record.audio for record in manifest.records}
    usable = {path for path in audio if not why_unusable(manifest.root / path)}
    if not usable:
        return manifest

    records = tuple(record for record in manifest.records if record.audio in usable)
    return replace(manifest, records=records)


def with_unusable(usable: Manifest, whole: Manifest) -> Manifest:
    """Add the records that ``usable_part`` left out of a manifest, in their places.

    Those without a split are counted to train: they will be rejects, and measure nothing.
    """
    known = {record.id: record for record in usable.records}
    records: list[Record] = []
    for record in whole.records:
        left_out = replace(record, split=record.split or "train")
        records.append(known.get(record.id, left_out))
    return replace(whole, records=tuple(records))
