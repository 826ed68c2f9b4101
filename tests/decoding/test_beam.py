"""Beam search: all alignments summed by brute force, flashlight's and ours alike."""

from collections import defaultdict
from itertools import groupby, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechssl.decoding.arpa import arpa_lines, read_arpa
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import spellings, token_name
from speechssl.decoding.ngram import estimate
from speechssl.errors import ConfigError
from speechssl.text.tokenizers import CharTokenizer, SentencePieceTokenizer, Tokenizer

SENTENCES = ["ab a ba", "ba ab ab", "a a ba", "ab ba a b", "b", "aa ba"]
WIDE = {"beam_size": 5000, "beam_threshold": 1e3, "beam_tokens": 50}


def lm_file(folder: Path, unit: str) -> Path:
    sentences = [s.split() if unit == "words" else [token_name(c) for c in s] for s in SENTENCES]
    path = folder / f"{unit}.arpa"
    path.write_text("".join(arpa_lines(estimate(sentences, 3))), encoding="utf-8")
    return path


def search(folder: Path, unit: str, backend: str, **changes: float) -> BeamSearch:
    tokenizer = CharTokenizer.train(SENTENCES)
    lexicon = (
        spellings(tokenizer, {w for s in SENTENCES for w in s.split()}) if unit == "words" else None
    )
    config = BeamConfig.model_validate(
        {"unit": unit, "lm_weight": 1.3, "word_score": 0.7} | WIDE | changes
    )
    return BeamSearch(tokenizer, lm_file(folder, unit), lexicon, config, backend)  # type: ignore[arg-type]


