"""From stores to run folders: settings, fine-tuning in its three modes, what is checked before the first update."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import SMALL_ENCODER
from support.settings import FEW, PRETRAIN, tuned
from support.speech import make_labelled

from speechssl.audio.reader import write_wav
from speechssl.config import as_table, build
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import CheckpointError, ConfigError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings, pretrain_settings
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.recognition.settings import finetune_settings
from speechssl.scoring.calibration import Scaling
from speechssl.storage.checkpoint import checkpoints, load_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.text.tokenizers import CharTokenizer


@pytest.fixture(scope="module")
def pretrained(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    pretrain([labelled_store], run, PRETRAIN)
    return run


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
    assert (
        model.scaling == Scaling(best["confidence_slope"], best["confidence_offset"]) != Scaling()
    )


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


def test_an_unfinished_run_is_no_model(labelled_store: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a model folder"):
        load_encoder(tmp_path)
    run = tmp_path / "run"
    pretrain([labelled_store], run, PRETRAIN)
    (run / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="not finished"):
        load_encoder(run)
    assert isinstance(
        load_encoder(tmp_path / "elsewhere"), Encoder
    )  # a model folder can be moved anywhere


def test_transcripts_too_long_for_their_frames_are_listed(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "corpus", {"train": 30, "dev": 3, "test": 1})
    table = (folder / "metadata.csv").read_text().splitlines()
    name = table[1].split(",")[0]
    table[1] = f"{name},{'ab' * 200},speaker0,train"
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    prepare(folder, tmp_path / "store")
    finetune([tmp_path / "store"], tmp_path / "run", tuned(), init=None)
    (row,) = [
        json.loads(line) for line in (tmp_path / "run/skipped.jsonl").read_text().splitlines()
    ]
    assert row["id"] == Path(name).stem
    assert row["needed"] == 400 > row["frames"]
    for line in range(2, 6):
        table[line] = f"{table[line].split(',')[0]},{'ab' * 200},speaker0,train"
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    prepare(folder, tmp_path / "worse")
    with pytest.raises(ConfigError, match="5 of 30 transcripts are longer than their frames"):
        finetune([tmp_path / "worse"], tmp_path / "refused", tuned(), init=None)


def test_transcripts_that_hold_nothing_teach_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Speech was trained to be silence: of "---" nothing is left when punctuation goes."""
    folder = make_labelled(tmp_path / "corpus", {"train": 8, "dev": 2, "test": 1})
    rows = (folder / "metadata.csv").read_text().splitlines()
    for line, text in ((2, "---"), (3, "...!?"), (4, "")):
        name, _, *rest = rows[line].split(",")
        rows[line] = ",".join([name, text, *rest])
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    prepare(folder, tmp_path / "store")
    finetune([tmp_path / "store"], tmp_path / "run", tuned(), init=None)
    said = capsys.readouterr().err
    assert (
        "2 transcripts hold nothing that basic-1 keeps (first: '---' of train001): they teach nothing"
        in said
    )
    assert "1 of 8 chunks have no transcript" in said
    assert len((tmp_path / "run/texts.txt").read_text().splitlines()) == 5


