"""The GMM-HMM peer: what it writes for sphinxtrain, its search on dev, and a whole toy run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
import sphinx_train
from sphinx_decode import Weights, check_order, find_weights
from sphinx_train import PeerSettings, call, choose, configuration, dictionary, leave_out_unspelled
from support.places import ROOT
from support.scripts import load_script
from support.speech import make_labelled

from speechssl.corpus.layouts import scan
from speechssl.data.dataset import Dataset, choose_minutes
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.scoring.compare import read_system
from speechssl.text.phone_tokenizer import PhoneTokenizer

tool = load_script(ROOT / "tools" / "sphinx_peer.py")


def is_installed() -> bool:
    try:
        sphinx_train.require_packages()
    except ConfigError:
        return False
    return True


def prepared(folder: Path, counts: Mapping[str, int]) -> tuple[Path, Path]:
    """Recordings of the toy language, and a store of them."""
    audio = make_labelled(folder / "toy", dict(counts))
    prepare(scan(audio), folder / "store")
    return audio, folder / "store"


def words_of(store: Path, *splits: str) -> list[str]:
    dataset = Dataset([Store(store)], splits)
    texts = [dataset.id_text(position)[1] or "" for position in range(len(dataset))]
    return sorted({word for text in texts for word in text.split()})


def lexicon_of(words: Iterable[str], path: Path) -> Path:
    """Every word by its letters."""
    path.write_text("".join(f"{word} {' '.join(word.upper())}\n" for word in words))
    return path


def equally_probable(words: Sequence[str], path: Path) -> Path:
    """An ARPA file in which each word is as probable as the end."""
    log10 = -math.log10(len(words) + 1)
    unigrams = "".join(f"{log10:.5f}\t{word}\t0\n" for word in ["</s>", *words])
    path.write_text(
        f"\\data\\\nngram 1={len(words) + 2}\nngram 2=1\n\n"
        f"\\1-grams:\n-99\t<s>\t0\n{unigrams}\n"
        f"\\2-grams:\n{log10:.5f}\t<s> {words[0]}\n\n\\end\\\n"
    )
    return path


def test_both_programs_read_variants_with_a_number() -> None:
    lines = list(dictionary({"b": [(3,)], "a": [(2, 3), (12,)]}))
    assert lines == ["a P002 P003\n", "a(2) P012\n", "b P003\n"]


def test_it_learns_from_the_minutes_that_fine_tuning_chooses(tmp_path: Path) -> None:
    _, store = prepared(tmp_path, {"train": 12, "dev": 2})
    train = Dataset([Store(store)], ["train"])
    expected = choose_minutes(train, 0.2, seed=3)

    word = (expected.id_text(0)[1] or "").split()[0]
    others = [other for other in words_of(store, "train") if other != word]
    lexicon = lexicon_of(others, tmp_path / "lexicon.txt")
    chosen = choose(store, lexicon, PeerSettings(minutes=0.2, seed=3))
    names = [expected.id_text(position)[0] for position in range(len(expected))]
    assert [chosen.dataset.id_text(position)[0] for position in range(len(names))] == names

    assert isinstance(chosen.tokenizer, PhoneTokenizer)
    spelled = leave_out_unspelled(chosen, chosen.tokenizer)
    having = [position for position, text in enumerate(chosen.texts) if word in text.split()]
    assert len(spelled.left_out) == len(having) >= 1
    assert sorted([*spelled.positions, *having]) == list(range(len(names)))
    assert all(word in line for line in spelled.left_out)


def test_the_configuration_is_sphinxtrains_own_with_our_numbers(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    template = tmp_path / "etc" / "sphinx_train.cfg"
    template.write_text(
        '$CFG_BASE_DIR = "___BASE_DIR___";\n$CFG_FINAL_NUM_DENSITIES = 256;\n'
        "$CFG_FINAL_NUM_DENSITIES = 8;\n$CFG_N_TIED_STATES = 200;\n"
    )

    settings = PeerSettings(senones=70, gaussians=4)
    assert configuration(tmp_path, Path("/models/a"), settings) == (
        '$CFG_BASE_DIR = "/models/a";\n$CFG_FINAL_NUM_DENSITIES = 4;\n'
        "$CFG_FINAL_NUM_DENSITIES = 4;\n$CFG_N_TIED_STATES = 70;\n"
    )

    template.write_text("$CFG_N_TIED_STATES = 200;\n")
    with pytest.raises(SpeechsslError, match="CFG_FINAL_NUM_DENSITIES"):
        configuration(tmp_path, Path("/models/a"), settings)


@pytest.mark.parametrize("script", ["exit 3", "echo ERROR: Parts 1 failed to run!; sleep 60"])
def test_a_program_that_fails_is_not_waited_for(tmp_path: Path, script: str) -> None:
    log = tmp_path / "log"
    with pytest.raises(SpeechsslError, match="log"):
        call(["bash", "-c", script], tmp_path, log)
    call(["bash", "-c", "echo fine"], tmp_path, log)
    assert log.read_text() == "fine\n"


def test_the_search_on_dev_ends_at_the_best_weights() -> None:
    """Of ten words, as many are wrong as the weights are away from a place."""
    words = [f"w{number}" for number in range(10)]
    tried = []

    def decode(weights: Weights) -> dict[str, str]:
        tried.append(weights)
        distance = abs(weights.lm - 11) + 3 * (weights.insertion > 0.1)
        wrong = min(10, round(distance))
        return {"one": " ".join(["x"] * wrong + words[wrong:])}

    weights, rate = find_weights(decode, {"one": " ".join(words)})
    assert weights.lm == 11
    assert weights.insertion < 0.1
    assert rate == 0
    assert len(set(tried)) == len(tried) <= 12


def test_what_is_not_installed_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sphinx_train, "SCRIPTS", str(tmp_path / "*"))
    assert tool.main(["check"]) == 1
    error = capsys.readouterr().err
    assert error == "error: sphinxtrain is not installed: apt-get install sphinxtrain\n"


def test_n_grams_that_pocketsphinx_would_not_use_are_refused(tmp_path: Path) -> None:
    lm = tmp_path / "four.arpa"
    counts = "".join(f"ngram {order}=1\n" for order in range(1, 5))
    lm.write_text(f"\\data\\\n{counts}\n\\1-grams:\n-1\t<s>\t0\n")
    with pytest.raises(ConfigError, match=r"n-grams of 4 words, and pocketsphinx decodes with 3"):
        check_order(lm)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="PEER NOT TESTED: sphinxtrain or pocketsphinx")
def test_a_toy_language_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio, store = prepared(tmp_path, {"train": 40, "dev": 4, "test": 8})
    words = words_of(store, "train", "dev", "test")
    lexicon = lexicon_of(words, tmp_path / "lexicon.txt")
    arpa = equally_probable(words, tmp_path / "lm.arpa")

    options = ["--audio", str(audio)]
    model = tmp_path / "model"
    training = ["train", str(store), str(model), *options, "--lexicon", str(lexicon)]
    assert tool.main([*training, "--senones", "20", "--gaussians", "1"]) == 0
    assert "40 utterances" in capsys.readouterr().out
    assert tool.main(training) == 1
    assert "is there already" in capsys.readouterr().err

    out = tmp_path / "scores"
    evaluating = ["evaluate", str(model), str(store), str(out), *options, "--lm", str(arpa)]
    assert tool.main(evaluating) == 0
    system = read_system("peer", [out])
    assert len(system.ids) == 8
    wer, _ = system.rates
    # Guessing gets one word of a hundred right.
    assert wer < 0.95
