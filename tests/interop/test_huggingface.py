"""Folders as transformers saves them, and as the hub has them: weights, texts and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from reference.folders import STYLES, VOCABULARY, old_weight_norm, save_tokenizer, save_transformers
from reference.models import batch_of, noise, tiny_encoder
from support.foreign import recogniser
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Processor,
    pipeline,
)

from speechssl.audio.reader import write_wav
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop.convert import ExportFormat, export_model, import_model
from speechssl.interop.huggingface import encoder_config, read_huggingface, their_settings
from speechssl.recognition.model import CtcConfig, CtcModel, load_ctc, save_ctc
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer
from speechssl.transcription.transcribe import transcribe

KINDS = {
    "Wav2Vec2Model": "encoder",
    "Wav2Vec2ForPreTraining": "pretraining",
    "Wav2Vec2ForCTC": "ctc",
}


def recordings(folder: Path, count: int = 6) -> list[Path]:
    """Noise that rises and falls, a second or so each, as 16-bit files."""
    rng, paths = np.random.default_rng(5), []
    folder.mkdir()
    for number in range(count):
        wave = rng.standard_normal(rng.integers(9_000, 30_000)).astype(np.float32)
        wave *= 0.1 * np.sin(np.arange(len(wave)) / rng.uniform(500, 3000)).astype(np.float32)
        paths.append(folder / f"{number}.wav")
        write_wav(paths[-1], np.round(wave * 32768) / 32768, 16_000)
    return paths


def their_texts(folder: Path, paths: list[Path]) -> list[str]:
    recognise = pipeline("automatic-speech-recognition", model=str(folder))
    import soundfile

    inputs = [
        {"raw": soundfile.read(path, dtype="float32")[0], "sampling_rate": 16_000} for path in paths
    ]
    return [" ".join(recognise(item)["text"].split()) for item in inputs]


# --- import ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_style_is_imported_as_the_same_model(
    tmp_path: Path, kind: str, style: str
) -> None:
    save_transformers(tmp_path / "theirs", kind, style)
    conversion = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert conversion.kind == KINDS[kind]
    assert conversion.difference < 1e-5


@pytest.mark.parametrize("style", ["base", "large"])
def test_texts_are_those_of_their_pipeline(tmp_path: Path, style: str) -> None:
    save_transformers(tmp_path / "theirs", style=style)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    paths = recordings(tmp_path / "audio")
    found = [result.text for result in transcribe(load_ctc(tmp_path / "ours"), paths)]  # type: ignore[union-attr]
    assert found == their_texts(tmp_path / "theirs", paths)
    assert len(set(found)) > 1
    assert any("A" in text for text in found)


def test_both_namings_of_weight_norm_and_every_file_layout_give_equal_weights(
    tmp_path: Path,
) -> None:
    theirs = save_transformers(tmp_path / "plain")
    expected = read_huggingface(tmp_path / "plain").tensors
    old = old_weight_norm({n: t.contiguous() for n, t in theirs.state_dict().items()})
    assert old.keys() != theirs.state_dict().keys()

    names = sorted(old)
    parts = [{n: old[n] for n in names[:20]}, {n: old[n] for n in names[20:]}]

    for layout in ("old", "bin", "shards", "bin-shards", "half"):
        folder = tmp_path / layout
        save_transformers(folder)
        (folder / "model.safetensors").unlink()

        if layout == "bin":
            torch.save(old, folder / "pytorch_model.bin")
        elif layout in ("old", "half"):
            halved = {n: t.half() for n, t in old.items()} if layout == "half" else old
            safetensors.torch.save_file(halved, folder / "model.safetensors")
        else:
            stem, end = ("model", "safetensors") if layout == "shards" else ("pytorch_model", "bin")
            files = [f"{stem}-0000{i}-of-00002.{end}" for i in (1, 2)]
            save = safetensors.torch.save_file if layout == "shards" else torch.save
            for file, part in zip(files, parts, strict=True):
                save(part, folder / file)
            table = {n: file for file, part in zip(files, parts, strict=True) for n in part}
            index = json.dumps({"metadata": {}, "weight_map": table})
            (folder / f"{stem}.{end}.index.json").write_text(index)

        found = read_huggingface(folder)
        assert found.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found.tensors[name].dtype == torch.float32
            wanted = tensor.half().float() if layout == "half" else tensor
            assert torch.equal(found.tensors[name], wanted), (layout, name)


def test_a_model_that_never_masks_gets_a_mask_vector_of_zeros(tmp_path: Path) -> None:
    theirs = save_transformers(tmp_path / "theirs", "Wav2Vec2Model", mask_time_prob=0.0)
    assert "masked_spec_embed" not in theirs.state_dict()
    import_model(tmp_path / "theirs", tmp_path / "ours")
    assert (read_huggingface(tmp_path / "theirs").tensors["encoder.mask_embedding"] == 0).all()


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_no_weight_may_be_missing_or_left_over(tmp_path: Path, change: str) -> None:
    save_transformers(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = "encoder.layers.1.attention.k_proj.bias"
    if change == "missing":
        tensors.pop(f"wav2vec2.{name}")
    else:
        name = "classifier.weight"
        tensors[name] = torch.zeros(3)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"{change} {name}"):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_act", "relu"),
        ("layer_norm_eps", 1e-3),
        ("add_adapter", True),
        ("feat_extract_activation", "silu"),
    ],
)
def test_what_our_encoder_does_not_have_is_refused(
    tmp_path: Path, setting: str, value: object
) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2Model", **{setting: value})
    with pytest.raises(CheckpointError, match=f"{setting} = {value!r}"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


def test_other_models_and_broken_folders_are_refused(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())

    (tmp_path / "theirs" / "config.json").write_text(
        json.dumps(settings | {"model_type": "hubert"})
    )
    with pytest.raises(CheckpointError, match="type 'hubert'"):
        import_model(tmp_path / "theirs", tmp_path / "ours")

    (tmp_path / "theirs" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        import_model(tmp_path / "theirs", tmp_path / "ours")

    (tmp_path / "theirs" / "config.json").write_text(json.dumps(settings))
    (tmp_path / "theirs" / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"no vocab\.json"):
        import_model(tmp_path / "theirs", tmp_path / "ours")

    (tmp_path / "theirs" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[1, 2]"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "wav2vec2", "hidden_size": "x"}'),
        ("config.json", '{"model_type": "wav2vec2", "conv_dim": [8, 8]}'),
        ("processor_config.json", "{"),
        ("model.safetensors", "no header"),
    ],
)
def test_a_damaged_file_is_one_error(tmp_path: Path, name: str, content: str) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "theirs" / name).write_text(content)
    with pytest.raises(CheckpointError):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["wav2vec2.encoder.layer_norm.bias"] = torch.zeros(9)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(
        CheckpointError, match=r"encoder\.context\.norm\.bias is \(9,\), the model has \(16,\)"
    ):
        import_model(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize("style", ["base", "large"])
def test_without_a_processor_only_layered_models_are_normalised(tmp_path: Path, style: str) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2Model", style)
    (tmp_path / "theirs" / "preprocessor_config.json").unlink()
    assert read_huggingface(tmp_path / "theirs").encoder.normalise_input == (style == "large")


def test_normalisation_follows_the_processor(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2Model", "base")
    path = tmp_path / "theirs" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_normalize": True}))
    assert import_model(tmp_path / "theirs", tmp_path / "ours").difference < 1e-5
    assert read_huggingface(tmp_path / "theirs").encoder.normalise_input


# --- vocabularies ---------------------------------------------------------------------------------


def test_the_head_is_put_into_our_order(tmp_path: Path) -> None:
    theirs = save_transformers(tmp_path / "theirs")
    found = read_huggingface(tmp_path / "theirs")
    assert found.tokens == ("<pad>", "<unk>", "<s>", "</s>", " ", "A", "B", "'")
    assert torch.equal(
        found.tensors["head.weight"], theirs.lm_head.weight[[7, 6, 0, 1, 2, 3, 4, 5]]
    )


def test_a_head_without_an_unknown_token_gets_one_that_is_never_heard(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs", vocab_size=4, pad_token_id=3)
    for name in ("tokenizer_config.json", "processor_config.json"):
        (tmp_path / "theirs" / name).unlink(missing_ok=True)
    save_tokenizer(
        tmp_path / "theirs", {"a": 0, "b": 1, "|": 2, "<pad>": 3}, bos_token=None, eos_token=None
    )
    import_model(tmp_path / "theirs", tmp_path / "ours")
    model = load_ctc(tmp_path / "ours")
    assert model.tokenizer.texts == ("<pad>", "<unk>", "a", "b", " ")
    log_probs = model.log_probs(batch_of(noise(model.encoder.config, [4000]))).hidden[0].detach()
    assert log_probs[:, 1].max() < -1000
    torch.testing.assert_close(log_probs[:, [0, 2, 3, 4]].exp().sum(-1), torch.ones(len(log_probs)))


def test_lower_casing_is_part_of_the_vocabulary(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "theirs" / "processor_config.json").unlink(missing_ok=True)
    save_tokenizer(tmp_path / "theirs", VOCABULARY, do_lower_case=True)
    assert read_huggingface(tmp_path / "theirs").tokens[5:7] == ("a", "b")


@pytest.mark.parametrize("name", [None, "Wav2Vec2Tokenizer"])
def test_the_tokenizers_old_name_is_known(tmp_path: Path, name: str | None) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "theirs" / "processor_config.json").unlink()
    save_tokenizer(tmp_path / "theirs", VOCABULARY, tokenizer_class=name)
    assert import_model(tmp_path / "theirs", tmp_path / "ours").kind == "ctc"


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "theirs" / "processor_config.json").unlink(missing_ok=True)
    save_tokenizer(tmp_path / "theirs", VOCABULARY, tokenizer_class="WhisperTokenizer")
    with pytest.raises(CheckpointError, match="a Wav2Vec2PhonemeCTCTokenizer can be imported"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


def make_multilingual(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """An MMS model: one adapter, head and vocabulary per language; returns the adapters."""
    theirs = save_transformers(folder, style="adapters")
    vocabularies = {"eng": VOCABULARY, "deu": {"<pad>": 0, "<unk>": 1, "|": 2, "ä": 3, "ö": 4}}
    (folder / "processor_config.json").unlink(missing_ok=True)
    save_tokenizer(folder, vocabularies, target_lang="eng")
    adapters = {}
    for language, vocabulary in vocabularies.items():
        size = {"lm_head.weight": (len(vocabulary), 16), "lm_head.bias": (len(vocabulary),)}
        shapes = {
            n: t.shape for n, t in theirs.state_dict().items() if ".adapter_layer." in n
        } | size
        adapters[language] = {n: torch.randn(shape) for n, shape in shapes.items()}
        safetensors.torch.save_file(adapters[language], folder / f"adapter.{language}.safetensors")
    return adapters


def test_a_language_of_a_multilingual_model_is_its_adapter_head_and_vocabulary(
    tmp_path: Path,
) -> None:
    adapters = make_multilingual(tmp_path / "theirs")
    assert import_model(tmp_path / "theirs", tmp_path / "german", language="deu").difference < 1e-5
    model = load_ctc(tmp_path / "german")
    assert model.tokenizer.texts == ("<pad>", "<unk>", " ", "ä", "ö")
    assert torch.equal(model.head.weight, adapters["deu"]["lm_head.weight"])
    assert import_model(tmp_path / "theirs", tmp_path / "default").difference < 1e-5
    assert load_ctc(tmp_path / "default").tokenizer.size == len(VOCABULARY)
    with pytest.raises(
        ConfigError, match=r"no adapter for --language 'fra'; languages there: deu, eng"
    ):
        import_model(tmp_path / "theirs", tmp_path / "french", language="fra")


def test_without_a_default_language_one_must_be_given(tmp_path: Path) -> None:
    make_multilingual(tmp_path / "theirs")
    path = tmp_path / "theirs" / "tokenizer_config.json"
    path.write_text(
        json.dumps({n: v for n, v in json.loads(path.read_text()).items() if n != "target_lang"})
    )
    with pytest.raises(ConfigError, match="give --language, one of eng, deu"):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    # CPUs round sums differently: 1.29e-5 on an Intel one, below 1e-5 on the AMD ones before.
    assert import_model(tmp_path / "theirs", tmp_path / "ours", language="deu").difference < 3e-5


def test_a_blank_that_is_in_no_vocabulary_is_refused_and_one_beside_it_is_not(
    tmp_path: Path,
) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "theirs" / "processor_config.json").unlink()
    vocabulary = {name: i for name, i in VOCABULARY.items() if name != "<pad>"}
    save_tokenizer(tmp_path / "theirs", vocabulary)
    with pytest.raises(CheckpointError, match="padding token, which is the blank"):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    (tmp_path / "theirs" / "added_tokens.json").write_text(json.dumps({"<pad>": 7}))
    import_model(tmp_path / "theirs", tmp_path / "ours")
    assert load_ctc(tmp_path / "ours").tokenizer.texts[0] == "<pad>"


def test_a_language_of_a_model_without_adapters_is_refused(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    with pytest.raises(ConfigError, match="no MMS model with adapters"):
        import_model(tmp_path / "theirs", tmp_path / "ours", language="deu")


# --- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "large", "base-pre"])
def test_transformers_reads_an_exported_recogniser_and_says_the_same(
    tmp_path: Path, kind: str
) -> None:
    model = recogniser(kind)
    save_ctc(model, tmp_path / "ours", {})
    assert export_model(tmp_path / "ours", tmp_path / "theirs", "hf").difference < 1e-5
    paths = recordings(tmp_path / "audio")
    found = [result.text for result in transcribe(model, paths)]  # type: ignore[union-attr]
    assert their_texts(tmp_path / "theirs", paths) == found
    assert len(set(found)) > 1
    processor = Wav2Vec2Processor.from_pretrained(tmp_path / "theirs")
    assert processor.tokenizer("ab a'd").input_ids == model.tokenizer.encode("ab a'd")
    assert processor.feature_extractor.do_normalize == (kind == "large")
    assert Wav2Vec2ForCTC.from_pretrained(tmp_path / "theirs").config.pad_token_id == 0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_gives_equal_weights(tmp_path: Path, kind: str, style: str) -> None:
    theirs = save_transformers(tmp_path / "theirs", kind, style)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "back", "hf")
    found = safetensors.torch.load_file(tmp_path / "back" / "model.safetensors")
    for name, tensor in theirs.state_dict().items():
        rows = [7, 6, 0, 1, 2, 3, 4, 5] if name.startswith("lm_head.") else slice(None)
        assert torch.equal(found[name], tensor[rows] if tensor.dim() else tensor), name
    if kind == "Wav2Vec2ForCTC":
        import_model(tmp_path / "back", tmp_path / "again")
        assert (
            load_ctc(tmp_path / "again").tokenizer.texts
            == load_ctc(tmp_path / "ours").tokenizer.texts
        )


def test_an_exported_objective_has_their_settings(tmp_path: Path) -> None:
    save_transformers(
        tmp_path / "theirs", "Wav2Vec2ForPreTraining", num_negatives=7, diversity_loss_weight=0.3
    )
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "back", "hf")
    config = Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "back").config
    expected = {"num_negatives": 7, "diversity_loss_weight": 0.3, "num_codevectors_per_group": 5}
    assert {name: getattr(config, name) for name in expected} == expected


def assert_refused(model: CtcModel, folder: Path, library: ExportFormat, why: str) -> None:
    """Save a recogniser in ``folder``, and check that ``library`` has no place for it."""
    save_ctc(model, folder / "ours", {})
    with pytest.raises(ConfigError, match=why):
        export_model(folder / "ours", folder / "theirs", library)
    assert [path.name for path in folder.iterdir()] == ["ours"]


def test_log_mel_rows_are_refused(tmp_path: Path) -> None:
    why = "logmel front ends exist in no other library; recognisers: "
    assert_refused(recogniser("logmel-4"), tmp_path, "hf", why)


@pytest.mark.parametrize("library", ["hf", "torchaudio"])
@pytest.mark.parametrize(
    ("changes", "tokens_per_frame", "why"),
    [
        ({}, 2, "conv_kernel and tokens_per_frame exist in no other library"),
        ({"conv_kernel": 3}, 1, "conv_kernel and tokens_per_frame exist in no other library"),
        ({"context": "convolution"}, 1, "context convolution exists in no other library"),
    ],
)
def test_settings_that_they_do_not_have_are_refused(
    tmp_path: Path, library: ExportFormat, changes: dict[str, Any], tokens_per_frame: int, why: str
) -> None:
    encoder = tiny_encoder("base", **changes)
    config = CtcConfig(tokens_per_frame=tokens_per_frame)
    model = CtcModel(encoder, CharTokenizer(" ab"), "basic-1", config)
    assert_refused(model, tmp_path, library, why)


BAR = r"'\|' for the space, and this vocabulary has it as a letter"


@pytest.mark.parametrize(
    ("tokenizer", "library", "why"),
    [
        (VocabularyTokenizer(["<pad>", "<unk>", "a", "a"]), "hf", "has one twice"),
        (CharTokenizer(" |a"), "hf", BAR),
        (CharTokenizer(" |a"), "torchaudio", BAR),
    ],
)
def test_vocabularies_that_they_would_misread_are_refused(
    tmp_path: Path, tokenizer: Tokenizer, library: ExportFormat, why: str
) -> None:
    model = CtcModel(tiny_encoder("base"), tokenizer, "none-1", CtcConfig())
    assert_refused(model, tmp_path, library, why)


def test_pieces_of_words_are_refused(tmp_path: Path) -> None:
    pieces = SentencePieceTokenizer.train(["ab a ab ba", "ba ab", "b a b"], 9, "bpe")
    model = CtcModel(tiny_encoder("base"), pieces, "basic-1", CtcConfig())
    assert_refused(model, tmp_path, "hf", "--tokenizer chars")


def test_settings_go_there_and_back() -> None:
    class Extractor:
        sampling_rate, do_normalize = 16_000, False

    for kind in ("base", "base-pre"):
        config = tiny_encoder(kind, dropout=0.2, attention_dropout=0.05, layer_drop=0.3).config
        changed = config.model_copy(update={"channels": 256, "subsampling": 2})
        found: Any = encoder_config(Wav2Vec2Config(**their_settings(config)), Extractor)
        assert found == changed
