"""``speechssl lexicon``: make, check, extend and show pronunciation lexicons.

What needs a library is imported where a verb does its work: help and refusals need none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from speechssl.cli.app import ReplaceOption, write_stdout
from speechssl.cli.outputs import check_output
from speechssl.lexicon.check import coverage, lonely_phones, odd_lengths, sources
from speechssl.lexicon.espeak import foreign_words
from speechssl.lexicon.making import extend, make
from speechssl.runtime.log import log
from speechssl.storage.atomic import write_atomic
from speechssl.tables import text_table
from speechssl.text.normalise import DEFAULT_NORMALISER, normalise
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.pronunciations import (
    DEFAULT_FOLDING,
    Pronunciations,
    read_lexicon,
)

# Rows of a table of examples.
NUM_SHOWN = 20

lexicon = typer.Typer(
    no_args_is_help=True,
    help="Pronunciation lexicons, for finetune --tokenizer phones:LEXICON.",
)

LexiconArgument = Annotated[
    Path, typer.Argument(metavar="LEXICON", help="CMUdict, Kaldi's, MFA's or our own form.")
]
SourcesArgument = Annotated[
    list[Path],
    typer.Argument(help="Whose words: texts, stores with transcripts, ARPA files."),
]
OutOption = Annotated[Path, typer.Option(help="Lexicon to write, in our own form.")]
NormaliserOption = Annotated[str, typer.Option(help="What is done to texts and words.")]
SplitOption = Annotated[
    str | None, typer.Option(help="Whose transcripts to take of a store; else all.")
]


@lexicon.command("make")
def make_command(
    from_: Annotated[
        str, typer.Option("--from", help="espeak-ng:LANGUAGE, or a lexicon in any form.")
    ],
    out: OutOption,
    texts: Annotated[
        list[Path] | None,
        typer.Argument(help="Whose words: texts, stores, ARPA files; else all of a lexicon."),
    ] = None,
    folding: Annotated[
        str,
        typer.Option(help="Phones to make one: none, or of stress, length, tones, joined by +."),
    ] = DEFAULT_FOLDING,
    normaliser: NormaliserOption = DEFAULT_NORMALISER,
    split: SplitOption = None,
    force: ReplaceOption = False,
) -> None:
    """Make a lexicon of the words of texts, or write one in our own form."""
    check_output(out, force, [Path(from_), *(texts or ())])

    from speechssl.recognition.vocabulary import word_counts

    words = set(word_counts(texts, normaliser, split)) if texts else None
    _write(make(from_, words, folding, normaliser), out)


@lexicon.command("check")
def check_command(
    path: LexiconArgument,
    texts: SourcesArgument,
    normaliser: NormaliserOption = DEFAULT_NORMALISER,
    split: SplitOption = None,
) -> None:
    """Say how many words of texts have a pronunciation, and which entries look wrong."""
    checked = read_lexicon(path, normaliser)

    from speechssl.recognition.vocabulary import word_counts

    counts = word_counts(texts, normaliser, split)
    found = coverage(checked, counts)

    row = (
        found.num_words,
        len(found.missing),
        found.num_running,
        f"{found.share:.2%}",
        len(checked.phones),
    )
    columns = ("words", "without pronunciation", "running words", "of them covered", "phones")
    write_stdout(text_table(columns, [row]))

    _write_examples(
        "Words without a pronunciation (speechssl lexicon extend finds some)",
        ("word", "times"),
        found.missing,
    )
    _write_examples("Phones that only one word has", ("phone", "word"), lonely_phones(checked))
    odd = [(word, " ".join(one.phones)) for word, one in odd_lengths(checked)]
    _write_examples("Pronunciations far too long or too short", ("word", "phones"), odd)

    guessed = sources(checked)
    del guessed[""]
    _write_examples("Guessed pronunciations", ("by", "number"), guessed.most_common())


@lexicon.command("extend")
def extend_command(
    path: LexiconArgument,
    texts: SourcesArgument,
    out: OutOption,
    from_: Annotated[
        str,
        typer.Option("--from", help="g2p, a model trained on the lexicon; or espeak-ng:LANGUAGE."),
    ] = "g2p",
    most: Annotated[
        int, typer.Option(min=1, help="Most pronunciations of a word; espeak-ng knows how many.")
    ] = 1,
    normaliser: NormaliserOption = DEFAULT_NORMALISER,
    split: SplitOption = None,
    force: ReplaceOption = False,
) -> None:
    """Add guessed pronunciations of the words that a lexicon lacks, marked as such."""
    check_output(out, force, [path, *texts])
    given = read_lexicon(path, normaliser)

    from speechssl.recognition.vocabulary import word_counts

    counts = word_counts(texts, normaliser, split)
    missing = [word for word, _ in coverage(given, counts).missing]
    if not missing:
        log("the lexicon has all these words")

    extended = extend(given, path, missing, from_, most)
    new = [word for word in missing if word in extended.words]
    write_stdout(_pronunciation_table(extended, new))
    _write(extended, out)

    unknown = [word for word in missing if word not in extended.words]
    if unknown:
        log(f"{len(unknown)} words stay without a pronunciation: {_first_few(unknown)}")


@lexicon.command("show")
def show_command(
    path: LexiconArgument,
    words: Annotated[list[str], typer.Argument(help="Words to look up.")],
    normaliser: NormaliserOption = DEFAULT_NORMALISER,
) -> None:
    """Show the pronunciations of words, as a recogniser with this lexicon has them."""
    given = read_lexicon(path, normaliser)
    wanted = [word for text in words for word in normalise(text, normaliser).split()]
    unknown = [word for word in wanted if PhoneTokenizer(given).has_unknown(word)]
    if unknown:
        log(f"no pronunciation: {_first_few(unknown)}")
    write_stdout(_pronunciation_table(given, wanted))


def _write(made: Pronunciations, out: Path) -> None:
    """Write a lexicon, and say what is in it."""
    write_atomic(out, made.as_text())

    num_pronunciations = sum(map(len, made.words.values()))
    log(
        f"{out}: {num_pronunciations} pronunciations of {len(made.words)} words "
        f"in {len(made.phones)} phones"
    )
    foreign = foreign_words(made)
    if foreign:
        log(f"{len(foreign)} words have phones of another language: {_first_few(foreign)}")


def _write_examples(
    title: str, columns: tuple[str, str], rows: Sequence[tuple[str, object]]
) -> None:
    """Print the first rows of a table, and how many there are; nothing if there are none."""
    if not rows:
        return
    shown = f", the first {NUM_SHOWN}" if len(rows) > NUM_SHOWN else ""
    write_stdout(f"\n{title}: {len(rows)}{shown}\n\n{text_table(columns, rows[:NUM_SHOWN])}")


def _pronunciation_table(given: Pronunciations, words: Sequence[str]) -> str:
    tokenizer = PhoneTokenizer(given)
    rows = [
        (word, f"{one.probability:g}", " ".join(one.phones), one.source)
        for word in words
        for one in tokenizer.pronunciations(word)
    ]
    return text_table(("word", "probability", "phones", "guessed by"), rows)


def _first_few(words: Sequence[str]) -> str:
    dots = ["..."] if len(words) > NUM_SHOWN else []
    return " ".join([*words[:NUM_SHOWN], *dots])
