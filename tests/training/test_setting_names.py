"""Old names of settings: presets, ``--set``, saved models and runs that use them still work."""

import json
import random
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.commands import one_line
from support.settings import PRETRAIN, as_toml, tuned

from speechssl.config import Table, as_table, build, merge, parse_overrides
from speechssl.encoder.augment import AugmentConfig
from speechssl.errors import ConfigError
from speechssl.interop.convert import load_model
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings, pretrain_settings
from speechssl.recognition.settings import FinetuneSettings, finetune_settings
from speechssl.storage.checkpoint import load_folder, save_folder
from speechssl.training.run_folder import SETTINGS, claim
from speechssl.training.setting_names import ADDED, USUAL_NAMES, with_current_names

OLD_TABLES = {"contrastive": "objective", "hidden_units": "units", "two_views": "views"}
OLD_TASKS = {"hidden_units": "units", "two_views": "views"}

OLD = {
    "task": "units",
    "units": {"teacher": "runs/teacher", "num_codes": [9, 4]},
    "objective": {"targets": "logmel"},
    "views": {"width": 12},
}
NEW = {
    "task": "hidden_units",
    "hidden_units": {"teacher": "runs/teacher", "num_codes": [9, 4]},
    "contrastive": {"targets": "logmel"},
    "two_views": {"width": 12},
}
BOTH = "units is the old name of hidden_units, and both are given: leave units out"


def with_old_names(table: Table) -> Table:
    """A table as versions before 0.2.0 wrote it."""
    old = {OLD_TABLES.get(name, name): value for name, value in table.items()}
    if "task" in old:
        old["task"] = OLD_TASKS.get(old["task"], old["task"])
    return old


def write_preset(path: Path, pretrain_table: Table) -> str:
    path.write_text(as_toml({"pretrain": pretrain_table}), encoding="utf-8")
    return str(path)


def settings_of(task: str, steps: int = 1) -> PretrainSettings:
    """A run of a few updates."""
    train = {"steps": steps, "save_every": 1, "device": "cpu"}
    return build(PretrainSettings, merge(as_table(PRETRAIN), {"task": task, "train": train}))


def save_as_before(model: Path, folder: Path) -> Path:
    """A copy of a pretrained model, with the names that its record had before."""
    tensors, record = load_folder(model)
    about = with_old_names(record["about"])
    assert about != record["about"]
    save_folder(
        folder, tensors, {"kind": "pretraining", "encoder": record["encoder"], "about": about}
    )
    return folder


# --- tables ---------------------------------------------------------------------------------------


def test_old_names_become_the_current_ones_and_current_ones_stay() -> None:
    assert with_current_names(OLD) == NEW
    assert with_current_names(NEW) == NEW
    assert with_current_names({"mask": {"length": 3}}) == {"mask": {"length": 3}}


@pytest.mark.parametrize("name", ["contrastive", "random_projection", "reconstruction", 5, None])
def test_a_task_that_kept_its_name_keeps_it(name: Any) -> None:
    assert with_current_names({"task": name}) == {"task": name}


@pytest.mark.parametrize("current", list(OLD_TABLES))
def test_both_names_in_one_table_are_refused(current: str) -> None:
    old = OLD_TABLES[current]
    message = f"{old} is the old name of {current}, and both are given: leave {old} out"
    for table in ({old: {}, current: {}}, {current: {}, old: {}}):
        with pytest.raises(ConfigError, match=message):
            with_current_names(table)


# --- presets and --set ----------------------------------------------------------------------------


def test_a_preset_may_use_the_old_names(tmp_path: Path) -> None:
    old = write_preset(tmp_path / "old.toml", OLD)
    new = write_preset(tmp_path / "new.toml", NEW)

    found = as_table(pretrain_settings(None, old, {}))
    expected = as_table(pretrain_settings(None, new, {}))

    assert found | {"preset": new} == expected
    assert expected["task"] == "hidden_units"
    assert expected["hidden_units"]["num_codes"] == [9, 4]
    assert expected["contrastive"]["targets"] == "logmel"
    assert expected["two_views"]["width"] == 12


def test_overrides_may_use_the_old_names() -> None:
    old = [
        "task=units",
        "units.teacher=runs/teacher",
        "units.num_codes=[9, 4]",
        "objective.targets=logmel",
        "views.width=12",
    ]

    found = pretrain_settings(None, "tiny", parse_overrides(old))

    assert found == pretrain_settings(None, "tiny", NEW)
    assert pretrain_settings(None, "tiny", parse_overrides(["task=views"])).task == "two_views"


