"""Settings of fine-tuning: what a run that was begun under other defaults goes on with."""

import json
from pathlib import Path

import pytest

from speechssl.recognition.settings import FinetuneSettings, begun_settings, finetune_settings


@pytest.mark.parametrize("name", ["basic-1", "english-1", "none-1"])
def test_a_run_goes_on_with_the_normaliser_that_it_was_begun_with(
    tmp_path: Path, name: str
) -> None:
    assert begun_settings(tmp_path / "run") == {}

    (tmp_path / "settings.json").write_text(json.dumps({"normaliser": name, "tokenizer": "chars"}))
    begun = begun_settings(tmp_path)
    assert FinetuneSettings(**begun).normaliser == name
    assert FinetuneSettings().normaliser == "basic-2"


def test_a_run_of_before_the_limit_of_passes_goes_on_without_one(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"ctc": {"dropout": 0.1}}))
    begun = begun_settings(tmp_path)
    assert finetune_settings(None, "minutes", begun).ctc.max_epochs is None

    for known in (None, 7):
        settings.write_text(json.dumps({"ctc": {"max_epochs": known}}))
        assert begun_settings(tmp_path) == {}
    settings.write_text("{}")
    assert begun_settings(tmp_path) == {}
