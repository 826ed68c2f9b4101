"""The search for words: against all alignments of all texts, and against plain Python."""

import math
import random
from collections.abc import Iterator
from itertools import accumulate, groupby, product
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.lexicon_search import lexicon_search, path_score
from support.language_models import lm_lines
from torch import Tensor

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import Lexicon, spellings
from speechssl.decoding.ngram import BEGIN, END, NgramModel
from speechssl.decoding.ngram_table import SearchTable, read_search_table
from speechssl.decoding.word_model import word_model
from speechssl.errors import ConfigError
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Spelling, Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

WORDS = "xyzvwq"
SENTENCES = ["ab a ba", "ba ab ab", "a a ba", "ab ba a b", "b", "aa ba"]
WIDE = {"beam_size": 20_000, "beam_threshold": 1e4}


class Phones(Tokenizer):
    """Tokens that spell no text: the search must not look at it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.texts = ("<pad>", "⁇", *[f" P{i}" for i in range(2, size)])

    def encode(self, text: str) -> list[int]:
        raise AssertionError

    decode = files = encode  # type: ignore[assignment]


def letters_with_space() -> VocabularyTokenizer:
    return VocabularyTokenizer(["<pad>", "⁇", "a", "b", " "])


def language_model(folder: Path, sentences: list[list[str]], order: int) -> Path:
    """An estimated model; of order 1, its unigrams."""
    lines = list(lm_lines(sentences, max(order, 2)))
    if order == 1:
        text = "".join(lines)
        start, stop = text.index("\n\\2-grams"), text.index("\n\\end\\")
        lines = [text[:start].replace(text.splitlines()[2] + "\n", ""), text[stop:]]

    path = folder / "lm.arpa"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def draw_lexicon(rng: random.Random, tokens: list[int], longest: int) -> Lexicon:
    """Words of several spellings, some of them the beginnings of others, and some homophones."""
    lexicon: Lexicon = {}
    for word in WORDS:
        ways = {
            tuple(rng.choice(tokens) for _ in range(rng.randint(1, longest)))
            for _ in range(rng.choice([1, 1, 2, 3]))
        }
        lexicon[word] = [Spelling(ids, -rng.random()) for ids in sorted(ways)]
    lexicon["q"] = [lexicon["x"][0], Spelling((*lexicon["x"][0].ids, tokens[0]), -0.1)]
    return lexicon


def draw_sentences(rng: random.Random) -> list[list[str]]:
    sentences = [[rng.choice(WORDS) for _ in range(rng.randint(1, 5))] for _ in range(12)]
    return [*sentences, list(WORDS)]


def emissions(frames: int, size: int, seed: int, peak: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (peak * torch.randn(frames, size, generator=generator)).log_softmax(-1)


def all_texts(
    frames: Tensor, lexicon: Lexicon, lm: NgramModel, space: int | None, config: BeamConfig
) -> dict[str, float]:
    """Score of the best alignment of every text, by trying all of them."""
    num_frames, size = frames.shape
    rows = frames.double().numpy()
    best_path: dict[tuple[int, ...], float] = {}
    for path in product([i for i in range(size) if i != 1], repeat=num_frames):
        tokens = tuple(token for token, _ in groupby(path) if token != 0)
        score = float(rows[range(num_frames), path].sum())
        best_path[tokens] = max(score, best_path.get(tokens, -math.inf))

    ways = [(word, ids, log_prob) for word in lexicon for ids, log_prob in lexicon[word]]

    def readings(tokens: tuple[int, ...]) -> Iterator[tuple[list[str], float]]:
        if not tokens:
            yield [], 0.0
        if tokens and tokens[0] == space:
            yield from readings(tokens[1:])
        for word, ids, log_prob in ways:
            rest = tokens[len(ids) :]
            may_follow = space is None or not rest or rest[0] == space
            if tokens[: len(ids)] == ids and may_follow:
                for words, others in readings(rest):
                    yield [word, *words], log_prob + others

    texts: dict[str, float] = {}
    for tokens, score in best_path.items():
        for words, log_prob in readings(tokens):
            log10 = sum(lm.score(words)) + log_prob / math.log(10)
            total = score + config.lm_weight * log10 + config.word_score * len(words)
            text = " ".join(words)
            texts[text] = max(total, texts.get(text, -math.inf))
    return texts


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("has_space", [False, True])
def test_the_best_of_all_alignments_of_all_texts(
    tmp_path: Path, order: int, has_space: bool
) -> None:
    for seed in range(4):
        rng = random.Random(100 * order + seed)
        tokenizer = letters_with_space() if has_space else Phones(5)
        lexicon = draw_lexicon(rng, [2, 3] if has_space else [2, 3, 4], longest=3)
        path = language_model(tmp_path, draw_sentences(rng), order)
        config = BeamConfig.model_validate(
            {"lm_weight": 2 * rng.random(), "word_score": 2 * rng.random() - 1} | WIDE
        )
        ngrams = read_search_table(path)
        beam = BeamSearch(tokenizer, word_model(tokenizer, ngrams, lexicon), config)

        frames = emissions(6, 5, seed)
        frames[:, 1] = -1e4
        space = 4 if has_space else None
        texts = all_texts(frames, lexicon, read_arpa(path), space, config)
        expected = sorted(texts.items(), key=lambda item: -item[1])

        (found,) = beam(frames[None], torch.tensor([6]), nbest=1)
        assert (found[0].text, found[0].score) == (
            expected[0][0],
            pytest.approx(expected[0][1], abs=1e-4),
        )


@pytest.mark.parametrize("has_space", [False, True])
def test_words_of_scripts_without_spaces_are_joined(tmp_path: Path, has_space: bool) -> None:
    """Against all alignments of all texts; a space stands where the recogniser says one."""
    words = ["今", "天", "今天", "天天", "天今天"]
    letters = "今天 " if has_space else "今天"
    tokenizer = CharTokenizer(letters)

    num_spaced = 0
    for seed in range(8):
        rng = random.Random(seed)
        sentences = [rng.choices(words, k=rng.randint(1, 4)) for _ in range(12)]
        path = language_model(tmp_path, [*sentences, words], 3)
        lm = read_arpa(path)
        config = BeamConfig.model_validate(
            {"lm_weight": 2 * rng.random(), "word_score": 2 * rng.random() - 1} | WIDE
        )
        model = word_model(tokenizer, read_search_table(path), spellings(tokenizer, words))
        frames = emissions(6, tokenizer.size, seed)
        frames[:, 1] = -1e4

        # The best alignment of each text, and the best way to make words of it.
        scores: dict[str, float] = {}
        outputs = [i for i in range(tokenizer.size) if i != 1]
        for alignment in product(outputs, repeat=6):
            said = "".join(tokenizer.texts[i] for i, _ in groupby(alignment) if i != 0)
            own = float(frames.double()[range(6), alignment].sum())
            for parts in ways_to_part(said, words):
                log10 = config.lm_weight * sum(lm.score(parts))
                total = own + log10 + config.word_score * len(parts)
                scores[said.strip()] = max(total, scores.get(said.strip(), -math.inf))
        expected = max(scores, key=lambda said: scores[said])

        ((found,),) = BeamSearch(tokenizer, model, config)(frames[None], torch.tensor([6]))
        assert found.text == expected
        assert found.score == pytest.approx(scores[expected], abs=1e-4)
        assert found.decoded.words is None
        assert tokenizer.decode(found.decoded.ids) == found.text
        num_spaced += " " in expected

    assert (num_spaced > 0) == has_space


def ways_to_part(said: str, words: list[str]) -> Iterator[list[str]]:
    """All ways to part a text into words, each of which one space may follow."""
    if not said:
        yield []
    for word in words:
        if said.startswith(word):
            rest = said.removeprefix(word)
            for others in ways_to_part(rest.removeprefix(" "), words):
                yield [word, *others]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_of_scripts_without_spaces_are_joined(tmp_path: Path, kind: str) -> None:
    """Against all alignments of all texts, each word divided as it is inside a longer text."""
    words = ["แมว", "รัก", "มา"]
    rng = random.Random(kind)
    spoken = [rng.choices(words, k=rng.randint(1, 4)) for _ in range(200)]
    texts = ["".join(word + " " * (rng.random() < 0.2) for word in said) for said in spoken]
    tokenizer = SentencePieceTokenizer.train(texts, 15, kind)

    # A word is divided so between other words, whichever they are.
    ways: dict[tuple[int, ...], str] = {}
    for word in words:
        ways[tuple(tokenizer.encode(word))] = word
        ways[tuple(divided_inside(tokenizer, word, words))] = word

    num_spaced = 0
    num_joined = 0
    for seed in range(4):
        path = language_model(tmp_path, [*spoken[:20], words], 3)
        lm = read_arpa(path)
        config = BeamConfig.model_validate({"lm_weight": 0.5, "word_score": 2.0} | WIDE)
        model = word_model(tokenizer, read_search_table(path), spellings(tokenizer, words))
        # Every second recogniser seldom says a space.
        frames = emissions(5, tokenizer.size, seed)
        frames[:, [" " in text for text in tokenizer.texts]] -= 3.0 * (seed % 2)
        frames[:, 1] = -1e4

        # The best alignment of all pieces, and the best words that they may be.
        rows = frames.tolist()
        best_alignment: dict[tuple[int, ...], float] = {}
        for alignment in product(sorted({0}.union(*ways)), repeat=5):
            ids = tuple(i for i, _ in groupby(alignment) if i != 0)
            own = sum(row[i] for row, i in zip(rows, alignment, strict=True))
            best_alignment[ids] = max(own, best_alignment.get(ids, -math.inf))

        scores: dict[tuple[int, ...], float] = {}
        for ids, own in best_alignment.items():
            for parts in ways_to_divide(ids, ways):
                log10 = config.lm_weight * sum(lm.score(parts))
                total = own + log10 + config.word_score * len(parts)
                scores[ids] = max(total, scores.get(ids, -math.inf))
        expected = max(scores, key=lambda ids: scores[ids])

        ((found,),) = BeamSearch(tokenizer, model, config)(frames[None], torch.tensor([5]))
        assert found.decoded.ids == expected
        assert found.score == pytest.approx(scores[expected], abs=1e-4)
        assert found.text == tokenizer.decode(expected)
        num_spaced += " " in found.text
        num_joined += found.text not in words and " " not in found.text

    assert num_spaced > 0
    assert num_joined > 0


def divided_inside(tokenizer: Tokenizer, word: str, words: list[str]) -> list[int]:
    """The pieces of a word within longer texts, where none of them reaches into its neighbours."""
    found: set[tuple[int, ...]] = set()
    for before, after in product(words, words):
        ids = tokenizer.encode(before + word + after)
        ends = list(accumulate(len(tokenizer.texts[i].strip()) for i in ids))
        begin, end = len(before), len(before + word)
        if begin in ends and end in ends:
            found.add(tuple(ids[ends.index(begin) + 1 : ends.index(end) + 1]))
    (only,) = found
    return list(only)


def ways_to_divide(ids: tuple[int, ...], ways: dict[tuple[int, ...], str]) -> Iterator[list[str]]:
    """All words that these pieces may be."""
    if not ids:
        yield []
    for pieces, word in ways.items():
        if ids[: len(pieces)] == pieces:
            for others in ways_to_divide(ids[len(pieces) :], ways):
                yield [word, *others]


def check_against_plain_python(
    folder: Path, seed: int, frames: Tensor, has_space: bool, config: BeamConfig
) -> None:
    rng = random.Random(seed)
    size = frames.shape[1]
    tokens = [i for i in range(2, size) if not (has_space and i == 4)]
    lexicon = draw_lexicon(rng, tokens, longest=4)
    order = 2 + seed % 3
    path = language_model(folder, draw_sentences(rng), order)
    lm = read_arpa(path)
    tokenizer = letters_with_space() if has_space else Phones(size)
    beam = BeamSearch(tokenizer, word_model(tokenizer, read_search_table(path), lexicon), config)
    ((found,),) = beam(frames[None], torch.tensor([len(frames)]))

    def word_score(word: str | None, context: tuple[str, ...]) -> float:
        # Where fewer words were said than count, the sentence's beginning is among them.
        before = (BEGIN, *context) if len(context) < order - 1 else context
        log10 = lm.log10_prob(word or END, before)
        return config.lm_weight * log10 + (config.word_score if word else 0.0)

    weight = config.lm_weight / math.log(10)
    ways = {w: [(ids, weight * log_prob) for ids, log_prob in lexicon[w]] for w in lexicon}
    rows = frames.double().numpy().copy()
    rows[:, 1] = -1e4
    space = 4 if has_space else None
    words, score = lexicon_search(rows, ways, word_score, order - 1, space)

    assert found.score == pytest.approx(score, abs=1e-3)
    assert found.text == " ".join(words)

    # The tokens and words of a hypothesis make its score.
    assert found.decoded.words is not None
    assert [word.text for word in found.decoded.words] == list(words)
    assert sum(word.num_tokens for word in found.decoded.words) == len(found.decoded.ids)


@pytest.mark.parametrize("has_space", [False, True])
def test_plain_python_finds_the_same(tmp_path: Path, has_space: bool) -> None:
    config = BeamConfig.model_validate({"lm_weight": 1.7, "word_score": 0.3} | WIDE)
    for seed in range(6):
        frames = emissions(25, 5, seed, peak=2.0)
        check_against_plain_python(tmp_path, seed, frames, has_space, config)


def test_plain_python_finds_the_same_in_speech_like_posteriors(tmp_path: Path) -> None:
    """Long utterances of 38 phones, mostly blank, with a beam that drops most hypotheses."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        said = np.repeat(generator.integers(2, 40, 40), 2)
        said[generator.random(80) < 0.5] = 0
        logits = generator.normal(size=(80, 40))
        logits[np.arange(80), said] += 4
        frames = torch.from_numpy(logits).float().log_softmax(-1)
        config = BeamConfig(lm_weight=2.9, word_score=-1.2, beam_size=3000, beam_threshold=100.0)
        check_against_plain_python(tmp_path, seed, frames, False, config)