def test_an_override_wins_over_a_preset_whichever_names_they_use(tmp_path: Path) -> None:
    old = write_preset(tmp_path / "old.toml", OLD)
    new = write_preset(tmp_path / "new.toml", NEW)

    over_old = pretrain_settings(None, old, parse_overrides(["hidden_units.num_codes=[5]"]))
    over_new = pretrain_settings(None, new, parse_overrides(["units.num_codes=[5]"]))

    for settings in (over_old, over_new):
        assert settings.hidden_units.num_codes == (5,)
        assert settings.hidden_units.teacher == "runs/teacher"


def test_both_names_in_a_preset_are_refused(tmp_path: Path) -> None:
    both = {"units": {"layers": 1}, "hidden_units": {"layers": 2}}

    with pytest.raises(ConfigError, match=BOTH):
        pretrain_settings(None, write_preset(tmp_path / "both.toml", both), {})


def test_both_names_on_the_command_line_are_one_line(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = ["--set", "units.layers=1", "--set", "hidden_units.layers=2"]

    said = one_line(
        monkeypatch,
        capsys,
        "pretrain",
        labelled_store,
        "--run",
        tmp_path / "run",
        "--preset",
        "tiny",
        *both,
    )

    assert BOTH in said
    assert not (tmp_path / "run").exists()


# --- saved models and runs ------------------------------------------------------------------------


def test_pretraining_goes_on_from_a_model_with_the_old_names(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its task is used, not the encoder alone."""
    made = pretrain([labelled_store], tmp_path / "run", settings_of("two_views"))
    before = save_as_before(made, tmp_path / "before")

    settings = pretrain_settings(before, None, {"train": {"steps": 1, "device": "cpu"}})
    assert settings.task == "two_views"
    assert settings.two_views == settings_of("two_views").two_views
    assert finetune_settings(before, None, {}).encoder == settings.encoder

    capsys.readouterr()
    pretrain([labelled_store], tmp_path / "on", settings, init=before)
    assert "only the encoder" not in capsys.readouterr().err


def test_a_model_of_units_with_the_old_names_goes_on_without_its_teacher(
    labelled_store: Path, tmp_path: Path
) -> None:
    train = {"train": {"steps": 1, "device": "cpu"}}
    units = {"task": "hidden_units", "hidden_units": {"num_codes": [9, 4]}}
    settings = build(PretrainSettings, as_table(PRETRAIN) | train | units)
    made = pretrain([labelled_store], tmp_path / "run", settings)
    tensors, record = load_folder(made)
    about = with_old_names(record["about"])
    about["units"] = {**about["units"], "teacher": "runs/gone"}
    save_folder(
        tmp_path / "before",
        tensors,
        {"kind": "pretraining", "encoder": record["encoder"], "about": about},
    )

    found = pretrain_settings(tmp_path / "before", None, {})

    assert found.task == "hidden_units"
    assert found.hidden_units.num_codes == (9, 4)
    assert found.hidden_units.teacher is None


def test_a_contrastive_model_with_the_old_names_is_loaded_for_export(
    labelled_store: Path, tmp_path: Path
) -> None:
    made = pretrain([labelled_store], tmp_path / "run", settings_of("contrastive"))
    before = save_as_before(made, tmp_path / "before")

    model = load_model(before)

    assert isinstance(model, Contrastive)
    assert model.config == PRETRAIN.contrastive


def test_a_run_that_began_under_the_old_names_is_continued(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    pretrain([labelled_store], run, settings_of("two_views"))
    path = run / "settings.json"
    path.write_text(json.dumps(with_old_names(json.loads(path.read_text()))))

    capsys.readouterr()
    pretrain([labelled_store], run, settings_of("two_views"))

    assert "are done already" in capsys.readouterr().err
    narrower = merge(as_table(settings_of("two_views")), {"two_views": {"width": 12}})
    with pytest.raises(ConfigError, match=r"two_views\.width: 128 -> 12"):
        pretrain([labelled_store], run, build(PretrainSettings, narrower))


# --- settings that came later ---------------------------------------------------------------------


def test_no_change_of_log_mel_rows_that_was_added_is_forgotten() -> None:
    """In any table that holds such changes; a new one must be added there too."""
    first = {"tempo", "mel_stretch", "mel_masks", "mel_mask_bins"}
    for table in ("ctc", "hidden_units", "two_views"):
        others = {name for name in AugmentConfig.model_fields if f"{table}.augment.{name}" in ADDED}
        assert others == AugmentConfig.model_fields.keys() - first, table


def test_a_run_from_before_a_setting_was_added_goes_on_with_what_was_done_then(
    tmp_path: Path,
) -> None:
    pretraining = as_table(build(PretrainSettings, {}))
    for name, value in ADDED.items():
        table, setting = name.rsplit(".", 1)
        settings = pretraining if table.split(".")[0] in pretraining else as_table(tuned())
        before = json.loads(json.dumps(settings))
        place = before
        for key in table.split("."):
            place = place[key]
        assert place.pop(setting) == value

        run = tmp_path / name
        run.mkdir()
        (run / SETTINGS).write_text(json.dumps(before))
        with ExitStack() as held:
            claim(run, settings, (), held)

        place[setting] = "another"
        change = f"{name}: {value!r} -> 'another'"
        with ExitStack() as held, pytest.raises(ConfigError, match=re.escape(change)):
            claim(run, before, (), held)


@pytest.mark.parametrize("seed", range(8))
def test_the_name_that_another_toolkit_has_leads_to_ours(seed: int) -> None:
    """``optim.learning_rate`` was answered with "did you mean 'optim.weight_decay'?"."""
    rng = random.Random(seed)
    usual_name = rng.choice(sorted(USUAL_NAMES))
    table, _, setting = USUAL_NAMES[usual_name].partition(".")
    where = rng.choice([table, "optim", "train", ""])
    settings = {where: {usual_name: 1}} if where else {usual_name: 1}
    with pytest.raises(ConfigError, match=rf"did you mean '{table}\.{setting}'"):
        build(PretrainSettings, settings)


def test_a_slip_in_a_name_of_ours_is_nearer_than_anothers(tmp_path: Path) -> None:
    slips = {"optim.lrr": "optim.lr", "train.step": "train.steps", "mask.probb": "mask.prob"}
    for given, meant in slips.items():
        with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
            build(PretrainSettings, parse_overrides([f"{given}=1"]))
    # A table, which was answered with one of its settings.
    with pytest.raises(ConfigError, match="'optimizer': did you mean 'optim'"):
        build(PretrainSettings, parse_overrides(["optimizer.lr=1"]))


@pytest.mark.parametrize("seed", range(6))
def test_what_is_no_setting_at_all_gets_no_guess(seed: int) -> None:
    """``train.num_workers`` was "did you mean 'train.steps'?", ``patience`` micro_seconds."""
    rng = random.Random(seed)
    name = "".join(rng.choices("qxzjkw", k=rng.randint(4, 9)))
    table = rng.choice(["optim", "train", "batch"])
    with pytest.raises(ConfigError, match=rf"'{table}\.{name}': {table} has \w+, ") as caught:
        build(FinetuneSettings, parse_overrides([f"{table}.{name}=1"]))
    assert "did you mean" not in str(caught.value)
    with pytest.raises(ConfigError, match=f"'{name}': there are .*optim, .*train"):
        build(FinetuneSettings, parse_overrides([f"{name}={rng.random()}"]))

    for given in ("train.num_workers=2", "optim.name=adam", "optim.name=sgd", "vocab_size=30"):
        with pytest.raises(ConfigError) as caught:
            build(FinetuneSettings, parse_overrides([given]))
        assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_tables_of_other_toolkits_before_a_name_change_nothing(seed: int) -> None:
    """``model.optim.lr`` was "did you mean 'encoder'?", ``max_epochs`` the number of updates."""
    rng = random.Random(seed)
    before = ".".join(rng.choices(["model", "cfg", "hparams"], k=rng.randint(1, 2)))
    meant = {"optim.lr": "optim.lr", "max_epochs": "ctc.max_epochs", "max_steps": "train.steps"}
    for given, setting in meant.items():
        with pytest.raises(ConfigError, match=f"did you mean '{setting}'"):
            build(FinetuneSettings, parse_overrides([f"{before}.{given}=1"]))


def test_every_usual_name_means_a_setting_that_is_there() -> None:
    known = as_table(build(PretrainSettings, {}))
    for setting in USUAL_NAMES.values():
        table, _, name = setting.partition(".")
        assert name in known[table]
