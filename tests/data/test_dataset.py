"""Chunks of one or more stores: which are learned from, and how they become a batch."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.speech import make_labelled
from support.stores import build, waveforms

from speechssl.audio.feature_config import FeatureConfig
from speechssl.data.collate import collate, utterance_key
from speechssl.data.dataset import Dataset, choose_minutes, open_stores
from speechssl.data.prepare import prepare
from speechssl.data.settings import PrepareConfig
from speechssl.data.store import Store, meta_checksum
from speechssl.errors import ConfigError


def test_collate_pads_with_zeros_and_scales_waveforms() -> None:
    arrays = [np.array([32767, -32768], dtype=np.int16), np.array([16384], dtype=np.int16)]
    batch = collate(["x", "y"], arrays, [None, "t"], FeatureConfig(kind="waveform"))
    assert batch.inputs.tolist() == [[32767 / 32768, -1.0], [0.5, 0.0]]
    assert batch.input_lengths.tolist() == [2, 1]
    assert batch.audio_s == 3 / 16_000
    assert batch.keys == (utterance_key("x"), utterance_key("y"))


def test_minutes_choose_a_seeded_subset(labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    subset = choose_minutes(dataset, 1.0, seed=3)
    longest = dataset.num_samples.max() / 16_000
    assert 60 - longest <= subset.seconds <= 60
    assert choose_minutes(dataset, 1.0, seed=3).index_of.tolist() == subset.index_of.tolist()
    assert choose_minutes(dataset, 1.0, seed=4).index_of.tolist() != subset.index_of.tolist()
    with pytest.raises(ConfigError, match=r"more than the .* minutes of train with transcripts"):
        choose_minutes(dataset, 1e6, seed=0)


def test_a_missing_split_is_named(labelled_store: Path) -> None:
    with pytest.raises(ConfigError, match="holdout"):
        Dataset([Store(labelled_store)], ["holdout"])


def test_stores_of_different_features_are_refused(tmp_path: Path) -> None:
    """Both stores are named, with what they hold."""
    make_labelled(tmp_path / "in", {"train": 1})
    features = {"mel": FeatureConfig(), "fine": FeatureConfig(hop_ms=5.0)}
    stores = []
    for name, config in features.items():
        prepare(tmp_path / "in", tmp_path / name, PrepareConfig(features=config))
        stores.append(Store(tmp_path / name))

    with pytest.raises(ConfigError) as refused:
        Dataset(stores, ["train"])
    said = str(refused.value)
    assert "stores hold different features, prepare them alike" in said
    assert f"{tmp_path / 'mel'}: " in said
    assert "hop_ms=5.0" in said


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_is_named_twice_is_said(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by way of a link, or where a copy of it is named."""
    rng = random.Random(seed)
    build(tmp_path / "one", waveforms(4), None)
    build(tmp_path / "two", waveforms(3), None)
    meta = json.loads((tmp_path / "two/store.json").read_text())
    del meta["checksum"]
    meta["plan"] = "another"
    sealed = meta | {"checksum": meta_checksum(meta)}
    (tmp_path / "two/store.json").write_text(json.dumps(sealed))
    (tmp_path / "link").symlink_to("one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")

    open_stores([tmp_path / "one", tmp_path / "two"])
    assert "same recordings" not in capsys.readouterr().err
    again = rng.choice(["one", "link", "copy"])
    opened = open_stores([tmp_path / "one", tmp_path / "two", tmp_path / again])
    assert sum(map(len, opened)) == 11
    assert f"{tmp_path / 'one'} and {tmp_path / again} hold the same" in capsys.readouterr().err
