"""Fine-tuning: it learns, in each of its modes, from the very encoder that is given."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import SMALL_ENCODER, random_recogniser
from support.settings import FEW, PRETRAIN, tuned

from speechssl.config import as_table, build
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.encoder.encoder import load_encoder
from speechssl.errors import CheckpointError, ConfigError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings, pretrain_settings
from speechssl.recognition import finetune as finetuning
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CTC_BESIDE_CRF, CtcModel
from speechssl.recognition.settings import finetune_settings
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import score
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints


@pytest.fixture(scope="module")
def pretrained(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    pretrain([labelled_store], run, PRETRAIN)
    return run


@pytest.mark.slow
def test_fine_tuning_learns_a_toy_language(labelled_store: Path, tmp_path: Path) -> None:
    train = FEW | {"steps": 480, "validate_every": 240, "save_every": 240, "log_every": 80}
    wider = {
        "subsampling": 2,
        "layer_drop": 0.0,
        "dropout": 0.0,
        "width": 64,
        "channels": 64,
        "ffn_width": 128,
    }
    settings = tuned(train=train, encoder=SMALL_ENCODER | wider, batch={"seconds": 8})

    model = finetune([labelled_store], tmp_path / "run", settings, init=None)
    result = evaluate(model, Dataset([Store(labelled_store)], ["test"]))
    assert result.cer < 0.2

    rows = [row for row in read_json_lines(tmp_path / "run/metrics.jsonl") if "dev_wer" in row]
    assert [row["step"] for row in rows] == [240, 480]
    best = min(rows, key=lambda row: row["dev_score"])
    assert model.scaling == Scaling(best["confidence_slope"], best["confidence_offset"])

    # Half way most words of dev are wrong. At the end all may be right, which leaves the identity.
    half_way = Scaling(rows[0]["confidence_slope"], rows[0]["confidence_offset"])
    assert half_way != Scaling()


@pytest.mark.slow
def test_the_pretrained_encoder_is_really_loaded(
    labelled_store: Path, pretrained: Path, tmp_path: Path
) -> None:
    settings = tuned(ctc={"frozen": True}, train=FEW)
    model = finetune([labelled_store], tmp_path / "run", settings, init=pretrained)
    source = load_folder(pretrained / "model")[0]
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, source[f"encoder.{name}"]), name
    encoder = load_encoder(pretrained)
    again = finetune([labelled_store], tmp_path / "memory", settings, init=encoder)
    assert torch.equal(again.head.weight, model.head.weight)


@pytest.mark.slow
def test_settings_of_the_encoder_are_used_or_refused(
    labelled_store: Path, pretrained: Path, tmp_path: Path
) -> None:
    softer = finetune_settings(pretrained, None, {"encoder": {"dropout": 0.35}, "train": FEW})
    model = finetune([labelled_store], tmp_path / "run", softer, init=pretrained)
    assert model.encoder.config.dropout == 0.35
    smaller = finetune_settings(pretrained, None, {"encoder": {"num_layers": 1}, "train": FEW})
    with pytest.raises(
        CheckpointError, match=r"do not fit the model: unexpected context\.layers\.1"
    ):
        finetune([labelled_store], tmp_path / "refused", smaller, init=pretrained)
    other = tuned(encoder=SMALL_ENCODER | {"num_layers": 1})
    finetune([labelled_store], tmp_path / "memory", other, init=load_encoder(pretrained))
    kept = json.loads((tmp_path / "memory/settings.json").read_text())
    assert kept["encoder"]["num_layers"] == 2  # an encoder in memory comes with its own settings


def test_frozen_and_front_end_modes_change_what_they_should(
    labelled_store: Path, pretrained: Path, tmp_path: Path
) -> None:
    before = load_encoder(pretrained).state_dict()
    fixed_front = finetune(
        [labelled_store], tmp_path / "a", tuned(ctc={"train_front_end": False}), init=pretrained
    )
    after = fixed_front.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("front_end.") for name in changed)
    assert any(name.startswith("context.") for name in changed)


def test_finetune_settings_follow_the_model(pretrained: Path) -> None:
    settings = finetune_settings(pretrained, None, {"minutes": 0.5})
    assert settings.encoder == PRETRAIN.encoder
    assert settings.preset == "tiny"
    assert settings.minutes == 0.5
    scratch = finetune_settings(None, "base", {})
    assert scratch.ctc.train_front_end
    assert scratch.ctc.head_only_steps == 0


def test_crops_are_refused_in_fine_tuning(labelled_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch\.crop_s would cut words off"):
        finetune([labelled_store], tmp_path / "run", tuned(batch={"crop_s": 1.0}), init=None)


def test_sentencepiece_and_minutes(labelled_store: Path, tmp_path: Path) -> None:
    settings = tuned(tokenizer="bpe:20", minutes=0.7)
    model = finetune([labelled_store], tmp_path / "run", settings, init=None)
    assert model.tokenizer.size == 21
    with pytest.raises(ConfigError, match="minutes of train with transcripts"):
        finetune([labelled_store], tmp_path / "other", tuned(minutes=600), init=None)


@pytest.mark.parametrize(
    ("texts", "decisive"), [(["one two", "three"], "wer"), (["今天天气很好", "วันนี้ อากาศดี"], "cer")]
)
def test_characters_decide_where_no_spaces_part_the_words(
    texts: list[str], decisive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = dict(zip("ab", texts, strict=True))
    heard = {name: text[:-1] for name, text in references.items()}
    result = score(references, heard)
    monkeypatch.setattr(finetuning, "evaluate", lambda *_: result)

    measured = finetuning._measure(random_recogniser(), None)  # type: ignore[arg-type]
    assert abs(measured["dev_score"] - getattr(result, decisive)) <= 2e-3
    assert result.wer > result.cer + 0.1


def test_wrong_words_at_all_times_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"step": 1}, {"step": 2, "dev_score": 1.002, "dev_empty": 0.0}]
    for last, is_asked in ((0.99, True), (0.97, False)):
        all_rows = [*rows, {"step": 3, "dev_score": last, "dev_empty": 0.5}]
        lines = [json.dumps(row) + "\n" for row in all_rows]
        (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        finetuning._warn_if_nothing_is_right(tmp_path)
        said = capsys.readouterr().err
        assert ("are texts and recordings paired?" in said) == is_asked


def test_a_model_of_blanks_is_said_to_be_one(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = FEW | {"steps": 40, "validate_every": 40, "save_every": 40}
    finetune([labelled_store], tmp_path / "run", tuned(train=train, optim={"lr": 2e-2}), init=None)
    assert read_json_lines(tmp_path / "run/metrics.jsonl")[-1]["dev_empty"] == 1.0
    said = capsys.readouterr().err
    assert "nothing but blanks" in said
    # No word was recognised that could tell how far confidences are right.
    assert said.count("confidences of words are raw") == 1


def test_fine_tuning_continues_from_a_checkpoint_that_holds_the_head(
    labelled_store: Path, tmp_path: Path
) -> None:
    """An interrupted run gives the weights of an undisturbed one, the head's among them."""
    run = tmp_path / "run"
    undisturbed = finetune([labelled_store], run, tuned(), init=None)
    names = ("step", "loss", "grad_norm", "dev_wer", "dev_cer")
    expected = [[row.get(name) for name in names] for row in read_json_lines(run / "metrics.jsonl")]
    newest, older = checkpoints(run)
    assert (newest.name, older.name) == ("step-00000006", "step-00000003")
    shutil.rmtree(newest)
    continued = finetune([labelled_store], run, tuned(), init=None)
    assert [
        [row.get(name) for name in names] for row in read_json_lines(run / "metrics.jsonl")
    ] == expected
    assert torch.equal(continued.head.weight, undisturbed.head.weight)