def test_a_token_said_twice_needs_a_blank_between(tmp_path: Path) -> None:
    """Within a word, and from one word to the next; and a word's last token may last."""
    tokenizer = Phones(4)
    table = read_search_table(language_model(tmp_path, [["long", "short"], ["short"]], 2))
    lexicon = {"short": [Spelling((2,), 0.0)], "long": [Spelling((2, 3, 3), 0.0)]}
    beam = BeamSearch(tokenizer, word_model(tokenizer, table, lexicon), BeamConfig(lm_weight=0.01))

    def heard(path: list[int]) -> str:
        frames = torch.full((len(path), 4), -20.0)
        frames[range(len(path)), path] = 0.0
        return beam(frames[None], torch.tensor([len(path)]))[0][0].text

    assert heard([2, 2, 2]) == "short"
    assert heard([2, 0, 2]) == "short short"
    assert heard([2, 3, 0, 3, 3, 3]) == "long"
    assert heard([2, 3, 0, 3, 2]) == "long short"
    assert heard([0, 2, 0, 0, 2, 2, 3, 0, 3, 0]) == "short long"
    assert heard([0, 0]) == ""


def test_a_path_of_its_own_tokens_has_its_score(tmp_path: Path) -> None:
    """Without a language model, the score is that of the best alignment of the tokens."""
    rng = random.Random(0)
    tokenizer = Phones(6)
    table = read_search_table(language_model(tmp_path, draw_sentences(rng), 2))
    lexicon = draw_lexicon(rng, [2, 3, 4, 5], longest=4)
    beam = BeamSearch(
        tokenizer, word_model(tokenizer, table, lexicon), BeamConfig(lm_weight=0.0, beam_size=500)
    )

    for seed in range(5):
        frames = emissions(30, 6, seed, peak=3.0)
        frames[:, 1] = -1e4

        for found in beam(frames[None], torch.tensor([30]), nbest=5)[0]:
            own = path_score(frames.numpy(), found.decoded.ids)
            assert found.score <= own + 1e-3

        ((best,),) = beam(frames[None], torch.tensor([30]))
        assert best.score == pytest.approx(path_score(frames.numpy(), best.decoded.ids), abs=1e-3)