def emissions(frames: int, size: int, seed: int, peak: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (peak * torch.randn(frames, size, generator=generator)).log_softmax(-1)


def brute_force(frames: Tensor, tokenizer: Tokenizer, folder: Path) -> dict[str, float]:
    """Score of every text that the lexicon can say: all alignments summed, and weighted words."""
    lexicon = spellings(tokenizer, {w for s in SENTENCES for w in s.split()})
    model = read_arpa(lm_file(folder, "words"))
    ways = defaultdict(list)
    ids = [i for i in range(tokenizer.size) if i != tokenizer.unk_id]
    for path in product(ids, repeat=len(frames)):
        text = tokenizer.decode([i for i, _ in groupby(path) if i != tokenizer.blank_id])
        ways[text].append(sum(float(frames[t, i]) for t, i in enumerate(path)))
    found = {}
    for text, values in ways.items():
        words = text.split()
        if all(word in lexicon for word in words):
            ctc = float(torch.logsumexp(torch.tensor(values, dtype=torch.float64), 0))
            found[text] = ctc + 1.3 * sum(model.score(words)) + 0.7 * len(words)
    return found


@pytest.mark.parametrize("backend", ["plain", "flashlight"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_sums_over_all_alignments(tmp_path: Path, backend: str, seed: int) -> None:
    if backend == "flashlight":
        pytest.importorskip("flashlight")
    beam = search(tmp_path, "words", backend)
    frames = emissions(6, beam.tokenizer.size, seed)
    expected = sorted(
        brute_force(frames, beam.tokenizer, tmp_path).items(), key=lambda item: -item[1]
    )
    (found,) = beam(frames[None], torch.tensor([6]), nbest=5)
    assert [h.text for h in found] == [text for text, _ in expected[:5]]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected[:5]], abs=1e-3)


@pytest.mark.parametrize("unit", ["words", "tokens"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_ours_and_flashlight_agree(tmp_path: Path, unit: str, seed: int) -> None:
    pytest.importorskip("flashlight")
    pair = [
        search(tmp_path, unit, backend, beam_size=200, beam_threshold=40.0)
        for backend in ("plain", "flashlight")
    ]
    frames = emissions(11, pair[0].tokenizer.size, seed, peak=2.5)
    ours, theirs = (beam(frames[None], torch.tensor([11]), nbest=3)[0] for beam in pair)
    assert [h[::2] for h in ours] == [h[::2] for h in theirs]  # texts and tokens
    assert all(h.text == pair[0].tokenizer.decode(h.ids) for h in ours)
    assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-2)


def test_an_utterance_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    beam = search(tmp_path, "words", "plain")
    frames = torch.stack([emissions(7, beam.tokenizer.size, seed) for seed in range(3)])
    lengths = torch.tensor([7, 4, 0])
    together = beam(frames, lengths)
    alone = [
        beam(frames[i : i + 1, : int(n)], lengths[i : i + 1])[0] for i, n in enumerate(lengths)
    ]
    assert together == alone
    assert together[2][0].text == ""


def test_the_language_model_decides_what_sounds_alike(tmp_path: Path) -> None:
    """Two words as likely to the ear: the likelier one in the text wins."""
    beam = search(tmp_path, "words", "plain", lm_weight=2.0, word_score=0.0)
    tokenizer = beam.tokenizer
    said = tokenizer.encode("b ab")
    frames = torch.full((2 * len(said), tokenizer.size), 1e-4)
    for place, i in enumerate(said):
        frames[2 * place, i] = 1.0
        frames[2 * place + 1, tokenizer.blank_id] = 1.0
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    frames[0, a] = frames[0, b] = 0.5
    (best,) = beam(frames.log()[None], torch.tensor([len(frames)]))[0]
    model = read_arpa(lm_file(tmp_path, "words"))
    likelier = max(("a ab", "b ab"), key=lambda text: sum(model.score(text.split())))
    assert best.text == likelier


@pytest.mark.parametrize("frames_each", [1, 3])
@pytest.mark.parametrize("backend", ["plain", "flashlight"])
def test_pieces_are_searched_as_tokens(tmp_path: Path, backend: str, frames_each: int) -> None:
    """SentencePiece has no token for the space, which a model over words needs."""
    if backend == "flashlight":
        pytest.importorskip("flashlight")
    tokenizer = SentencePieceTokenizer.train(SENTENCES * 5, 8, "bpe")
    lexicon = spellings(tokenizer, {w for s in SENTENCES for w in s.split()})
    config = BeamConfig.model_validate({"lm_weight": 0.5} | WIDE)
    with pytest.raises(ConfigError, match="needs a recogniser with a token for the space"):
        BeamSearch(tokenizer, lm_file(tmp_path, "words"), lexicon, config, backend)  # type: ignore[arg-type]
    pieces = [[token_name(tokenizer.texts[i]) for i in tokenizer.encode(s)] for s in SENTENCES]
    (tmp_path / "pieces.arpa").write_text(
        "".join(arpa_lines(estimate(pieces, 3))), encoding="utf-8"
    )
    narrow = config.model_copy(update={"unit": "tokens", "beam_size": 50, "beam_threshold": 30.0})
    beam = BeamSearch(tokenizer, tmp_path / "pieces.arpa", None, narrow, backend)  # type: ignore[arg-type]
    said = tokenizer.encode("ba ab a")
    ids = [i for token in said for i in (*[token] * frames_each, tokenizer.blank_id)]
    frames = torch.full((len(ids), tokenizer.size), 1e-5)
    frames[range(len(ids)), ids] = 1.0
    (best,) = beam(frames.log()[None], torch.tensor([len(ids)]))[0]
    assert (best.text, best.ids) == ("ba ab a", tuple(said))


@pytest.mark.parametrize("backend", ["plain", "flashlight"])
def test_half_a_word_is_no_word(tmp_path: Path, backend: str) -> None:
    """The audio ends, as surely as can be, in the middle of the only word of its kind."""
    if backend == "flashlight":
        pytest.importorskip("flashlight")
    tokenizer = CharTokenizer.train(["abcdefgh a"])
    path = tmp_path / "lm.arpa"
    path.write_text("".join(arpa_lines(estimate([["abcdefgh"], ["a"]], 2))), encoding="utf-8")
    lexicon = spellings(tokenizer, ["abcdefgh", "a"])
    beam = BeamSearch(tokenizer, path, lexicon, BeamConfig(), backend)  # type: ignore[arg-type]
    ids = tokenizer.encode("abcdefg")
    frames = torch.full((len(ids), tokenizer.size), 1e-6)
    frames[range(len(ids)), ids] = 1.0
    for found in beam(frames.log()[None], torch.tensor([len(ids)]), nbest=5)[0]:
        assert found.text == tokenizer.decode(found.ids)
        assert set(found.text.split()) <= set(lexicon)