@pytest.mark.slow
def test_a_fine_tuning_goes_on_from_its_own_encoder_alone(
    labelled_store: Path, tmp_path: Path
) -> None:
    """A model made anew under the same name gave the recogniser of the old one, without a word."""
    for seed in (0, 1):
        other = as_table(PRETRAIN) | {"train": FEW | {"seed": seed}}
        pretrain([labelled_store], tmp_path / str(seed), build(PretrainSettings, other))
    shutil.copytree(tmp_path / "0", tmp_path / "a")
    finetune([labelled_store], tmp_path / "run", tuned(), init=tmp_path / "a")
    finetune([labelled_store], tmp_path / "run", tuned(), init=tmp_path / "0")
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(tmp_path / "1", tmp_path / "a")
    with pytest.raises(ConfigError, match=r"init\.files"):
        finetune([labelled_store], tmp_path / "run", tuned(), init=tmp_path / "a")


@pytest.mark.slow
def test_every_stage_draws_anew(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fine-tuning with the same seed must not hear the inputs of the first one again."""
    settings = tuned()
    runs = [tmp_path / name for name in ("first", "second", "third", "third again")]
    seeds = list[int]()  # of masks and changed inputs

    class Model(CtcModel):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            seeds.append(self.seed)

    monkeypatch.setattr("speechssl.recognition.finetune.CtcModel", Model)
    for run, init in zip(runs, (None, runs[0], runs[1], runs[1]), strict=True):
        finetune([labelled_store], run, settings, init)

    assert [load_folder(run / "model")[1]["about"]["stage"] for run in runs] == [0, 1, 2, 2]
    first, second, third, again = (read_json_lines(run / "metrics.jsonl") for run in runs)
    assert [json.loads((run / "settings.json").read_text()).get("stage") for run in runs] == [
        None,
        1,
        2,
        2,
    ]

    heard = [[(row["audio_s"], row["weight"]) for row in rows] for rows in (first, second, third)]
    assert heard[0] != heard[1] != heard[2] != heard[0]

    assert len(set(seeds[:3])) == 3
    assert seeds[3:] == seeds[2:3]
    assert [row["loss"] for row in third] == [row["loss"] for row in again]

    runs = [tmp_path / name for name in ("learned", "on", "words")]
    pretrain([labelled_store], runs[0], PRETRAIN)
    pretrain([labelled_store], runs[1], PRETRAIN, init=runs[0])
    finetune([labelled_store], runs[2], settings, runs[1])

    assert [load_folder(run / "model")[1]["about"]["stage"] for run in runs] == [0, 1, 2]
    learned, on = (read_json_lines(run / "metrics.jsonl") for run in runs[:2])
    assert [row["masked_share"] for row in learned] != [row["masked_share"] for row in on]


def test_the_last_updates_learn_by_ctc_crf(labelled_store: Path, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for criterion in ("ctc", "ctc-crf"):
        ctc = {"criterion": criterion, "crf_share": 0.5, "train_front_end": True}
        settings = tuned(ctc=ctc, train=FEW | {"log_every": 1})
        finetune([labelled_store], tmp_path / criterion, settings, init=None)
        rows = read_json_lines(tmp_path / criterion / "metrics.jsonl")
        losses[criterion] = [row["loss"] for row in rows]

    assert losses["ctc-crf"][:3] == losses["ctc"][:3]
    # The same weights, and added to CTC's part the logarithm of a probability: less than zero.
    with_crf, alone = losses["ctc-crf"][3], losses["ctc"][3]
    assert with_crf != alone
    assert with_crf < (1 + CTC_BESIDE_CRF) * alone


def test_ctc_crf_refuses_more_tokens_than_it_can_sum_over(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "MAX_CRF_TOKENS", 5)
    with pytest.raises(ConfigError, match="all pairs of 9 tokens, allowed are 5: take criterion"):
        finetune([labelled_store], tmp_path, tuned(ctc={"criterion": "ctc-crf"}), init=None)


def test_labels_are_heard_as_often_as_they_teach(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for max_epochs, steps in [(1, 20), (2, 20), (2, 7), (None, 9)]:
        run = tmp_path / f"{max_epochs} {steps}"
        ctc = {"train_front_end": True, "max_epochs": max_epochs}
        settings = tuned(ctc=ctc, train=FEW | {"steps": steps})
        finetune([labelled_store], run, settings, init=None)

        said = capsys.readouterr().err
        per_epoch = int(said.split(" updates an epoch")[0].rsplit(" ", 1)[1])
        # Fewer than 20, and more than 7 updates are two passes.
        assert 7 < 2 * per_epoch < 20
        most = steps if max_epochs is None else max_epochs * per_epoch
        expected = min(steps, most)
        assert len(read_json_lines(run / "metrics.jsonl")) == expected
        assert (f"{expected} updates in place of {steps}" in said) is (expected < steps)

        # The same command continues it, though its settings hold other updates.
        finetune([labelled_store], run, settings, init=None)


def test_updates_that_are_asked_for_are_all_done(pretrained: Path) -> None:
    """The preset's limit is for its own number of updates."""
    for init in (None, pretrained):
        as_they_are = finetune_settings(init, "minutes", {})
        assert as_they_are.ctc.max_epochs is not None

        with_steps = finetune_settings(init, "minutes", {"train": {"steps": 70}})
        assert with_steps.ctc.max_epochs is None

        both = {"train": {"steps": 70}, "ctc": {"max_epochs": 3}}
        assert finetune_settings(init, "minutes", both).ctc.max_epochs == 3


def test_a_preset_of_ones_own_goes_with_the_model(labelled_store: Path, tmp_path: Path) -> None:
    """With its name alone, fine-tuning missed the file or took the shipped preset of that name."""
    own = tmp_path / "tiny.toml"
    shape = [
        f"{name} = {json.dumps(value)}\n"
        for name, value in SMALL_ENCODER.items()
        if name != "features"
    ]
    own.write_text(
        '[encoder]\nfeatures = { kind = "logmel" }\n'
        + "".join(shape)
        + "[finetune.train]\nsteps = 7\n"
    )

    once = pretrain_settings(None, str(own), {"train": {"steps": 1, "device": "cpu"}})
    pretrain([labelled_store], tmp_path / "run", once)
    assert finetune_settings(tmp_path / "run", None, {}).train.steps == 7
    assert pretrain_settings(tmp_path / "run", None, {}).preset == str(own)

    own.rename(tmp_path / "other.toml")
    with pytest.raises(
        ConfigError, match=r"with the preset .*tiny\.toml, which is not there: give one as --preset"
    ):
        finetune_settings(tmp_path / "run", None, {})

    assert finetune_settings(tmp_path / "run", str(tmp_path / "other.toml"), {}).train.steps == 7
