"""An evaluation on disk: the score of greedy decoding, and that of the language model beside it."""

from pathlib import Path

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import Evaluation
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.scoring.compare import comparison, read_system
from speechssl.scoring.score_files import remove_score, write_score
from speechssl.storage.checkpoint import RECORD


def check_score_folder(out: Path) -> None:
    """See that scores may be written into ``out``: better before an evaluation than after it.

    Raises:
        ConfigError: it holds a model, or something else than scores.
    """
    if (out / RECORD).exists():
        raise ConfigError(f"{out} holds a model: give another --out for the scores")

    if not out.exists() or (out / "score.json").exists():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ConfigError(f"{out} is there already and holds no scores: give a new folder as --out")


def write_evaluation(
    evaluation: Evaluation, out: Path, about: Table, about_language_model: Table
) -> str:
    """Write the scores into ``out``, and those with the language model into ``out/lm``.

    Args:
        about: JSON values to keep with the scores, such as model, store and split.
        about_language_model: more of them for the scores with the language model.

    Returns:
        the report to print: both scores, and what of their difference may be chance.
    """
    about = about | {"unwritable": dict(evaluation.unwritable)}
    report = write_score(evaluation.greedy, out, about)

    with_lm = out / LM_FOLDER
    # Those of an evaluation before this one: the two must not be mixed.
    remove_score(with_lm)
    if evaluation.with_language_model is None:
        return report

    lm_report = write_score(evaluation.with_language_model, with_lm, about | about_language_model)
    if evaluation.greedy.unit != evaluation.with_language_model.unit:
        return f"{report}\nWith the language model:\n{lm_report}"

    systems = [read_system("greedy", [out]), read_system("with language model", [with_lm])]
    return f"{report}\nWith the language model:\n{lm_report}\n{comparison(systems)}"
