"""finetune --unlabelled: it goes on wherever it was stopped, and says what it cannot use."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.commands import call, one_line
from support.language_models import write_lm
from support.models import SMALL_ENCODER
from support.settings import FEW, as_toml, tuned
from support.short_runs import learned
from support.speech import make_labelled

from speechssl.config import Table
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.errors import ConfigError
from speechssl.recognition import lm_tuning, lm_weights
from speechssl.recognition.pseudo_labels import read_labels
from speechssl.recognition.settings import FinetuneSettings
from speechssl.self_training import second_recogniser
from speechssl.self_training.second_recogniser import (
    LABELS,
    SECOND_RATE,
    finetune_with_unlabelled,
    first_run,
    runs_of,
)
from speechssl.storage.atomic import write_atomic
from speechssl.storage.checkpoint import save_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.training.lineage import origin_of
from speechssl.transcription.recogniser import load_recogniser


class KilledError(Exception):
    """Stands for the end of the process."""


def killed(*arguments: object, **options: object) -> None:
    raise KilledError


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "few.toml"
    table = {"encoder": SMALL_ENCODER, "finetune": {"train": FEW, "batch": {"seconds": 20}}}
    path.write_text(as_toml(table))
    return path


def transcripts(store: Path, split: str) -> list[list[str]]:
    dataset = Dataset([Store(store)], [split])
    return [(dataset.id_text(position)[1] or "").split() for position in range(len(dataset))]


@pytest.fixture(scope="module")
def radio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without any transcript."""
    folder = tmp_path_factory.mktemp("radio")
    (make_labelled(folder / "audio", {"train": 4}, seed=7) / "metadata.csv").unlink()
    prepare(folder / "audio", folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def lm(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the toy language, dev's words among them: it is to help."""
    path = tmp_path_factory.mktemp("lm") / "toy.arpa"
    texts = transcripts(labelled_store, "train") + transcripts(labelled_store, "dev")
    write_lm(path, texts, order=2)
    return path


@pytest.fixture(scope="module")
def settings(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneSettings:
    """Of a recogniser of phones, each a letter: its language model is always kept."""
    texts = transcripts(labelled_store, "train") + transcripts(labelled_store, "dev")
    words = sorted({word for text in texts for word in text})
    lexicon = tmp_path_factory.mktemp("lexicon") / "letters.txt"
    lexicon.write_text("".join(f"{word} {' '.join(word.upper())}\n" for word in words))
    few = FEW | {"steps": 12, "validate_every": 12, "save_every": 12}
    return tuned(minutes=0.5, tokenizer=f"phones:{lexicon}", train=few)


@pytest.fixture(scope="module", autouse=True)
def quick_tuning() -> Iterator[None]:
    """One point of the grid and one beam, at which words are heard after few updates already."""
    with pytest.MonkeyPatch.context() as patch:
        one = {"lm_weight": (1.0,), "prior_scale": (1.0,), "word_score": (5.0,)}
        patch.setitem(lm_weights.GRIDS, "words", one)
        patch.setattr(lm_weights, "MAX_TRIED", 1)
        patch.setattr(lm_weights, "BEAMS", (50,))
        yield


@pytest.fixture(scope="module")
def undisturbed(
    labelled_store: Path,
    radio: Path,
    lm: Path,
    settings: FinetuneSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A second recogniser, made without a stop, of the labelled store's rest and of the radio."""
    run = tmp_path_factory.mktemp("runs") / "run"
    finetune_with_unlabelled([labelled_store], [labelled_store, radio], lm, run, settings, None)
    return run


def test_both_stores_are_listened_to_and_learned_from(
    undisturbed: Path, labelled_store: Path, radio: Path, settings: FinetuneSettings
) -> None:
    first = first_run(undisturbed)
    stores = [Dataset([Store(path)], ["train"]) for path in (labelled_store, radio)]
    keys = {dataset.key(position) for dataset in stores for position in range(len(dataset))}
    labels = read_labels(first / LABELS)
    assert {(one.id, one.crc32) for one in labels} == keys
    assert len({one.made_by for one in labels}) == 1

    # Only the chosen minutes have transcripts, in both.
    assert (undisturbed / "texts.txt").read_text() == (first / "texts.txt").read_text()
    rates = [row["lr"] for row in read_json_lines(undisturbed / "metrics.jsonl")]
    first_rates = [row["lr"] for row in read_json_lines(first / "metrics.jsonl")]
    assert rates == pytest.approx([SECOND_RATE * rate for rate in first_rates])
    assert load_recogniser(undisturbed, device="cpu").beam is not None


def test_the_same_call_again_trains_nothing(
    undisturbed: Path,
    labelled_store: Path,
    radio: Path,
    lm: Path,
    settings: FinetuneSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = first_run(undisturbed)
    before = learned(first), learned(undisturbed), (first / LABELS).read_bytes()

    monkeypatch.setattr(second_recogniser, "tune_lm", killed)
    capsys.readouterr()
    finetune_with_unlabelled(
        [labelled_store], [labelled_store, radio], lm, undisturbed, settings, None
    )

    said = capsys.readouterr().err
    assert said.count("updates of") == said.count("are done already") == 2
    assert said.count("has its language model already") == 2
    assert (learned(first), learned(undisturbed), (first / LABELS).read_bytes()) == before


def test_a_call_that_was_killed_between_its_steps_goes_on(
    undisturbed: Path,
    labelled_store: Path,
    radio: Path,
    lm: Path,
    settings: FinetuneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    call = [labelled_store], [labelled_store, radio], lm, run, settings, None

    # Before each step: the last one is the second tuning, the first one's being done by then.
    for step in ("finetune", "tune_lm", "load_recogniser", "tune_lm"):
        with monkeypatch.context() as patch:
            patch.setattr(second_recogniser, step, killed)
            with pytest.raises(KilledError):
                finetune_with_unlabelled(*call)
    finetune_with_unlabelled(*call)

    for one, other in ((run, undisturbed), (first_run(run), first_run(undisturbed))):
        assert learned_without_places(one) == learned_without_places(other)
        assert (one / "model/lm").is_dir()


def test_a_further_round_learns_from_what_the_recogniser_before_hears(
    undisturbed: Path,
    labelled_store: Path,
    radio: Path,
    lm: Path,
    settings: FinetuneSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    first, second, third = runs_of(run, rounds=2)
    assert third == run
    call = [labelled_store], [labelled_store, radio], lm, run, settings, None
    with monkeypatch.context() as patch:
        tuned_runs: list[Path] = []

        def tune_but_not_the_second(model: Path, *others: object) -> None:
            if model == second:
                raise KilledError
            tuned_runs.append(model)
            lm_tuning.tune_lm(model, *others)  # type: ignore[arg-type]

        patch.setattr(second_recogniser, "tune_lm", tune_but_not_the_second)
        with pytest.raises(KilledError):
            finetune_with_unlabelled(*call, rounds=2)
        assert tuned_runs == [first]
    finetune_with_unlabelled(*call, rounds=2)

    # Two of the three are those of a single round; the third has the second's labels.
    for one, other in ((first, first_run(undisturbed)), (second, undisturbed)):
        assert learned_without_places(one) == learned_without_places(other)
    teachers = [{one.made_by for one in read_labels(made / LABELS)} for made in (first, second)]
    assert teachers[0] != teachers[1]
    assert not (third / LABELS).exists()
    assert load_recogniser(third, device="cpu").beam is not None
    assert learned_without_places(third) != learned_without_places(second)

    before = learned(third)
    capsys.readouterr()
    finetune_with_unlabelled(*call, rounds=2)
    assert capsys.readouterr().err.count("are done already") == 3
    assert learned(third) == before

    with pytest.raises(ConfigError, match="--rounds 0: audio is labelled 1 time or more"):
        finetune_with_unlabelled(*call, rounds=0)
    shutil.rmtree(second)
    shutil.rmtree(first)
    with pytest.raises(ConfigError, match="holds a run that --unlabelled did not begin"):
        finetune_with_unlabelled(*call, rounds=2)


def learned_without_places(run: Path) -> object:
    """What a run learned; the folder of its first recogniser has another name in each test."""
    numbers, tensors, _ = learned(run)  # type: ignore[misc]
    return numbers, tensors


def test_transcripts_of_an_unlabelled_store_are_refused(
    labelled_store: Path, lm: Path, settings: FinetuneSettings, tmp_path: Path
) -> None:
    """They would be learned from, although nobody gave them to be."""
    other = tmp_path / "other"
    shutil.copytree(labelled_store, other)
    with pytest.raises(ConfigError) as refused:
        finetune_with_unlabelled([labelled_store], [other], lm, tmp_path / "run", settings, None)
    assert f"--unlabelled {other} has transcripts" in str(refused.value)
    assert "give it among the labelled stores too, with --minutes" in str(refused.value)
    assert not (tmp_path / "run").exists()
    assert not first_run(tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused_before_anything_is_trained(
    labelled_store: Path, lm: Path, settings: FinetuneSettings, tmp_path: Path
) -> None:
    """A plain fine-tuning used the same name: else the last of the steps would find that out."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text("{}")
    call = ([labelled_store], [labelled_store], lm, run, settings, None)
    with pytest.raises(ConfigError, match="holds a run that --unlabelled did not begin"):
        finetune_with_unlabelled(*call)
    assert not first_run(run).exists()


@pytest.mark.parametrize(("begun", "given"), [(2, 1), (1, 2), (3, 2)])
def test_another_number_of_rounds_is_told_before_anything_is_trained(
    begun: int, given: int, labelled_store: Path, lm: Path, tmp_path: Path, preset: Path
) -> None:
    """What a command left is named; --force deletes the runs of all rounds, and --lm never."""
    run = tmp_path / "run"
    made = runs_of(run, begun)
    weights: dict[str, torch.Tensor] = {}
    before: Table | str = "none"
    for number, folder in enumerate(made):
        weights["a"] = torch.full((1,), float(number))
        write_atomic(folder / "settings.json", json.dumps({"init": before}))
        save_folder(folder / "model", weights, {"kind": "ctc"})
        before = origin_of(folder)

    command = ["finetune", labelled_store, "--init-from", "none", "--preset", preset, "--run", run]
    command += ["--unlabelled", labelled_store, "--minutes", 0.5, "--lm"]
    refused = call(*command, lm, "--rounds", given)
    assert f"{run} holds a run that --unlabelled did not begin with these --rounds" in str(
        refused.exception
    )

    own = made[0] / "own.arpa"
    shutil.copy(lm, own)
    refused = call(*command, own, "--rounds", given, "--force")
    assert f"--force would delete {own}, which this command reads" in str(refused.exception)
    assert all((folder / "model").exists() for folder in made)

    # Stopped as soon as the first run has begun.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_recogniser, "_tune_once", killed)
        stopped = call(*command, lm, "--rounds", given, "--force")
    assert isinstance(stopped.exception, KilledError)
    assert not any(folder.exists() for folder in made[1:])
    assert learned(made[0])


def test_options_that_belong_together_are_one_line(
    labelled_store: Path,
    lm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*options: object) -> str:
        basis = ("finetune", labelled_store, "--init-from", "none", "--run", tmp_path / "run")
        return one_line(monkeypatch, capsys, *basis, *options)

    unlabelled = ("--unlabelled", labelled_store)
    together = "--unlabelled and --lm belong together: give both, or none"
    assert together in error(*unlabelled)
    assert together in error("--lm", lm)
    assert "--rounds are of --unlabelled: give both" in error("--rounds", 2)
    labels = error(*unlabelled, "--lm", lm, "--labels", tmp_path / "labels.jsonl")
    assert "--unlabelled makes labels of its own: leave --labels out" in labels
    assert not (tmp_path / "run").exists()


def test_options_become_settings_and_stores(
    labelled_store: Path, radio: Path, lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command hands over, without the training."""
    calls = []
    monkeypatch.setattr(
        second_recogniser, "finetune_with_unlabelled", lambda *given: calls.append(given)
    )
    stores = ("--unlabelled", labelled_store, "--unlabelled", radio, "--lm", lm)
    options = ("--minutes", 2, "--tokenizer", "bpe:50", "--criterion", "ctc-crf")
    start = ("--init-from", "none", "--freeze-encoder", "--set", "train.device=cpu", "--force")
    start += ("--budget", "2m", "--rounds", 3)
    run = tmp_path / "run"
    done = call("finetune", labelled_store, "--run", run, *stores, *options, *start)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{run / 'model'}\n"

    ((labelled, unlabelled, given_lm, given_run, settings, init, begin, budget_s, rounds),) = calls
    assert (labelled, unlabelled) == ([labelled_store], [labelled_store, radio])
    assert (given_lm, given_run, init) == (lm, run, None)
    assert (settings.minutes, settings.tokenizer) == (2, "bpe:50")
    # A budget without a preset: the one for labels alone.
    assert (settings.preset, budget_s, rounds) == ("minutes", 120, 3)
    assert (settings.ctc.criterion, settings.ctc.frozen) == ("ctc-crf", True)

    # With --force all runs are started anew.
    runs = runs_of(run, rounds)
    assert len(set(runs)) == 4
    for folder in runs:
        folder.mkdir()
        (folder / "settings.json").write_text("{}")
    begin()
    assert not any(folder.exists() for folder in runs)
