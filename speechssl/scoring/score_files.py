"""A score on disk: score.json, utterances, report, and files for sclite."""

import re
from pathlib import Path
from typing import Any

from speechssl.pictures import plot_reliability, text_table
from speechssl.scoring.calibration import Calibration
from speechssl.scoring.score import Score
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json, json_line

SCORE_FILES = "score.json", "utterances.jsonl", "report.txt", "ref.trn", "hyp.trn", "confidence.png"


def write_score(result: Score, out: Path, about: dict[str, Any]) -> str:
    """Write ``score.json``, ``utterances.jsonl``, ``report.txt`` and ``trn`` files into ``out``; returns the report.

    ``ref.trn`` and ``hyp.trn`` are what NIST's sclite reads: a text a line, its utterance in brackets. Where there are
    confidences, ``confidence.png`` shows how far they can be trusted.
    """
    kinds = [
        (str(about.get("normaliser", "")), result),
        *([("raw", result.raw)] if result.raw else []),
    ]
    rows = [
        (text, name, f"{rate:.2%}", "{:.2%} .. {:.2%}".format(*interval), *_counts(counts))
        for text, kind in kinds
        for name, rate, interval, counts in (
            ("WER", kind.wer, kind.wer_interval, kind.words),
            ("CER", kind.cer, kind.cer_interval, kind.characters),
        )
    ]
    parts = [
        text_table(("text", "", "rate", "95 % interval", "reference", "sub", "ins", "del"), rows),
        f"{len(result.utterances)} utterances, {result.sentence_error_rate:.1%} with an error",
        *([_trust(result.calibration)] if result.calibration else []),
        "Worst utterances:",
        *(
            f"  {u.utterance_id}\n    ref: {u.reference}\n    hyp: {u.hypothesis}"
            for u in result.worst(10)
        ),
        "Top confusions (reference -> hypothesis):",
        *(
            f"  {c.count:5d}  {c.reference or '(nothing)'} -> {c.hypothesis or '(nothing)'}"
            for c in result.confusions()
        ),
    ]
    text = "\n".join(parts) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "utterances.jsonl", (json_line(u.as_dict()) for u in result.utterances))
    for name, side in (("ref.trn", "reference"), ("hyp.trn", "hypothesis")):
        names = (re.sub(r"[()\s]", "_", u.utterance_id) for u in result.utterances)
        write_atomic(
            out / name,
            (f"{getattr(u, side)} ({i})\n" for u, i in zip(result.utterances, names, strict=True)),
        )
    if result.calibration:
        bins = result.calibration.bins
        plot_reliability([(b.confidence, b.right, b.count) for b in bins], out / "confidence.png")
    write_atomic(out / "report.txt", text)
    write_atomic(out / "score.json", as_json(about | result.as_dict()))
    return text


def remove_score(out: Path) -> None:
    """Delete what ``write_score`` wrote into a folder, and the folder if nothing else is in it."""
    for name in SCORE_FILES:
        (out / name).unlink(missing_ok=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def _trust(calibration: Calibration) -> str:
    words = calibration.num_words
    confidence, right = (
        sum(b.count * getattr(b, k) for b in calibration.bins) / words
        for k in ("confidence", "right")
    )
    return (
        f"Of {words} recognised words {right:.1%} are right; their mean confidence is {confidence:.1%}, "
        f"the expected calibration error {calibration.ece:.1%}"
    )


def _counts(counts: Any) -> tuple[int, int, int, int]:
    return counts.reference_length, counts.substitutions, counts.insertions, counts.deletions
