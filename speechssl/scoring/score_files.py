"""A score on disk: a summary, a row for each utterance, a report to read, and files for sclite."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from speechssl.pictures import plot_reliability
from speechssl.scoring.calibration import Calibration
from speechssl.scoring.score import RATE_NAMES, Counts, Interval, Score
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, json_line
from speechssl.tables import text_table
from speechssl.text.word_spaces import are_without_word_spaces

# The file that is written first, and the one that is written last.
UTTERANCES = "utterances.jsonl"
SUMMARY = "score.json"
SCORE_FILES = SUMMARY, UTTERANCES, "report.txt", "ref.trn", "hyp.trn", "confidence.png"


# One row of a table, before its cells are turned into text.
Cells = tuple[object, ...]


def write_score(result: Score, out: Path, about: dict[str, Any]) -> str:
    """Write a score into a folder: the files of ``SCORE_FILES``.

    ``ref.trn`` and ``hyp.trn`` are what NIST's sclite reads: a text a line, its utterance in
    brackets. ``confidence.png`` shows how far confidences can be trusted, where there are any.

    Args:
        about: JSON values to write into ``score.json`` beside the score's own; ``normaliser`` is
            named in the report.

    Returns:
        The text of ``report.txt``.
    """
    normaliser = str(about.get("normaliser", ""))
    text = _report(result, normaliser)
    out.mkdir(parents=True, exist_ok=True)
    # It is written last. That of an earlier score must not stand beside files of this one.
    (out / SUMMARY).unlink(missing_ok=True)

    rows = (json_line(u.as_dict(result.unit)) for u in result.utterances)
    write_atomic(out / UTTERANCES, rows)

    references = []
    hypotheses = []
    for u in result.utterances:
        name = nist_name(u.utterance_id)
        references.append(f"{u.reference} ({name})\n")
        hypotheses.append(f"{u.hypothesis} ({name})\n")

    write_atomic(out / "ref.trn", references)
    write_atomic(out / "hyp.trn", hypotheses)

    # One of an earlier score would not belong to these files.
    (out / "confidence.png").unlink(missing_ok=True)
    if result.calibration:
        points = [(b.confidence, b.right, b.count) for b in result.calibration.bins]
        plot_reliability(points, out / "confidence.png")

    write_atomic(out / "report.txt", text)

    summary = about | result.as_dict()
    write_atomic(out / SUMMARY, as_json(summary))
    return text


def nist_name(name: str) -> str:
    """Write an id as NIST's tools take it, each id in another way.

    Between sclite's brackets stands neither a bracket nor white space, and semicolons begin
    comments. These are written as ``%20`` and the like, and so is the per cent sign.
    """
    return re.sub(r"[()\s%;]", lambda found: quote(found[0], safe=""), name)


def remove_score(out: Path) -> None:
    """Delete what ``write_score`` wrote into a folder, and the folder if nothing else is in it."""
    for name in SCORE_FILES:
        (out / name).unlink(missing_ok=True)

    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def _report(result: Score, normaliser: str) -> str:
    rows = _rate_rows(normaliser, result)
    if result.raw:
        rows += _rate_rows("raw", result.raw)
    columns = ("text", "", "rate", "95 % interval", "reference", "sub", "ins", "del")
    table = text_table(columns, rows)

    num_utterances = len(result.utterances)
    share_wrong = result.sentence_error_rate
    parts = [table, f"{num_utterances} utterances, {share_wrong:.1%} with an error"]
    if result.calibration:
        texts = [u.reference for u in result.utterances]
        by_characters = result.unit == "word" and are_without_word_spaces(texts)
        unit = "character" if by_characters else result.unit
        sentence = _confidence_sentence(result.calibration, unit)
        parts.append(sentence)

    parts.append("Worst utterances:")
    for u in result.worst(10):
        parts.append(f"  {u.utterance_id}")
        parts.append(f"    ref: {u.reference}")
        parts.append(f"    hyp: {u.hypothesis}")

    parts.append("Top confusions (reference -> hypothesis):")
    for c in result.confusions():
        said = c.reference or "(nothing)"
        heard = c.hypothesis or "(nothing)"
        parts.append(f"  {c.count:5d}  {said} -> {heard}")

    return "\n".join(parts) + "\n"


def _rate_rows(text: str, result: Score) -> list[Cells]:
    """Return the rows of the report's table: of words and of characters, or of phones."""
    words = _rate_row(text, RATE_NAMES[result.unit], result.words, result.wer_interval)
    if result.unit == "phone":
        return [words]

    characters = _rate_row(text, "CER", result.characters, result.cer_interval)
    return [words, characters]


def _rate_row(text: str, name: str, counts: Counts, interval: Interval) -> Cells:
    low, high = interval
    return (
        text,
        name,
        f"{counts.rate:.2%}",
        f"{low:.2%} .. {high:.2%}",
        counts.reference_length,
        counts.substitutions,
        counts.insertions,
        counts.deletions,
    )


def _confidence_sentence(calibration: Calibration, unit: str) -> str:
    """Say how many words are right, and how far the confidences are from that."""
    bins = calibration.bins
    words = calibration.num_words
    confidence = sum(b.count * b.confidence for b in bins) / words
    right = sum(b.count * b.right for b in bins) / words
    return (
        f"Of {words} recognised {unit}s {right:.1%} are right; "
        f"their mean confidence is {confidence:.1%}, "
        f"the expected calibration error {calibration.ece:.1%}"
    )
