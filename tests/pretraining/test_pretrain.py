"""From stores to a pretrained model: where weights start, and what is refused before that."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.settings import FEW, PRETRAIN, tuned
from support.speech import make_labelled

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.reader import write_wav
from speechssl.config import as_table, build
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings, pretrain_settings
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.storage.checkpoint import load_folder
from speechssl.text.character_tokenizer import CharTokenizer


def test_a_store_of_other_features_is_refused(labelled_folder: Path, tmp_path: Path) -> None:
    waveform = PrepareConfig(features=FeatureConfig(kind="waveform"))
    prepare(labelled_folder, tmp_path / "wave", waveform)
    with pytest.raises(ConfigError, match="--features logmel"):
        pretrain([tmp_path / "wave"], tmp_path / "run", PRETRAIN)


@pytest.mark.slow
def test_units_of_a_recogniser_teach_an_encoder(labelled_store: Path, tmp_path: Path) -> None:
    teachers = [tmp_path / "teacher", tmp_path / "other"]
    for seed, teacher in enumerate(teachers):
        finetune([labelled_store], teacher, tuned(train=FEW | {"seed": seed}), init=None)

    def settings(teacher: Path, steps: int) -> PretrainSettings:
        task = {"teacher": str(teacher), "num_codes": [9, 4]}
        units = {"task": "hidden_units", "hidden_units": task}
        return build(
            PretrainSettings,
            as_table(PRETRAIN)
            | units
            | {"train": {"steps": steps, "save_every": 3, "device": "cpu"}},
        )

    run = tmp_path / "units"
    pretrain([labelled_store], run, settings(teachers[0], 6), init=teachers[1])
    tensors, record = load_folder(run / "model")
    assert record["about"]["task"] == "hidden_units"
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

    # A second round goes on with the encoder, not with clusters, answers or teacher.
    assert pretrain_settings(run, None, {}).hidden_units.num_codes == (9, 4)
    assert pretrain_settings(run, None, {}).hidden_units.teacher is None
    other = settings(teachers[1], 1)
    fewer = other.hidden_units.model_copy(update={"num_codes": (8, 5)})
    other = other.model_copy(update={"hidden_units": fewer})
    again = pretrain([labelled_store], tmp_path / "again", other, init=run)
    assert load_folder(again)[0]["codes_0"].shape[0] == 8


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_model_of_the_best_probe_is_kept(
    best: int, labelled_store: Path, tmp_path: Path
) -> None:
    """Probes whose errors are drawn, but for the lowest; its update's weights are the model's."""
    draws = random.Random(best)
    errors = [draws.uniform(0.5, 0.9) for _ in range(3)]
    errors[best - 1] = 0.1
    seen: list[torch.Tensor] = []

    def measure(encoder: Encoder) -> dict[str, float]:
        seen.append(next(encoder.parameters()).detach().clone())
        return {"probe_mean": errors[len(seen) - 1]}

    few = {"train": FEW | {"steps": 3, "validate_every": 1}}
    settings = build(PretrainSettings, as_table(PRETRAIN) | few)
    model = pretrain([labelled_store], tmp_path / "run", settings, measure=measure)
    kept = next(load_encoder(model).parameters())
    assert [torch.equal(kept, weights) for weights in seen] == [n == best for n in (1, 2, 3)]
    assert load_folder(model)[1]["about"]["probe_mean"] == 0.1

    # The same command, once all is done, leaves the best where it is.
    pretrain([labelled_store], tmp_path / "run", settings, measure=measure)
    assert load_folder(model)[1]["about"]["probe_mean"] == 0.1


def test_chunks_without_a_frame_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 80 ms there are mel rows, but no encoder frame."""
    folder = make_labelled(tmp_path / "corpus", {"train": 4, "dev": 2, "test": 1})
    rows = (folder / "metadata.csv").read_text()
    click = np.random.default_rng(0).uniform(-0.1, 0.1, 1280).astype(np.float32)
    for name in ("train900", "dev900", "click900"):
        write_wav(folder / f"{name}.wav", click, 16_000)
        rows += f"{name}.wav,a {name[:-3]},speaker9,{name[:-3]}\n"
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
