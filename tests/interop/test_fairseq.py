"""fairseq's checkpoints, old and new: weights, settings, dictionary, and no other object."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from reference.folders import save_fairseq
from reference.models import tiny_encoder
from reference.objective import make
from support.foreign import recogniser

from speechssl.encoder.config import WAV2VEC2_CONVS
from speechssl.errors import CheckpointError
from speechssl.interop.convert import import_model, load_model
from speechssl.interop.fairseq import conv_layers
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel, load_ctc


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("kind", ["base", "large"])
def test_a_pretrained_model_is_imported_with_its_objective(
    tmp_path: Path, kind: str, flat: bool
) -> None:
    model = make(kind)
    save_fairseq(tmp_path / "theirs.pt", model, normalize=kind == "large", flat=flat)
    conversion = import_model(tmp_path / "theirs.pt", tmp_path / "ours")
    assert conversion.kind == "pretraining"
    assert conversion.difference < 1e-5
    found = load_model(tmp_path / "ours")
    assert isinstance(found, Contrastive)
    assert found.config.num_negatives == 10
    assert found.encoder.config.normalise_input == (kind == "large")
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("flat", [True, False])
def test_a_fine_tuned_model_is_imported_with_its_dictionary(tmp_path: Path, flat: bool) -> None:
    model = recogniser("large")
    theirs = CtcModel(model.encoder, model.tokenizer, "basic-1", model.config)
    theirs.head = torch.nn.Linear(16, 7)
    save_fairseq(tmp_path / "theirs.pt", theirs, normalize=True, flat=flat)

    with pytest.raises(CheckpointError, match=r"needs .*dict\.ltr\.txt"):
        import_model(tmp_path / "theirs.pt", tmp_path / "ours")

    (tmp_path / "dict.ltr.txt").write_text("| 900\nE 400\n")
    with pytest.raises(CheckpointError, match="makes 6 tokens, the head has 7"):
        import_model(tmp_path / "theirs.pt", tmp_path / "ours")

    (tmp_path / "dict.ltr.txt").write_text("| 900\nE 400\nT 300\n")
    assert import_model(tmp_path / "theirs.pt", tmp_path / "ours").difference < 1e-5

    found = load_ctc(tmp_path / "ours")
    assert found.tokenizer.texts == ("<s>", "<unk>", "<pad>", "</s>", " ", "E", "T")
    assert torch.equal(found.head.weight, theirs.head.weight[[0, 3, 1, 2, 4, 5, 6]])


class Hostile:
    """What a malicious file would run when it is loaded as a pickle."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin"])
def test_any_other_object_is_refused_and_nothing_is_run(tmp_path: Path, name: str) -> None:
    target, path = tmp_path / "touched", tmp_path / "theirs" / name
    path.parent.mkdir()
    torch.save({"args": Namespace(x=Hostile(target)), "model": {}}, path)
    source = path
    if name.endswith(".bin"):
        (path.parent / "config.json").write_text('{"model_type": "wav2vec2"}')
        source = path.parent
    with pytest.raises(
        CheckpointError, match=r"refused: it holds an object of .*; nothing was run"
    ):
        import_model(source, tmp_path / "ours")
    assert not target.exists()
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn": "relu"}, "activation_fn = 'relu'"),
        ({"layer_type": "conformer"}, "layer_type = 'conformer'"),
        ({"encoder_layers": None}, "encoder_layers"),
        ({"negatives_from_everywhere": True}, "negatives_from_everywhere = True"),
        ({"conv_feature_layers": 7}, "conv_feature_layers 7 cannot be read"),
        ({"latent_groups": "two"}, "is damaged, or no wav2vec"),
        ({"latent_groups": 3}, "is damaged, or no wav2vec"),
        ({"conv_feature_layers": "__import__('os').system('true')"}, "not a sum of lists"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_fairseq(tmp_path / "theirs.pt", make("base"), normalize=False)
    loaded = torch.load(tmp_path / "theirs.pt", weights_only=False)
    loaded["args"] = Namespace(
        **{n: v for n, v in (vars(loaded["args"]) | change).items() if v is not None}
    )
    torch.save(loaded, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=message):
        import_model(tmp_path / "theirs.pt", tmp_path / "ours")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    save_fairseq(tmp_path / "theirs.pt", make("base"), normalize=False)
    data = (tmp_path / "theirs.pt").read_bytes()
    (tmp_path / "theirs.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="is not a torch file that can be read"):
        import_model(tmp_path / "theirs.pt", tmp_path / "ours")


def test_convolutions_are_read_as_fairseq_writes_them() -> None:
    text = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert tuple(conv_layers(text)) == WAV2VEC2_CONVS
    assert conv_layers("[(8, 10, 5), (8, 3, 2)]") == [(8, 10, 5), (8, 3, 2)]

    for wrong in (
        "",
        "8",
        "[(8, 10)]",
        "[(8, 10, 5)] ** 2",
        "[(8, 10, 5)] * 1000",
        "[(8, -1, 5)]",
        "[x]",
        "[(True,1,1)]",
        "[(1,1,1)]*60*60",
    ):
        with pytest.raises(CheckpointError, match="conv_feature_layers"):
            conv_layers(wrong)


def test_an_encoder_of_another_kind_of_file_is_no_fairseq(tmp_path: Path) -> None:
    encoder = tiny_encoder("base")
    torch.save({"weights": encoder.state_dict()}, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match="other things than tensors by name"):
        import_model(tmp_path / "theirs.pt", tmp_path / "ours")
