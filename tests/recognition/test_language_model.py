"""Weights of a language model: the best that were tried, kept with the model, and used."""

import bz2
import gzip
import lzma
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from support.language_models import lm_lines
from support.settings import tuned
from torch import Tensor

from speechssl.config import as_table
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.hypothesis import BeamConfig, Decoded, Hypothesis
from speechssl.errors import CheckpointError, ConfigError
from speechssl.recognition.decoders import beam_decoder, emissions
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.language_model import holds_lm, lm_digest, load_lm, save_lm
from speechssl.recognition.lm_training import read_texts
from speechssl.recognition.lm_weights import GRIDS, STEPS, Tried, Tuned, find_weights
from speechssl.recognition.model import load_ctc
from speechssl.scoring.score import Counts, score
from speechssl.storage.checkpoint import save_folder
from speechssl.storage.saved_folders import model_folder
from speechssl.text.word_spaces import are_without_word_spaces


@pytest.fixture(scope="module")
def model(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "model"
    finetune([labelled_store], run, tuned(), init=None)
    return run


def test_the_best_pair_is_found_and_comes_first(
    model: Path, labelled_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that is better the nearer its weights are to some: the tuner must find these."""
    recogniser = load_ctc(model_folder(model))
    dataset = Dataset([Store(labelled_store)], ["dev"])
    said = [dataset.id_text(p)[1] or "" for p in range(len(dataset))]
    shortest = min(said, key=len)
    priors: list[Tensor] = []

    class Search:
        def __init__(self, config: BeamConfig, log_prior: Tensor) -> None:
            self.config = config
            priors.append(log_prior)
            off = (
                abs(config.lm_weight - 3.5)
                + 5 * abs(config.prior_scale - 0.6)
                + abs(config.word_score + 6)
            )
            self.ids = tuple(
                recogniser.tokenizer.encode(" ".join([shortest] + ["a"] * round(2 * off)))
            )

        def __call__(self, log_probs: Tensor, _: Tensor) -> list[list[Hypothesis]]:
            return [[Hypothesis("", 0.0, Decoded(self.ids))] for _ in log_probs]

    found = find_weights(recogniser, dataset, BeamConfig(), Search)  # type: ignore[arg-type]
    best = found.tried[0].config
    assert (best.lm_weight, best.prior_scale, best.word_score) == (3.5, 0.6, -6)

    shares = torch.cat(
        [
            rows[k, :n]
            for _, rows, count in emissions(recogniser, dataset)
            for k, n in enumerate(count)
        ]
    )
    torch.testing.assert_close(
        found.log_prior.exp(), shares.double().exp().mean(0).clamp(min=1e-4).float()
    )
    assert all(prior is found.log_prior for prior in priors)

    both = [t.score.wer + t.score.cer for t in found.tried]
    assert both == sorted(both)
    assert len({t.config for t in found.tried}) == len(found.tried) <= 56

    assert found.greedy == evaluate(recogniser, dataset)

    assert found.tried[0].score.calibration is not None
    scaling = found.tried[0].score.calibration.scaling
    assert (found.best.confidence_slope, found.best.confidence_offset) == (
        scaling.slope,
        scaling.offset,
    )
    assert (found.best.lm_weight, found.best.word_score) == (3.5, -6)


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_a_set_on_which_all_weights_are_equal_does_not_turn_the_model_off(
    model: Path, labelled_store: Path, unit: str, is_right: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are right, or all say one wrong word: nothing speaks for a weight of 0."""
    recogniser = load_ctc(model_folder(model))
    dataset = Dataset([Store(labelled_store)], ["dev"])
    texts = dict(dataset.id_text(p) for p in range(len(dataset)))
    order = [texts[name] or "" for names, _, _ in emissions(recogniser, dataset) for name in names]

    class Search:
        def __init__(self, config: BeamConfig, _: Tensor) -> None:
            self.config, self.left = config, iter(order)

        def __call__(self, log_probs: Tensor, _: Tensor) -> list[list[Hypothesis]]:
            said = [next(self.left) if is_right else "a" for _ in log_probs]
            return [
                [Hypothesis("", 0.0, Decoded(tuple(recogniser.tokenizer.encode(text))))]
                for text in said
            ]

    config = BeamConfig.model_validate({"unit": unit})
    found = find_weights(recogniser, dataset, config, Search)  # type: ignore[arg-type]
    grid = GRIDS[unit]
    best = found.tried[0].config
    assert best.lm_weight == sorted(grid["lm_weight"])[1]
    assert best.prior_scale == sorted(grid["prior_scale"])[1]

    said = capsys.readouterr().err
    num_words = sum(len(text.split()) for text in order)
    assert f"all {len(found.tried)} weights make the same errors" in said
    assert ("weights found on" in said) == (num_words < 100)
    assert ("of the best of these weights, though something was heard" in said) != is_right


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_between_equal_weights_a_rule_decides_and_not_their_order(
    model: Path, labelled_store: Path, unit: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many weights make the same errors; the values of the grid are tried in two orders."""
    recogniser = load_ctc(model_folder(model))
    dataset = Dataset([Store(labelled_store)], ["dev"])

    class Search:
        def __init__(self, config: BeamConfig, _: Tensor) -> None:
            self.config = config
            weights = (config.lm_weight, config.prior_scale, config.word_score)
            num_said = random.Random(repr((seed, weights))).randint(1, 2)
            self.ids = tuple(recogniser.tokenizer.encode("a" * num_said))

        def __call__(self, log_probs: Tensor, _: Tensor) -> list[list[Hypothesis]]:
            return [[Hypothesis("", 0.0, Decoded(self.ids))] for _ in log_probs]

    def found() -> list[BeamConfig]:
        config = BeamConfig.model_validate({"unit": unit})
        return [point.config for point in find_weights(recogniser, dataset, config, Search).tried]  # type: ignore[arg-type]

    in_order = found()
    shuffled = {
        name: tuple(random.Random(seed).sample(values, len(values)))
        for name, values in GRIDS[unit].items()
    }
    monkeypatch.setitem(GRIDS, unit, dict(reversed(shuffled.items())))
    assert found() == in_order

    def rank(config: BeamConfig) -> tuple[Fraction, ...]:
        values = [Fraction(str(getattr(config, name))) for name in STEPS]
        steps = Fraction(0)
        for (name, step), value in zip(STEPS.items(), values, strict=True):
            grid = [Fraction(str(one)) for one in GRIDS[unit][name]]
            steps += abs(value - (min(grid) + max(grid)) / 2) / Fraction(str(step))
        return steps, *values

    num_said = {config: len(Search(config, torch.zeros(1)).ids) for config in in_order}
    for said in set(num_said.values()):
        equal = [config for config in in_order if num_said[config] == said]
        assert equal == sorted(equal, key=rank)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_does_not_decide_between_weights(seed: int) -> None:
    """A word error less, and as many errors in characters more as make up for it."""
    draws = random.Random(seed)
    plain = score({"a": "b"}, {"a": "b"})

    for _ in range(100):
        num_words, letters = draws.randint(5, 40), draws.randint(2, 7)
        wrong = draws.randint(1, num_words - 1)
        errors = draws.randint(0, num_words)

        def tried(wrong: int, errors: int, num_words: int = num_words, k: int = letters) -> Tried:
            words = Counts(num_words - wrong, wrong, 0, 0)
            characters = Counts(k * num_words - errors, errors, 0, 0)
            return Tried(BeamConfig(), replace(plain, words=words, characters=characters), 1.0)

        one, other = tried(wrong, errors), tried(wrong - 1, errors + letters)
        assert one.errors == other.errors
        for first, second in ((one, other), (other, one)):
            assert Tuned(first.score, [second], [second], torch.zeros(3)).is_worth_keeping


def test_words_are_not_bought_with_letters(model: Path, labelled_store: Path) -> None:
    """By words alone, one right word and no more beats a text with each word a bit wrong."""
    recogniser = load_ctc(model_folder(model))
    dataset = Dataset([Store(labelled_store)], ["dev"])
    texts = dict(dataset.id_text(p) for p in range(len(dataset)))
    order = [texts[name] or "" for names, _, _ in emissions(recogniser, dataset) for name in names]

    class Search:
        def __init__(self, config: BeamConfig, _: Tensor) -> None:
            self.config, self.left, self.brief = config, iter(order), config.lm_weight == 2

        def __call__(self, log_probs: Tensor, _: Tensor) -> list[list[Hypothesis]]:
            words = [next(self.left).split() for _ in log_probs]
            said = [w[0] if self.brief else " ".join(x + x[-1] for x in w) for w in words]
            return [
                [Hypothesis("", 0.0, Decoded(tuple(recogniser.tokenizer.encode(text))))]
                for text in said
            ]

    found = find_weights(recogniser, dataset, BeamConfig(), Search)  # type: ignore[arg-type]
    brief = next(t for t in found.tried if t.config.lm_weight == 2)
    assert brief.score.wer < found.tried[0].score.wer
    assert brief.score.cer > found.tried[0].score.cer
    assert found.best.lm_weight != 2


@pytest.mark.parametrize(
    ("texts", "best"), [(("ab cd ef", "abc"), "words"), (("今天天气", "很好很好"), "characters")]
)
def test_characters_alone_count_where_no_spaces_part_the_words(
    texts: tuple[str, ...], best: str
) -> None:
    """One text is right as a whole and the other missing, or both are wrong by a character."""
    references = dict(zip("ab", texts, strict=True))
    whole = score(references, {"a": texts[0], "b": ""})
    nearly = score(references, {name: text[:-1] for name, text in references.items()})
    by_characters = are_without_word_spaces(texts)

    tried = {
        "words": Tried(BeamConfig(), whole, 1.0, by_characters),
        "characters": Tried(BeamConfig(), nearly, 1.0, by_characters),
    }
    assert min(tried, key=lambda name: tried[name].errors) == best
    kept = Tuned(whole, [tried["characters"]], [tried["characters"]], torch.zeros(3))
    assert kept.is_worth_keeping == (best == "characters")


@pytest.mark.parametrize(("unit", "looks"), [("words", 12), ("tokens", 9)])
def test_no_look_is_wasted_on_a_score_that_changes_nothing(
    model: Path, labelled_store: Path, monkeypatch: pytest.MonkeyPatch, unit: str, looks: int
) -> None:
    """Pieces begin words themselves: over them a search has no separator to give a score to."""
    recogniser = load_ctc(model_folder(model))
    monkeypatch.setattr("speechssl.recognition.lm_weights.separator", lambda tokenizer: ())
    tried: list[BeamConfig] = []

    class Search:
        def __init__(self, config: BeamConfig, _: Tensor) -> None:
            self.config = config
            tried.append(config)

        def __call__(self, log_probs: Tensor, _: Tensor) -> list[list[Hypothesis]]:
            return [[Hypothesis("", 0.0, Decoded(()))] for _ in log_probs]

    dataset = Dataset([Store(labelled_store)], ["dev"])
    find_weights(recogniser, dataset, BeamConfig.model_validate({"unit": unit}), Search)  # type: ignore[arg-type]
    assert len(set(tried[:looks])) == looks
    assert (len({config.word_score for config in tried}) > 1) == (unit == "words")
    assert len({config.lm_weight for config in tried[:looks]}) == (2 if unit == "words" else 3)
    assert len({config.prior_scale for config in tried[:looks]}) == 3


def write_arpa(path: Path, store: Path) -> list[str]:
    """Count the transcripts of ``store``; return their words."""
    texts = [text.split() for text in read_texts([store], "train")]
    path.write_text("".join(lm_lines(texts, 3)), encoding="utf-8")
    return sorted({word for text in texts for word in text})


def test_a_language_model_travels_with_its_model(
    model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    recogniser = load_ctc(model_folder(model))
    arpa = tmp_path / "given.arpa"
    words = write_arpa(arpa, labelled_store)
    config = BeamConfig(lm_weight=1.5, word_score=20.0)
    folder = tmp_path / "model"
    assert load_lm(folder, recogniser.tokenizer) is None

    save_lm(folder, arpa, words, config, {})
    moved = folder.rename(tmp_path / "elsewhere")
    arpa.rename(tmp_path / "other.arpa")
    beam = load_lm(moved, recogniser.tokenizer)
    assert beam is not None
    assert beam.config == config

    dataset = Dataset([Store(labelled_store)], ["dev"])
    result = evaluate(recogniser, dataset, decoder=beam_decoder(beam))
    heard = {word for u in result.utterances for word in u.hypothesis.split()}
    assert heard
    assert heard <= set(words)


def test_the_prior_of_a_saved_language_model_is_taken_off(
    model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    tokenizer = load_ctc(model_folder(model)).tokenizer
    arpa = tmp_path / "given.arpa"
    words = write_arpa(arpa, labelled_store)
    plain = BeamConfig(lm_weight=1.5, word_score=20.0)
    half = plain.model_copy(update={"prior_scale": 0.5})
    prior = torch.linspace(-9, 0, tokenizer.size)

    save_lm(tmp_path / "plain", arpa, words, plain, {})
    save_lm(tmp_path / "prior", arpa, words, half, {}, prior)
    without = load_lm(tmp_path / "plain", tokenizer)
    with_prior = load_lm(tmp_path / "prior", tokenizer)
    assert without is not None
    assert with_prior is not None

    rows = torch.randn(1, 30, len(prior)).log_softmax(2)
    num_frames = torch.tensor([30])
    assert with_prior(rows, num_frames) == without(rows - 0.5 * prior, num_frames)

    for wrong in (None, prior[1:]):
        save_lm(tmp_path / "wrong", arpa, words, half, {}, wrong)
        with pytest.raises(CheckpointError, match="does not hold log_prior of the"):
            load_lm(tmp_path / "wrong", tokenizer)


def test_a_language_model_that_was_tampered_with_is_refused(
    model: Path, labelled_store: Path, tmp_path: Path
) -> None:
    tokenizer = load_ctc(model_folder(model)).tokenizer
    record = {"kind": "lm", "file": "../../lm.arpa", "beam": as_table(BeamConfig())}
    save_folder(tmp_path / "hostile/lm", {}, record, {})
    with pytest.raises(CheckpointError, match="not a file of it"):
        load_lm(tmp_path / "hostile", tokenizer)

    words = write_arpa(tmp_path / "given.arpa", labelled_store)
    save_lm(tmp_path / "model", tmp_path / "given.arpa", words, BeamConfig(), {})
    (tmp_path / "model/lm/words.txt").write_text("other\n")
    with pytest.raises(CheckpointError, match=r"words\.txt is damaged"):
        load_lm(tmp_path / "model", tokenizer)


def test_texts_come_from_files_and_stores(labelled_store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree\n", encoding="utf-8")
    found = list(read_texts([tmp_path / "a.txt", labelled_store], "dev"))
    store = Store(labelled_store)
    assert [line.strip() for line in found[:3]] == ["one two", "", "three"]
    assert found[3:] == [store.record(int(i)).text for i in store.indices(["dev"])]
    with pytest.raises(
        ConfigError, match="no transcripts in split nowhere; those with some: dev, test, train"
    ):
        list(read_texts([labelled_store], "nowhere"))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"b\.txt cannot be read as text"):
        list(read_texts([tmp_path / "b.txt"], "train"))


def test_a_model_folder_holds_a_language_model_by_its_content(tmp_path: Path) -> None:
    """Not by its path: a file may be made anew under its old name."""
    given = tmp_path / "words.arpa"
    given.write_text("".join(lm_lines([["a", "b"], ["b", "a"]], 2)))
    moved = tmp_path / "moved.arpa"
    moved.write_bytes(given.read_bytes())
    model = tmp_path / "model"
    assert not holds_lm(model, given)

    save_lm(model, given, None, BeamConfig(unit="tokens"), lm_digest(given))
    assert holds_lm(model, given)
    assert holds_lm(model, moved)

    given.write_text("".join(lm_lines([["a", "b"], ["b", "b"]], 2)))
    assert not holds_lm(model, given)


@pytest.mark.parametrize("kind", ["", ".gz", ".bz2", ".xz"])
def test_a_compressed_model_over_tokens_is_kept_as_text(tmp_path: Path, kind: str) -> None:
    """Its bytes were kept as they were, under a name that does not say that they are compressed."""
    compress = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[kind]
    arpa = "\\data\\\nngram 1=2\n\n\\1-grams:\n-1\tä\n-1\t|\n\n\\end\\\n".encode()
    given = tmp_path / f"letters.arpa{kind}"
    given.write_bytes(compress(arpa))
    save_lm(tmp_path / "model", given, None, BeamConfig(unit="tokens"), lm_digest(given))
    assert (tmp_path / "model/lm/lm.arpa").read_bytes() == arpa