def test_texts_of_an_nbest_list_differ_and_get_worse(tmp_path: Path) -> None:
    rng = random.Random(1)
    tokenizer = Phones(5)
    table = read_search_table(language_model(tmp_path, draw_sentences(rng), 3))
    model = word_model(tokenizer, table, draw_lexicon(rng, [2, 3, 4], longest=3))
    beam = BeamSearch(tokenizer, model, BeamConfig(lm_weight=1.0, beam_size=500))
    (found,) = beam(emissions(12, 5, 0)[None], torch.tensor([12]), nbest=8)
    assert len({hypothesis.text for hypothesis in found}) == len(found) == 8
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)


def test_a_long_utterance_forgets_words_that_nobody_needs(tmp_path: Path) -> None:
    """More words end in the beam than are remembered: the text is that of its repeated parts."""
    rng = random.Random(2)
    tokenizer = Phones(8)
    table = read_search_table(language_model(tmp_path, draw_sentences(rng), 2))
    lexicon = {word: [Spelling((2 + i,), 0.0)] for i, word in enumerate(WORDS)}
    beam = BeamSearch(
        tokenizer, word_model(tokenizer, table, lexicon), BeamConfig(lm_weight=0.1, beam_size=400)
    )

    said = [rng.choice(WORDS) for _ in range(600)]
    frames = torch.full((1200, 8), -6.0)
    for place, word in enumerate(said):
        frames[2 * place, lexicon[word][0].ids[0]] = 0.0
        frames[2 * place + 1, 0] = 0.0

    ((found,),) = beam(frames[None], torch.tensor([1200]))
    assert found.text.split() == said


