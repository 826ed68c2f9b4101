"""A score on disk: a summary, a row for each utterance, a report to read, and files for sclite."""

import re
from pathlib import Path
from typing import Any

from speechssl.pictures import plot_reliability
from speechssl.scoring.calibration import Calibration
from speechssl.scoring.score import Counts, Score
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, json_line
from speechssl.tables import text_table

SCORE_FILES = "score.json", "utterances.jsonl", "report.txt", "ref.trn", "hyp.trn", "confidence.png"


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
    text = _report(result, str(about.get("normaliser", "")))
    out.mkdir(parents=True, exist_ok=True)

    write_atomic(out / "utterances.jsonl", (json_line(u.as_dict()) for u in result.utterances))

    # Between sclite's brackets stands neither a bracket nor white space.
    names = [re.sub(r"[()\s]", "_", u.utterance_id) for u in result.utterances]
    references = [u.reference for u in result.utterances]
    hypotheses = [u.hypothesis for u in result.utterances]
    write_atomic(out / "ref.trn", _trn(references, names))
    write_atomic(out / "hyp.trn", _trn(hypotheses, names))

    if result.calibration:
        points = [(b.confidence, b.right, b.count) for b in result.calibration.bins]
        plot_reliability(points, out / "confidence.png")

    write_atomic(out / "report.txt", text)
    write_atomic(out / "score.json", as_json(about | result.as_dict()))
    return text


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

    num_utterances = len(result.utterances)
    parts = [
        text_table(columns, rows),
        f"{num_utterances} utterances, {result.sentence_error_rate:.1%} with an error",
    ]
    if result.calibration:
        parts.append(_confidence_sentence(result.calibration))

    parts.append("Worst utterances:")
    for u in result.worst(10):
        parts.append(f"  {u.utterance_id}\n    ref: {u.reference}\n    hyp: {u.hypothesis}")

    parts.append("Top confusions (reference -> hypothesis):")
    for c in result.confusions():
        said = c.reference or "(nothing)"
        heard = c.hypothesis or "(nothing)"
        parts.append(f"  {c.count:5d}  {said} -> {heard}")

    return "\n".join(parts) + "\n"


def _rate_rows(text: str, result: Score) -> list[tuple[object, ...]]:
    """Return two rows of the report's table: rates and counts of words, and of characters."""
    return [
        (text, "WER", *_rate_cells(result.wer, result.wer_interval, result.words)),
        (text, "CER", *_rate_cells(result.cer, result.cer_interval, result.characters)),
    ]


def _rate_cells(rate: float, interval: tuple[float, float], counts: Counts) -> tuple[object, ...]:
    low, high = interval
    return (
        f"{rate:.2%}",
        f"{low:.2%} .. {high:.2%}",
        counts.reference_length,
        counts.substitutions,
        counts.insertions,
        counts.deletions,
    )


def _confidence_sentence(calibration: Calibration) -> str:
    """Say how many words are right, and how far the confidences are from that."""
    words = calibration.num_words
    confidence = sum(b.count * b.confidence for b in calibration.bins) / words
    right = sum(b.count * b.right for b in calibration.bins) / words
    return (
        f"Of {words} recognised words {right:.1%} are right; "
        f"their mean confidence is {confidence:.1%}, "
        f"the expected calibration error {calibration.ece:.1%}"
    )


def _trn(texts: list[str], names: list[str]) -> str:
    lines = [f"{text} ({name})\n" for text, name in zip(texts, names, strict=True)]
    return "".join(lines)
