"""Beam search over tokens: all alignments summed by brute force, flashlight's and ours alike."""

from collections import defaultdict
from itertools import groupby, product
from pathlib import Path

import pytest
import torch
from support.language_models import lm_lines
from torch import Tensor

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.beam import Backend, BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import token_name
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer

SENTENCES = ["ab a ba", "ba ab ab", "a a ba", "ab ba a b", "b", "aa ba"]
WIDE = {"beam_size": 5000, "beam_threshold": 1e3, "beam_tokens": 50}


def lm_file(folder: Path) -> Path:
    """A language model over the letters and the space."""
    sentences = [[token_name(character) for character in sentence] for sentence in SENTENCES]
    path = folder / "tokens.arpa"
    path.write_text("".join(lm_lines(sentences, 3)), encoding="utf-8")
    return path


def search(folder: Path, backend: Backend, **changes: float) -> BeamSearch:
    tokenizer = CharTokenizer.train(SENTENCES)
    settings = {"unit": "tokens", "lm_weight": 1.3, "word_score": 0.7}
    config = BeamConfig.model_validate(settings | WIDE | changes)
    return BeamSearch(tokenizer, lm_file(folder), config, backend)


def emissions(frames: int, size: int, seed: int, peak: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (peak * torch.randn(frames, size, generator=generator)).log_softmax(-1)


@pytest.mark.parametrize("backend", ["plain", "flashlight"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_sums_over_all_alignments(tmp_path: Path, backend: Backend, seed: int) -> None:
    """Within a word: both engines take a space at the beginning for one that was there before."""
    if backend == "flashlight":
        pytest.importorskip("flashlight")
    beam = search(tmp_path, backend)
    tokenizer = beam.tokenizer
    frames = emissions(5, tokenizer.size, seed)
    frames[:, tokenizer.encode("a b")[1]] = -1e3
    (found,) = beam(frames[None], torch.tensor([5]), nbest=1)

    ways = defaultdict(list)
    ids = [i for i in range(tokenizer.size) if i != tokenizer.unk_id]
    for path in product(ids, repeat=5):
        tokens = tuple(i for i, _ in groupby(path) if i != tokenizer.blank_id)
        ways[tokens].append(sum(float(frames[t, i]) for t, i in enumerate(path)))

    model = read_arpa(lm_file(tmp_path))
    scores = {}
    for tokens, values in ways.items():
        ctc = float(torch.logsumexp(torch.tensor(values, dtype=torch.float64), 0))
        names = [token_name(tokenizer.texts[i]) for i in tokens]
        scores[tokens] = ctc + 1.3 * sum(model.score(names))

    best = max(scores, key=scores.__getitem__)
    assert found[0].text == tokenizer.decode(best)
    assert found[0].score == pytest.approx(scores[best], abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_ours_and_flashlight_agree(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("flashlight")
    backends: list[Backend] = ["plain", "flashlight"]
    pair = [search(tmp_path, backend, beam_size=200, beam_threshold=40.0) for backend in backends]
    frames = emissions(11, pair[0].tokenizer.size, seed, peak=2.5)
    ours, theirs = (beam(frames[None], torch.tensor([11]), nbest=3)[0] for beam in pair)
    assert [h[::2] for h in ours] == [h[::2] for h in theirs]  # texts and tokens
    assert all(h.text == pair[0].tokenizer.decode(h.decoded.ids) for h in ours)
    assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-2)


def test_an_utterance_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    beam = search(tmp_path, "plain")
    frames = torch.stack([emissions(7, beam.tokenizer.size, seed) for seed in range(3)])
    lengths = torch.tensor([7, 4, 0])
    together = beam(frames, lengths)
    alone = [
        beam(frames[i : i + 1, : int(n)], lengths[i : i + 1])[0] for i, n in enumerate(lengths)
    ]
    assert together == alone
    assert together[2][0].text == ""


@pytest.mark.parametrize("frames_each", [1, 3])
@pytest.mark.parametrize("backend", ["plain", "flashlight"])
def test_pieces_are_searched_as_tokens(tmp_path: Path, backend: Backend, frames_each: int) -> None:
    if backend == "flashlight":
        pytest.importorskip("flashlight")

    tokenizer = SentencePieceTokenizer.train(SENTENCES * 5, 8, "bpe")
    config = BeamConfig.model_validate({"lm_weight": 0.5} | WIDE)

    pieces = [[token_name(tokenizer.texts[i]) for i in tokenizer.encode(s)] for s in SENTENCES]
    (tmp_path / "pieces.arpa").write_text("".join(lm_lines(pieces, 3)), encoding="utf-8")
    narrow = config.model_copy(update={"unit": "tokens", "beam_size": 50, "beam_threshold": 30.0})
    beam = BeamSearch(tokenizer, tmp_path / "pieces.arpa", narrow, backend)
    said = tokenizer.encode("ba ab a")

    ids = [i for token in said for i in (*[token] * frames_each, tokenizer.blank_id)]
    frames = torch.full((len(ids), tokenizer.size), 1e-5)
    frames[range(len(ids)), ids] = 1.0

    (best,) = beam(frames.log()[None], torch.tensor([len(ids)]))[0]
    assert (best.text, best.decoded.ids) == ("ba ab a", tuple(said))
