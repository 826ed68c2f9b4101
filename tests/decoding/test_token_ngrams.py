"""Odd and valid ARPA files: both engines read them alike, and refuse alike what is none."""

import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.beam import Backend, BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.ngram import NgramModel
from speechssl.decoding.token_ngrams import read_token_ngrams
from speechssl.errors import ConfigError
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

ENGINES: list[Backend] = ["plain", "flashlight"]
WIDE = {"beam_size": 3000, "beam_threshold": 1e3, "beam_tokens": 50}
WORDS = ["a", "b", "|", "x"]


def odd_arpa(draw: random.Random) -> str:
    """An ARPA file with n-grams chosen freely, as other programs and pruning leave them."""
    marks = [mark for mark in ("<unk>", "<s>", "</s>") if draw.random() < 0.6]
    order = draw.choice([1, 2, 3, 4])
    gap = draw.choice(["\t", " "])

    sections = [[(word,) for word in [*marks, *WORDS]]]
    for length in range(2, order + 1):
        contexts = [word for word in [*marks, *WORDS] if word != "</s>"]
        last = [word for word in [*marks, *WORDS] if word != "<s>"]
        inner = [word for word in contexts if word != "<s>"]
        possible = [
            (first, *middle, end)
            for first in contexts
            for middle in product(inner, repeat=length - 2)
            for end in last
        ]
        sections.append(draw.sample(possible, min(len(possible), draw.randrange(0, 5))))

    lines = draw.choice([[], ["made by hand"], ["# a comment", ""]])
    lines.append("\\data\\")
    lines += [f"ngram {length}={len(ngrams)}" for length, ngrams in enumerate(sections, 1)]
    for length, ngrams in enumerate(sections, 1):
        lines += ["", f"\\{length}-grams:"]
        for ngram in ngrams:
            prob = (
                "-inf" if ngram == ("<s>",) and draw.random() < 0.3 else f"{-3 * draw.random():.4f}"
            )
            backoff = f"{gap}{-draw.random():.4f}" if draw.random() < 0.5 else ""
            lines.append(f"{prob}{gap}{' '.join(ngram)}{backoff}")
    lines += ["", "\\end\\", *draw.choice([[], ["made by hand"]])]
    return "\n".join(lines) + "\n"


def tokenizers() -> list[Tokenizer]:
    """One plain one, and two in which tokens would have one name."""
    return [
        CharTokenizer(" ab"),
        CharTokenizer(" ab|"),
        VocabularyTokenizer(["<pad>", "<unk>", " ", "a", "|", "b", "a"]),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_both_engines_read_an_odd_file_alike(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("flashlight")
    path = tmp_path / "odd.arpa"
    path.write_text(odd_arpa(random.Random(seed)), encoding="utf-8")
    tokenizer = tokenizers()[seed % 3]
    config = BeamConfig.model_validate({"unit": "tokens", "lm_weight": 1.3} | WIDE)

    generator = torch.Generator().manual_seed(seed)
    frames = (1.5 * torch.randn(1, 6, tokenizer.size, generator=generator)).log_softmax(-1)
    found = [
        BeamSearch(tokenizer, path, config, engine)(frames, torch.tensor([6]), nbest=3)[0]
        for engine in ENGINES
    ]
    ours, theirs = found
    assert [one.text for one in ours] == [one.text for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_completing_a_model_changes_no_score(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    path = tmp_path / "odd.arpa"
    path.write_text(odd_arpa(draw), encoding="utf-8")
    given = read_arpa(path)
    completed: NgramModel = read_token_ngrams(path)

    # A mark that a model lacks is an unknown word to it, and is added as a word of its own.
    known = [*WORDS, "unheard", *({"</s>"} & given.words)]
    begins = ["<s>"] if ("<s>",) in given.ngrams[0] else ["a"]
    for _ in range(50):
        context = [*begins, *draw.choices(WORDS, k=draw.randrange(4))]
        word = draw.choice(known)
        assert completed.log10_prob(word, context) == pytest.approx(given.log10_prob(word, context))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\\end\\", ""), "the file ends here"),
        (lambda text: text.replace("-0.5\ta", "0.5\ta"), "a probability above 1"),
        (lambda text: text.replace("\ta b", "\ta y"), "'y' is not among the 1-grams"),
        (lambda text: text.replace("ngram 2=1", "ngram 2=2"), "where a 2-gram was expected"),
    ],
)
def test_what_is_no_arpa_file_is_refused_in_our_words(
    tmp_path: Path, engine: Backend, change: Callable[[str], str], message: str
) -> None:
    if engine == "flashlight":
        pytest.importorskip("flashlight")
    text = (
        "\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-1\t</s>\n-0.5\ta\t-0.2\n-0.6\tb\n\n"
        "\\2-grams:\n-0.3\ta b\n\n\\end\\\n"
    )
    path = tmp_path / "bad.arpa"
    path.write_text(change(text), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        BeamSearch(CharTokenizer(" ab"), path, BeamConfig(unit="tokens"), engine)
    assert "\n" not in str(raised.value)
    assert "::" not in str(raised.value)
