"""``finetune --unlabelled``: a first recogniser writes down audio, and a second learns from that.

The first learns from the transcripts alone. With the language model it hears what nobody has
transcribed. The second one learns from both, starting from the first one's encoder, and each label
counts for as much as it can be trusted (``recognition.pseudo_labels``). In a further round the
second one labels again, better, and a third learns from that in the same way.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from speechssl.data.store import Store
from speechssl.errors import CheckpointError, ConfigError
from speechssl.recognition.finetune import finetune
from speechssl.recognition.language_model import holds_lm
from speechssl.recognition.lm_tuning import tune_lm
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import ranks
from speechssl.runtime.log import HoursProgress, log
from speechssl.storage.saved_folders import model_folder
from speechssl.training.lineage import origin_of
from speechssl.training.run_folder import SETTINGS, settings_of_run
from speechssl.transcription.recogniser import load_recogniser

# Learning rate of the second recogniser beside that of the first: its encoder knows much already.
SECOND_RATE = 0.5
LABELS = "labels.jsonl"


def first_run(run: str | Path) -> Path:
    """Name the run folder of the first recogniser: beside that of the second."""
    run = Path(run)
    return run.with_name(f"{run.name}-first")


def runs_of(run: str | Path, rounds: int = 1) -> list[Path]:
    """Name the run folders of all recognisers in the order of training; the last one is ``run``."""
    run = Path(run)
    between = [run.with_name(f"{run.name}-round{number}") for number in range(1, rounds)]
    return [first_run(run), *between, run]


def runs_before(run: str | Path, rounds: int) -> list[Path]:
    """Name the run folders that ``--force`` deletes with ``run``, the last one of training first.

    Those of further rounds, which another command made, are among them: they learned from the
    labels of recognisers that are deleted.
    """
    run = Path(run)
    first, *between, _ = runs_of(run, rounds)
    number = rounds
    while (further := run.with_name(f"{run.name}-round{number}")).exists():
        between.append(further)
        number += 1
    return [*reversed(between), first]


def finetune_with_unlabelled(
    stores: Sequence[str | Path],
    unlabelled: Sequence[str | Path],
    lm: Path,
    run: str | Path,
    settings: FinetuneSettings,
    init: str | Path | None,
    begin: Callable[[], None] = lambda: None,
    budget_s: float | None = None,
    rounds: int = 1,
) -> CtcModel:
    """Train a recogniser on transcripts and on audio without any; it has its language model then.

    The same call continues wherever it was stopped: each of its steps goes on, or is done already.

    Args:
        stores: with transcripts; the first one has the split dev that the weights of the language
            model are found on.
        unlabelled: stores whose split train is listened to. Those that are also among ``stores``
            may have transcripts, of which none but those of ``settings.minutes`` are looked at.
        lm: ARPA file.
        run: run folder of the last recogniser; those of the others are ``runs_of``.
        settings: of the first recogniser. The others' differ in the learning rate.
        init: what the first one's encoder starts from; None for random weights.
        begin: as ``finetune`` calls it, for the first recogniser.
        budget_s: seconds of all trainings together; see ``finetune``.
        rounds: how often audio is labelled and learned from, 1 or more.

    Raises:
        ConfigError, ManifestError, CheckpointError: input that cannot be used.
        TrainingError: a run is lost.
    """
    if ranks.count() > 1:
        raise ConfigError(
            "--unlabelled runs in one process: without torchrun, or finetune, tune-lm, label and "
            "finetune --labels one after another"
        )
    _refuse_transcripts(set(map(str, unlabelled)) - set(map(str, stores)))
    if rounds < 1:
        raise ConfigError(f"--rounds {rounds}: audio is labelled 1 time or more")
    first, *others = runs_of(run, rounds)
    share_s = None if budget_s is None else budget_s / (1 + rounds)

    def begin_first() -> None:
        begin()
        _refuse_other_runs([first, *others])

    log(f"first recogniser: {first}")
    finetune(stores, first, settings, init, begin=begin_first, budget_s=share_s)
    _tune_once(first, lm, stores[0])

    slower = settings.optim.model_copy(update={"lr": SECOND_RATE * settings.optim.lr})
    later = settings.model_copy(update={"optim": slower})
    everything = list(dict.fromkeys([*map(str, stores), *map(str, unlabelled)]))

    teacher = first
    for number, learner in enumerate(others, 1):
        labels = _label(teacher, unlabelled)
        log(f"recogniser of round {number} of {rounds}: {learner}")
        finetune(everything, learner, later, teacher, labels, keep=1.0, budget_s=share_s)
        _tune_once(learner, lm, stores[0])
        teacher = learner

    return load_ctc(teacher)


def _label(teacher: Path, stores: Sequence[str | Path]) -> Path:
    """Write down what a recogniser hears in stores; return the file of labels."""
    labels = teacher / LABELS
    recogniser = load_recogniser(teacher)
    for store in stores:
        log(f"{teacher} labels {store}")
        with HoursProgress() as progress:
            recogniser.label(store, labels, progress=progress)
    return labels


def _refuse_other_runs(runs: Sequence[Path]) -> None:
    """See that no folder holds a run of its own, before hours go into those before it."""
    for before, run in pairwise(runs):
        if not (run / SETTINGS).exists():
            continue

        reason = None
        if not (before / SETTINGS).exists():
            reason = f"{before} is not there"
        elif not _goes_on_from(run, before):
            reason = f"it does not go on from {before}"
        if reason is not None:
            raise ConfigError(
                f"{run} holds a run that --unlabelled did not begin with these --rounds "
                f"({reason}): give another --run, or --force to delete it"
            )


def _goes_on_from(run: Path, before: Path) -> bool:
    """Whether a run was begun with the model that another one holds."""
    init = settings_of_run(run).get("init")
    try:
        files = origin_of(before)["files"]
    except CheckpointError:
        return False
    return isinstance(init, Mapping) and init.get("files") == files


def _refuse_transcripts(unlabelled: Collection[str]) -> None:
    """See that stores which are unlabelled only have no transcripts to be learned from."""
    for path in sorted(unlabelled):
        store = Store(path)
        if any(store.record(int(row)).text for row in store.indices(["train"])):
            raise ConfigError(
                f"--unlabelled {path} has transcripts: give it among the labelled stores too, "
                "with --minutes if only some are to be used"
            )


def _tune_once(run: Path, lm: Path, store: str | Path) -> None:
    """Give a run its language model, unless it has this one already."""
    folder = model_folder(run)
    if holds_lm(folder, lm):
        log(f"{folder} has its language model already")
        return

    tune_lm(run, lm, store)
    # Where it does not help, tune-lm keeps none, or leaves another one where it was.
    if not holds_lm(folder, lm):
        raise ConfigError(
            f"{lm} does not help {run}: its labels would be no better than greedy decoding's. "
            "Give a language model of more text, or leave --unlabelled out"
        )
