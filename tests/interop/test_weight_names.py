"""Names of weights are those of the libraries' models, there and back, and none is left out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchaudio
import transformers
from reference.folders import old_weight_norm
from reference.models import KINDS, tiny_encoder
from reference.objective import make
from support.foreign import recogniser
from torch import nn

from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.errors import CheckpointError
from speechssl.interop.huggingface import their_settings
from speechssl.interop.torchaudio import their_settings as torchaudio_settings
from speechssl.interop.weight_names import Dialect, from_dialect, to_dialect

WAVEFORM = [kind for kind, table in KINDS.items() if table["features"] == {"kind": "waveform"}]
DIALECTS: tuple[Dialect, ...] = ("transformers", "torchaudio", "fairseq")


def build_transformers(config: EncoderConfig) -> nn.Module:
    return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**their_settings(config)))


def build_torchaudio(config: EncoderConfig) -> nn.Module:
    return torchaudio.models.wav2vec2_model(**torchaudio_settings(config), aux_num_out=None)


@pytest.mark.parametrize(
    ("dialect", "build"), [("transformers", build_transformers), ("torchaudio", build_torchaudio)]
)
@pytest.mark.parametrize("kind", [*WAVEFORM, "adapters"])
def test_names_and_shapes_are_those_of_their_models(
    kind: str, dialect: Dialect, build: Callable[[EncoderConfig], nn.Module]
) -> None:
    if (kind, dialect) == ("adapters", "torchaudio"):
        return  # torchaudio has none, and the export says so
    encoder = tiny_encoder("large", adapter_width=4) if kind == "adapters" else tiny_encoder(kind)
    expected = {name: tensor.shape for name, tensor in build(encoder.config).state_dict().items()}
    found = to_dialect(encoder.state_dict(), encoder.config, dialect)
    assert {name: tensor.shape for name, tensor in found.items()} == expected


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", WAVEFORM)
def test_there_and_back_is_the_same(kind: str, dialect: Dialect, old: bool) -> None:
    encoder = tiny_encoder(kind)
    theirs = to_dialect(encoder.state_dict(), encoder.config, dialect)
    back = from_dialect(old_weight_norm(theirs) if old else theirs, encoder.config, dialect)
    assert back.keys() == {f"encoder.{name}" for name in encoder.state_dict()}
    for name, tensor in encoder.state_dict().items():
        # torchaudio has no mask vector: ours becomes zero.
        lost = dialect == "torchaudio" and name == "mask_embedding"
        assert torch.equal(back[f"encoder.{name}"], torch.zeros_like(tensor) if lost else tensor), (
            name
        )


@pytest.mark.parametrize("dialect", ["transformers", "fairseq"])
def test_an_objective_and_a_head_go_there_and_back(dialect: Dialect) -> None:
    for model, codebooks in ((make("large"), 2), (recogniser("large"), 0)):
        theirs = to_dialect(model.state_dict(), model.encoder.config, dialect)
        theirs = {name.removeprefix("wav2vec2."): tensor for name, tensor in theirs.items()}
        back = from_dialect(theirs, model.encoder.config, dialect, codebooks)
        assert back.keys() == model.state_dict().keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_missing_name_is_an_error_and_every_strange_one(dialect: Dialect) -> None:
    encoder = tiny_encoder("base")
    theirs = to_dialect(encoder.state_dict(), encoder.config, dialect)
    for name in theirs:
        if name in ("masked_spec_embed", "mask_emb"):
            continue
        less: dict[str, Any] = {n: t for n, t in theirs.items() if n != name}
        with pytest.raises(CheckpointError, match=f"missing {name.replace('.', '[.]')}"):
            from_dialect(less, encoder.config, dialect)
    with pytest.raises(CheckpointError, match=r"unexpected strange\.weight"):
        from_dialect(theirs | {"strange.weight": torch.zeros(1)}, encoder.config, dialect)
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        from_dialect({}, encoder.config, dialect)


def test_gradients_that_are_not_there_are_left_out() -> None:
    encoder: Encoder = tiny_encoder("base")
    part = {"projection.weight": encoder.projection.weight}
    assert to_dialect(part, encoder.config, "transformers").keys() == {
        "feature_projection.projection.weight"
    }
