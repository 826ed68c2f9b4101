"""Which split each recording of a store gets, and what is said about it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.corpus.shares import sizes_of
from speechssl.corpus.split_names import STANDARD_SPLITS
from speechssl.corpus.splits import draw_splits, reopen_train
from speechssl.corpus.usable import usable_part, with_unusable
from speechssl.data.rejects import first_few, read_rejects
from speechssl.data.settings import PrepareConfig
from speechssl.data.store import Store
from speechssl.runtime.log import log
from speechssl.text.normalise import DEFAULT_NORMALISER, normalise

# Version of what prepare does. Raise it when the same recordings and settings give other bytes, so
# that a store of the old version is not taken for finished. 2: splits look at sizes, texts that say
# nothing are no transcripts, silence and levels are judged from the surroundings. 3: bangs are
# lowered, and tables without splits take them from their paths. 4: recordings that cannot be used
# take no part in the drawing of splits. 5: the same for what only decoding rejects, where it was
# all of a drawn split.
RECIPE = 4
RECIPE_OF_DRAWN_AGAIN = 5

# The version before it, which gives the same where all recordings can be used.
_RECIPE_OF_ALL_RECORDS = 3

# Share of dev and of test where some recordings have transcripts and the settings say nothing.
_DEFAULT_SHARE = 0.1


@dataclass(frozen=True)
class Division:
    """A manifest with a split for every record.

    Attributes:
        manifest: all records, each with a split.
        given: those whose files can be used, as they were read.
        drawn: the same with their splits.
        recipe: version of the rules that gave the splits.
    """

    manifest: Manifest
    given: Manifest
    drawn: Manifest
    recipe: int


def divide(manifest: Manifest, config: PrepareConfig) -> Division:
    """Assign a split to every record of a manifest; see ``with_splits``.

    Recordings that cannot be used take no part: a missing one in dev would leave dev without it.
    """
    asks_for_splits = manifest.labelled or config.dev or config.test
    if not asks_for_splits:
        # All is train, and no file is looked at before its turn.
        divided = with_splits(manifest, config)
        return Division(divided, manifest, divided, _RECIPE_OF_ALL_RECORDS)

    usable = usable_part(manifest)
    drawn = with_splits(usable, config)

    # A store that the older rules made stays as it is where they give the same.
    by_older_rules = drawn
    if len(usable.records) < len(manifest.records):
        by_older_rules = with_splits(manifest, config)
    if set(drawn.records) <= set(by_older_rules.records):
        return Division(by_older_rules, usable, drawn, _RECIPE_OF_ALL_RECORDS)

    return Division(with_unusable(drawn, manifest), usable, drawn, RECIPE)


def divide_again(
    first: Division, config: PrepareConfig, rejected: Collection[str]
) -> Division | None:
    """Draw the splits again without what was rejected, where that is all of a drawn split.

    Args:
        first: what ``divide`` gave for these settings.
        rejected: ids of the records of which nothing could be used.

    Returns:
        None where the first division does, or drawing again would leave a split empty too.
    """
    pairs = zip(first.given.records, first.drawn.records, strict=True)
    drawn = _measured(after for before, after in pairs if before.split != after.split)
    kept = _measured(record for record in first.drawn.records if record.id not in rejected)
    if drawn <= kept:
        return None

    left = tuple(record for record in first.given.records if record.id not in rejected)
    given = replace(first.given, records=left)
    again = with_splits(given, config)
    if not drawn | kept <= _measured(again.records):
        return None

    return Division(with_unusable(again, first.manifest), given, again, RECIPE_OF_DRAWN_AGAIN)


def _measured(records: Iterable[Record]) -> set[str | None]:
    """Return the splits of records with a transcript; of all where none has one."""
    listed = list(records)
    is_labelled = any(record.text is not None for record in listed)
    return {record.split for record in listed if record.text is not None or not is_labelled}


def with_splits(manifest: Manifest, config: PrepareConfig) -> Manifest:
    """Assign a split to every record, with the shares that the settings give.

    A share that the settings give of a split that no record has is also taken from a train split
    that the manifest gives.
    """
    # Without transcripts there is nothing to measure: all is train.
    default = _DEFAULT_SHARE if manifest.labelled else 0.0
    dev = default if config.dev is None else config.dev
    test = default if config.test is None else config.test

    given = {record.split for record in manifest.records}
    wants_dev = bool(config.dev) and "dev" not in given
    wants_test = bool(config.test) and "test" not in given
    if "train" in given and (wants_dev or wants_test):
        # What is there is enough, and what is not asked for is not taken from train.
        dev = dev if wants_dev else 0.0
        test = test if wants_test else 0.0
        manifest = reopen_train(manifest)

    return draw_splits(manifest, dev, test)


def log_splits(division: Division) -> None:
    """Log how many recordings and how much audio each split has, and the transcripts in two."""
    split = division.drawn
    if not split.labelled:
        return

    numbers = Counter(str(record.split) for record in split.records)
    counts = ", ".join(f"{name} {numbers[name]}" for name in sorted(numbers))
    pairs = zip(division.given.records, split.records, strict=True)
    is_drawn = any(before.split != after.split for before, after in pairs)
    if is_drawn:
        rule = "by speaker where known, else by file, or by part of fewer files than splits"
        log(f"split {rule} ({counts} recordings); a column `split` decides instead")
        log(f"of the audio with a transcript, {_reached_shares(split)}")
    else:
        log(f"split as given ({counts} recordings)")

    num_unused = numbers[UNUSED]
    if num_unused:
        log(
            f"{num_unused} without a transcript are of speakers or files that dev or test "
            "measure: they are not trained on"
        )

    usable = {record.audio for record in split.records}
    unusable = sorted({record.audio for record in division.manifest.records} - usable)
    if unusable:
        log(
            f"{len(unusable)} files are missing or cannot be used, and take no part in the "
            f"splits: {first_few(unusable)}"
        )

    _log_shared_texts(split)


def _log_shared_texts(split: Manifest) -> None:
    """Log how many transcripts of dev and test are in train too, also where it is none.

    A model knows the sentences that it was trained on, so error rates of those say too little.
    """
    texts: dict[str | None, list[str]] = defaultdict(list)
    for record in split.records:
        if record.text is not None:
            texts[record.split].append(normalise(record.text, DEFAULT_NORMALISER))

    in_train = set(texts["train"])
    for name in ("dev", "test"):
        own_texts = texts[name]
        if not own_texts or not in_train:
            continue

        num_known = sum(text in in_train for text in own_texts)
        advice = ": a language model knows them" if num_known else ""
        log(f"{num_known} of {len(own_texts)} transcripts of {name} are in train too{advice}")


def log_empty_splits(division: Division, store: Store, config: PrepareConfig) -> None:
    """Log which splits that were asked for have nothing in a store, and what to do about it."""
    if not len(store):
        return

    records = division.manifest.records
    reasons = {row["id"]: row["reason"] for row in read_rejects(store.path)}
    for split in _asked_for(division, config):
        has_chunks = len(store.indices([split])) > 0
        has_texts = any(True for _ in store.texts(split))
        if has_texts or (has_chunks and not division.manifest.labelled):
            continue

        own = [record for record in records if record.split == split]
        lost = [f"{one.audio} ({reasons[one.id]})" for one in own if one.id in reasons]
        if has_chunks:
            log(
                f"no recording of split {split} that was kept has a transcript: give it some, or "
                "leave the split out of the table"
            )
        else:
            log(f"the store has no split {split}: {_what_to_do(split, lost)}")


def _what_to_do(split: str, lost: Sequence[str]) -> str:
    """Say why a split is empty, and how it gets recordings.

    Args:
        lost: its recordings, none of which was kept.
    """
    if not lost:
        return (
            "there are too few recordings or speakers to divide; add some, or ask for fewer "
            "splits, such as --test-share 0"
        )

    remedy = "mend or remove them, and prepare again"
    if split != "train":
        remedy += f" with --{split}-share 0.1, which takes it from train where no table names it"
    return f"its recordings were rejected, {first_few(lost)}; {remedy}"


def _asked_for(division: Division, config: PrepareConfig) -> list[str]:
    """List the splits that recordings with a transcript are in, or that should be measured on."""
    asked: set[str | None] = set()
    is_drawn = False
    for record in division.manifest.records:
        if record.text is not None or record.split != "train":
            asked.add(record.split)
    for record in division.given.records:
        is_drawn |= record.split is None and record.text is not None

    for split, share in (("dev", config.dev), ("test", config.test)):
        if share or (share is None and is_drawn):
            asked.add(split)
    return [split for split in STANDARD_SPLITS if split in asked]


def _reached_shares(manifest: Manifest) -> str:
    """Say which share of the audio with a transcript each split has."""
    labelled = [record for record in manifest.records if record.text is not None]
    size_of: Counter[str] = Counter()
    for record, size in zip(labelled, sizes_of(manifest.root, labelled), strict=True):
        size_of[str(record.split)] += size

    total = size_of.total()
    shares = [f"{100 * size_of[name] / total:.1f} % is {name}" for name in sorted(size_of)]
    return ", ".join(shares) + ", by durations where known, else by the sizes of files"
