"""Presets, overrides and what is refused."""

from pathlib import Path

import pytest
import torch

from speechssl.config import preset_names
from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.settings import FinetuneSettings
from speechssl.training.presets import resolve_settings


def test_presets_resolve_and_have_their_sizes() -> None:
    assert preset_names() == ["base", "large", "minutes", "small", "tiny"]

    sizes = {}
    for name in preset_names():
        settings = resolve_settings(PretrainSettings, name, {})
        resolve_settings(FinetuneSettings, name, {})
        with torch.device("meta"):
            model = Contrastive(
                Encoder(settings.encoder), settings.contrastive, settings.quantizer, settings.mask
            )
        sizes[name] = sum(p.numel() for p in model.parameters()) / 1e6

    assert 1 <= sizes["minutes"] <= 2
    assert 3 <= sizes["tiny"] <= 5
    assert 20 <= sizes["small"] <= 30
    assert sizes["base"] == pytest.approx(95.04, abs=0.02)  # as published: 95 M
    assert sizes["large"] == pytest.approx(317.4, abs=0.3)  # as published: 317 M


def test_base_is_the_papers() -> None:
    settings = resolve_settings(PretrainSettings, "base", {})
    assert settings.mask.prob == 0.65
    assert settings.mask.length == 10
    assert settings.optim.lr == 5e-4
    assert settings.encoder.samples_per_frame == 320
    assert (settings.contrastive.diversity_weight, settings.contrastive.penalty_weight) == (
        0.1,
        10.0,
    )


def test_overrides_win_and_unknown_names_are_refused() -> None:
    assert resolve_settings(PretrainSettings, "tiny", {"optim": {"lr": 0.5}}).optim.lr == 0.5
    with pytest.raises(ConfigError, match=r"optim\.lrr.*optim\.lr"):
        resolve_settings(PretrainSettings, "tiny", {"optim": {"lrr": 0.5}})


def test_a_preset_that_holds_no_tables_is_refused(tmp_path: Path) -> None:
    for text in ("pretrain = 5", "[pretrian]"):
        (tmp_path / "my.toml").write_text(text)
        with pytest.raises(ConfigError, match="is no table of a preset, allowed are"):
            resolve_settings(PretrainSettings, str(tmp_path / "my.toml"), {})
