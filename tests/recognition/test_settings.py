"""Settings of fine-tuning: what a run that was begun under other defaults goes on with."""

import json
from pathlib import Path

import pytest

from speechssl.recognition.settings import FinetuneSettings, begun_normaliser


@pytest.mark.parametrize("name", ["basic-1", "english-1", "none-1"])
def test_a_run_goes_on_with_the_normaliser_that_it_was_begun_with(
    tmp_path: Path, name: str
) -> None:
    assert begun_normaliser(tmp_path / "run") == {}

    (tmp_path / "settings.json").write_text(json.dumps({"normaliser": name, "tokenizer": "chars"}))
    begun = begun_normaliser(tmp_path)
    assert FinetuneSettings(**begun).normaliser == name
    assert FinetuneSettings().normaliser == "basic-2"