def test_chunks_without_a_frame_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 80 ms there are mel rows, but no encoder frame."""
    folder = make_labelled(tmp_path / "corpus", {"train": 4, "dev": 2, "test": 1})
    rows = (folder / "metadata.csv").read_text()
    for name in ("train900", "dev900", "click900"):
        write_wav(folder / f"{name}.wav", np.full(1280, 0.1, np.float32), 16_000)
        rows += f"{name}.wav,a,speaker9,{name[:-3]}\n"
    (folder / "metadata.csv").write_text(rows)
    prepare(folder, tmp_path / "store")
    pretrain([tmp_path / "store"], tmp_path / "run", PRETRAIN)
    assert "1 chunks left out: too short for one frame" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="longer --min-chunk"):
        pretrain([tmp_path / "store"], tmp_path / "none", PRETRAIN, ["click"])
    tiny_crop = build(PretrainSettings, as_table(PRETRAIN) | {"batch": {"crop_s": 0.05}})
    with pytest.raises(ConfigError, match=r"crop_s is 0\.05 s"):
        pretrain([tmp_path / "store"], tmp_path / "crop", tiny_crop)
    model = CtcModel(load_encoder(tmp_path / "run"), CharTokenizer("ab"), "basic-1", CtcConfig())
    score = evaluate(
        model, Dataset([Store(tmp_path / "store")], ["dev", "click"]), batch_seconds=0.01
    )
    assert {u.utterance_id: u.hypothesis for u in score.utterances if "900" in u.utterance_id} == {
        "click900": "",
        "dev900": "",
    }


def test_crops_are_refused_in_fine_tuning(labelled_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch\.crop_s would cut words off"):
        finetune([labelled_store], tmp_path / "run", tuned(batch={"crop_s": 1.0}), init=None)


def test_a_store_of_other_features_is_refused(labelled_folder: Path, tmp_path: Path) -> None:
    from speechssl.audio.features import FeatureConfig
    from speechssl.data.prepare import PrepareConfig

    prepare(
        labelled_folder, tmp_path / "wave", PrepareConfig(features=FeatureConfig(kind="waveform"))
    )
    with pytest.raises(ConfigError, match="--features logmel"):
        pretrain([tmp_path / "wave"], tmp_path / "run", PRETRAIN)


def test_sentencepiece_and_minutes(labelled_store: Path, tmp_path: Path) -> None:
    settings = tuned(tokenizer="bpe:20", minutes=0.7)
    model = finetune([labelled_store], tmp_path / "run", settings, init=None)
    assert model.tokenizer.size == 21
    with pytest.raises(ConfigError, match="minutes of train with transcripts"):
        finetune([labelled_store], tmp_path / "other", tuned(minutes=600), init=None)


def test_a_model_of_blanks_is_said_to_be_one(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = FEW | {"steps": 40, "validate_every": 40, "save_every": 40}
    finetune([labelled_store], tmp_path / "run", tuned(train=train, optim={"lr": 2e-2}), init=None)
    assert read_json_lines(tmp_path / "run/metrics.jsonl")[-1]["dev_empty"] == 1.0
    assert "nothing but blanks" in capsys.readouterr().err


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


def test_units_of_a_recogniser_teach_an_encoder(labelled_store: Path, tmp_path: Path) -> None:
    teachers = [tmp_path / "teacher", tmp_path / "other"]
    for seed, teacher in enumerate(teachers):
        finetune([labelled_store], teacher, tuned(train=FEW | {"seed": seed}), init=None)

    def settings(teacher: Path, steps: int) -> PretrainSettings:
        units = {"task": "units", "units": {"teacher": str(teacher), "num_codes": [9, 4]}}
        return build(
            PretrainSettings,
            as_table(PRETRAIN)
            | units
            | {"train": {"steps": steps, "save_every": 3, "device": "cpu"}},
        )

    run = tmp_path / "units"
    pretrain([labelled_store], run, settings(teachers[0], 6), init=teachers[1])
    tensors, record = load_folder(run / "model")
    assert record["about"]["task"] == "units"
    assert not any("teacher" in name for name in tensors)

    # The models may lie elsewhere; another one under the same name is another run.
    moved = tmp_path / "moved", tmp_path / "moved too"
    for old, new in zip(teachers, moved, strict=True):
        shutil.copytree(old, new)
    pretrain([labelled_store], run, settings(moved[0], 6), init=moved[1])
    with pytest.raises(ConfigError, match=r"init\.files"):
        pretrain([labelled_store], run, settings(moved[0], 6), init=moved[0])
    shutil.rmtree(teachers[0])
    shutil.copytree(teachers[1], teachers[0])
    with pytest.raises(ConfigError, match=r"teacher\.tensors"):
        pretrain([labelled_store], run, settings(teachers[0], 6), init=teachers[1])

    # A second round: the first one's encoder goes on; its clusters, its answers and its teacher do not.
    assert pretrain_settings(run, None, {}).hidden_units.num_codes == (9, 4)
    assert pretrain_settings(run, None, {}).hidden_units.teacher is None
    other = settings(teachers[1], 1)
    other = other.model_copy(update={"units": other.units.model_copy(update={"num_codes": (8, 5)})})
    again = pretrain([labelled_store], tmp_path / "again", other, init=run)
    assert load_folder(again)[0]["codes_0"].shape[0] == 8


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


def test_every_stage_draws_anew(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one seed a second fine-tuning heard the same inputs in the same order, changed alike, as the first one."""
    settings, runs = (
        tuned(),
        [tmp_path / name for name in ("first", "second", "third", "third again")],
    )
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


def test_a_preset_of_ones_own_goes_with_the_model(labelled_store: Path, tmp_path: Path) -> None:
    """The name alone was kept: fine-tuning did not find the file, or took the shipped preset of that name."""
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
