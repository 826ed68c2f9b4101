"""An evaluation on disk: the score of greedy decoding, and that of the language model beside it."""

from pathlib import Path

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import Evaluation
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.scoring.compare import comparison, read_system
from speechssl.scoring.score_files import (
    SCORE_FILES,
    SUMMARY,
    UTTERANCES,
    remove_score,
    write_score,
)
from speechssl.storage.json_text import read_json_table
from speechssl.storage.saved_folders import RECORD

# Keys of ``about`` that say what an evaluation is of. Under ``DIGESTS`` stand those of the files.
OF_WHAT = ("model", "store", "split", "normaliser")
DIGESTS = "digests"


def check_score_folder(out: Path, about: Table, force: bool = False) -> None:
    """See that scores may be written into ``out``: better before an evaluation than after it.

    Args:
        about: what ``write_evaluation`` will be given.
        force: the scores of another evaluation may be replaced.

    Raises:
        ConfigError: it holds a model, something else than scores, or the scores of another
            evaluation, and ``force`` is not given.
    """
    if (out / RECORD).exists():
        raise ConfigError(f"{out} holds a model: give another --out for the scores")

    if (out / SUMMARY).exists():
        if not force:
            _check_same_evaluation(out, about)
        return

    if not out.exists():
        return
    if not out.is_dir() or not _is_empty_or_unfinished(out):
        raise ConfigError(f"{out} is there already and holds no scores: give a new folder as --out")


def _is_empty_or_unfinished(folder: Path) -> bool:
    """Whether a folder holds nothing, or what a kill left of scores."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    is_begun = UTTERANCES in names and names <= set(SCORE_FILES)
    return not names or is_begun


def _check_same_evaluation(out: Path, about: Table) -> None:
    """See that the scores in ``out`` are of what is evaluated now.

    What is evaluated now may have a language model where there was none: no score is lost.
    """
    before = read_json_table(out / SUMMARY)
    if before is None:
        raise ConfigError(f"{out / SUMMARY} is damaged: give another --out, or --force")

    change = _first_change(before, about)
    if change is not None:
        of_what = ", ".join(f"{key} {before.get(key)}" for key in OF_WHAT)
        raise ConfigError(
            f"{out} holds the scores of another {change} ({of_what}): give another --out, or "
            "--force"
        )


def _first_change(before: Table, now: Table) -> str | None:
    """Say what the evaluation of a ``score.json`` differs in from another one; None = nothing."""
    compared: dict[str, tuple[object, object]] = {}
    for key in OF_WHAT:
        compared[key] = before.get(key), now.get(key)

    digests_before = before.get(DIGESTS)
    digests_now = now[DIGESTS]
    # An earlier version wrote none: there the paths tell.
    if isinstance(digests_before, dict):
        for key, digest in digests_before.items():
            compared[key] = digest, digests_now.get(key)

    for key, (value_before, value_now) in compared.items():
        if value_before != value_now:
            return key.replace("_", " ")
    return None


def write_evaluation(
    evaluation: Evaluation, out: Path, about: Table, about_language_model: Table
) -> str:
    """Write the scores into ``out``, and those with the language model into ``out/lm``.

    Args:
        about: JSON values to keep with the scores: those of ``OF_WHAT``, and as ``DIGESTS`` the
            digests of the model, of its language model if it has one, and of the store.
        about_language_model: more of them for the scores with the language model.

    Returns:
        the report to print: both scores, and what of their difference may be chance.
    """
    with_lm = out / LM_FOLDER
    # Those of an evaluation before this one: the two must not be mixed, wherever this one stops.
    remove_score(with_lm)

    about = about | {"unwritable": dict(evaluation.unwritable)}
    report = write_score(evaluation.greedy, out, about)
    if evaluation.with_language_model is None:
        return report

    lm_report = write_score(evaluation.with_language_model, with_lm, about | about_language_model)
    if evaluation.greedy.unit != evaluation.with_language_model.unit:
        return f"{report}\nWith the language model:\n{lm_report}"

    systems = [read_system("greedy", [out]), read_system("with language model", [with_lm])]
    return f"{report}\nWith the language model:\n{lm_report}\n{comparison(systems)}"
