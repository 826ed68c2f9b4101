"""The verb lm, which needs no torch.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechssl.cli.app import ReplaceOption, write_stdout
from speechssl.cli.inputs import check_models
from speechssl.cli.outputs import check_output
from speechssl.errors import ConfigError
from speechssl.tables import text_table

if TYPE_CHECKING:
    from speechssl.decoding.ngram import Perplexity
    from speechssl.recognition.lm_training import LmReport


def lm_command(
    texts: Annotated[
        list[Path],
        typer.Argument(
            help="Text files, a sentence a line (.gz, .bz2 and .xz too), and stores with "
            "transcripts."
        ),
    ],
    out: Annotated[Path, typer.Option(help="ARPA file to write; temporary files lie beside it.")],
    order: Annotated[int, typer.Option(help="Length of the longest n-grams, 2 to 6.")] = 4,
    split: Annotated[str, typer.Option(help="Whose transcripts to take of a store.")] = "train",
    normaliser: Annotated[
        str | None,
        typer.Option(
            help="What is done to the text; else what the model of --tokens-of does, or basic-2."
        ),
    ] = None,
    tokens_of: Annotated[
        Path | None,
        typer.Option(help="Run or model folder: n-grams of its tokens instead of words."),
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="File of the words to keep, one a line.")
    ] = None,
    min_count: Annotated[
        int, typer.Option(min=1, help="Keep words that the texts have so often.")
    ] = 1,
    max_words: Annotated[
        int | None, typer.Option(min=1, help="Keep so many of the most frequent words.")
    ] = None,
    prune: Annotated[
        str,
        typer.Option(
            help="Leave out n-grams seen no more often, by length: 0,0,1 = those of 3 words and "
            "more seen once."
        ),
    ] = "0",
    prune_entropy: Annotated[
        float,
        typer.Option(
            help="Leave out n-grams without which the perplexity rises by a smaller share, such as "
            "1e-8; 0 = none."
        ),
    ] = 0.0,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="ARPA file, text or store to mix in, with the best weight for --held-out "
            "(repeatable).",
        ),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Text or store to measure the perplexity of.")
    ] = None,
    held_out_split: Annotated[
        str, typer.Option(help="Whose transcripts to take of that store.")
    ] = "dev",
    force: ReplaceOption = False,
) -> None:
    """Estimate an n-gram language model from text (modified Kneser-Ney), as an ARPA file."""
    given = [*texts, *(others or ()), held_out, vocabulary]
    check_output(out, force, [path for path in given if path is not None])

    cutoffs = _cutoffs(prune)
    check_models(tokens_of)

    from speechssl.decoding.arpa import listed_words
    from speechssl.ngrams.kneser_ney import Selection
    from speechssl.ngrams.vocabulary import Vocabulary
    from speechssl.recognition.lm_training import LmCorpus, LmPlan, build_lm

    listed = frozenset(listed_words(vocabulary)) if vocabulary else None
    selection = Selection(Vocabulary(listed, min_count, max_words), cutoffs)
    plan = LmPlan(
        order=order,
        selection=selection,
        others=tuple(others or ()),
        entropy=prune_entropy,
        held_out=held_out,
        split=split,
        held_out_split=held_out_split,
    )

    report = build_lm(texts, out, plan, LmCorpus(normaliser, tokens_of))
    write_stdout(_report_text(report, held_out))


def _cutoffs(text: str) -> tuple[int, ...]:
    """Parse numbers with commas between them."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--prune is {text!r}: give whole numbers with commas between them, such as 0,0,1"
        ) from None


def _report_text(report: "LmReport", held_out: Path | None) -> str:
    """Write what was estimated, mixed and measured."""
    rows = []
    for length, count in enumerate(report.num_ngrams, start=1):
        # What was mixed in can have longer n-grams.
        own = report.discounts[length - 1 : length]
        discounts = [f"{discount:.3f}" for discount in own[0]] if own else [""] * 3
        rows.append((length, count, *discounts))
    header = ("length", "n-grams", "discount of 1", "of 2", "of 3 and more")
    text = text_table(header, rows)

    if report.ingredients:
        mixed_rows = [
            (one.name, f"{one.weight:.4f}", _shown(one.perplexity.excluding_unknown),
             one.perplexity.num_unknown)
            for one in report.ingredients
        ]  # fmt: skip
        mixed_header = ("model", "weight", "perplexity", "unknown words")
        text += "\n" + text_table(mixed_header, mixed_rows)

    if report.perplexity is not None:
        text += f"\n{_perplexity_line(report.perplexity, held_out)}"
    return text


def _perplexity_line(found: "Perplexity", held_out: Path | None) -> str:
    return (
        f"perplexity of {held_out}: {_shown(found.excluding_unknown)} without the "
        f"{found.num_unknown} of {found.num_words} words that the model does not have, "
        f"{_shown(found.including_unknown)} with them\n"
    )


def _shown(perplexity: float) -> str:
    """Write a perplexity; there is none where a model has no word of a text."""
    return "none" if math.isnan(perplexity) else f"{perplexity:.1f}"