def letters_search(folder: Path, **changes: float) -> BeamSearch:
    tokenizer = CharTokenizer.train(SENTENCES)
    path = language_model(folder, [sentence.split() for sentence in SENTENCES], 3)
    table = read_search_table(path)
    lexicon = spellings(tokenizer, table.words)
    config = BeamConfig.model_validate({"lm_weight": 1.3, "word_score": 0.7} | WIDE | changes)
    return BeamSearch(tokenizer, word_model(tokenizer, table, lexicon), config)


def test_an_utterance_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    beam = letters_search(tmp_path)
    frames = torch.stack([emissions(7, beam.tokenizer.size, seed) for seed in range(3)])
    lengths = torch.tensor([7, 4, 0])
    together = beam(frames, lengths)
    alone = [
        beam(frames[i : i + 1, : int(n)], lengths[i : i + 1])[0] for i, n in enumerate(lengths)
    ]
    assert together == alone
    assert together[2][0].text == ""


def test_half_a_word_is_no_word(tmp_path: Path) -> None:
    """The audio ends, as surely as can be, in the middle of the only word of its kind."""
    tokenizer = CharTokenizer.train(["abcdefgh a"])
    table = read_search_table(language_model(tmp_path, [["a", "abcdefgh"], ["a"]], 2))
    lexicon = spellings(tokenizer, table.words)
    beam = BeamSearch(tokenizer, word_model(tokenizer, table, lexicon), BeamConfig())
    ids = tokenizer.encode("a abcdefg")
    frames = torch.full((len(ids), tokenizer.size), 1e-20)
    frames[range(len(ids)), ids] = 1.0
    assert beam(frames.log()[None], torch.tensor([len(ids)]))[0][0].text == "a"


def test_a_name_that_the_model_lacks_is_said_at_the_price_of_unknown(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train(["ab ba name"])
    table = read_search_table(language_model(tmp_path, [["ab", "ba"], ["ba"]], 2))
    lexicon = spellings(tokenizer, [*table.words, "name"])
    ids = [i for letter in tokenizer.encode("ab name") for i in (letter, 0)]
    frames = torch.full((len(ids), tokenizer.size), -8.0)
    frames[range(len(ids)), ids] = 0.0
    lengths = torch.tensor([len(ids)])
    config = BeamConfig(lm_weight=1.0)

    known_only = BeamSearch(tokenizer, word_model(tokenizer, table, lexicon), config)
    assert "name" not in known_only(frames[None], lengths)[0][0].text

    with_unknown = word_model(tokenizer, table, lexicon, unknown_words=True)
    ((found,),) = BeamSearch(tokenizer, with_unknown, config)(frames[None], lengths)
    assert found.text == "ab name"
    lm = read_arpa(tmp_path / "lm.arpa")
    assert found.score == pytest.approx(sum(lm.score(["ab", "name"])), abs=1e-4)


def test_a_model_without_a_word_of_the_lexicon_is_refused() -> None:
    tokenizer = CharTokenizer.train(["ab"])
    table = SearchTable((BEGIN, END), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="none of the words that the recogniser can spell"):
        word_model(tokenizer, table, spellings(tokenizer, ["ab"]))
