"""On a GPU the same is learned and recognised as on a CPU; skipped where there is none.

All draws but dropout's are made on the host: without dropout both devices compute the same
function.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from support.language_models import write_lm
from support.models import SMALL_ENCODER, random_recogniser
from support.settings import FEW, PRETRAIN, tuned
from torch.profiler import ProfilerActivity, profile

from speechssl.analysis.bench_training import bench_training
from speechssl.analysis.probing import probe
from speechssl.audio.feature_config import FeatureConfig
from speechssl.config import as_table, build, merge
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.encoder.kernels import attention, grouped_conv
from speechssl.encoder.padding import valid_mask
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.decoders import beam_decoder, emissions
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.finetune import finetune
from speechssl.recognition.language_model import load_lm, save_lm
from speechssl.recognition.lm_training import read_texts
from speechssl.recognition.model import CtcModel
from speechssl.recognition.pseudo_labels import label
from speechssl.recognition.settings import FinetuneSettings
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Transcript

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="NO GPU: training and recognition on one are not tested",
    ),
]

STILL = SMALL_ENCODER | {"layer_drop": 0.0, "dropout": 0.0, "attention_dropout": 0.0}
Device = Literal["cpu", "cuda"]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_json_lines(run / "metrics.jsonl")]


def pretraining(
    task: dict[str, Any], device: Device, precision: str = "float32"
) -> PretrainSettings:
    train = {"steps": 6, "device": device, "precision": precision, "save_every": 3}
    # One after another: a task that changes the encoder must not bring the dropout back.
    still = merge(as_table(PRETRAIN), {"encoder": STILL, "train": train})
    return build(PretrainSettings, merge(still, task))


TASKS: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "contrastive, convolutions in the layers": {"encoder": {"conv_kernel": 15, "pos_kernel": 16}},
    "contrastive, log-mel targets": {"contrastive": {"targets": "logmel"}},
    "random_projection": {"task": "random_projection"},
    "reconstruction": {"task": "reconstruction"},
    "two_views": {"task": "two_views"},
    "hidden_units": {"task": "hidden_units", "hidden_units": {"num_codes": [9, 4]}},
}


@pytest.mark.parametrize("name", list(TASKS))
def test_pretraining_is_the_same(name: str, labelled_store: Path, tmp_path: Path) -> None:
    task = TASKS[name]
    if name == "hidden_units":
        finetune([labelled_store], tmp_path / "teacher", tuned(), init=None)
        task = merge(task, {"hidden_units": {"teacher": str(tmp_path / "teacher")}})
    for device in ("cpu", "cuda"):
        pretrain([labelled_store], tmp_path / device, pretraining(task, device))
    # Convolutions round to ten bits there (cudnn's TF32): each update adds to the difference.
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=0.02)
    assert losses(tmp_path / "cuda")[0] == pytest.approx(losses(tmp_path / "cpu")[0], rel=2e-3)
    pretrain([labelled_store], tmp_path / "half", pretraining(task, "cuda", "bfloat16"))
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "cpu"), rel=0.05)


def test_waveforms_are_the_same(labelled_folder: Path, tmp_path: Path) -> None:
    waveform = FeatureConfig(kind="waveform")
    prepare(labelled_folder, tmp_path / "store", PrepareConfig(features=waveform))
    encoder = {"features": as_table(waveform), "conv_layers": [[16, 10, 5], [16, 8, 8], [16, 8, 8]]}
    for name, settings in (
        ("cpu", pretraining({"encoder": encoder}, "cpu")),
        ("cuda", pretraining({"encoder": encoder}, "cuda")),
        ("half", pretraining({"encoder": encoder}, "cuda", "bfloat16")),
    ):
        pretrain([tmp_path / "store"], tmp_path / name, settings)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=0.02)
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "cpu"), rel=0.05)


@pytest.mark.parametrize("ragged", [True, False])
def test_no_attention_makes_plans_for_shapes(ragged: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 50, 32, device="cuda", dtype=torch.bfloat16)
    counts = torch.tensor([50, 31 if ragged else 50])
    attend = valid_mask(counts, 50, query.device)[:, None, None] if ragged else None
    with profile(
        activities=[ProfilerActivity.CPU], acc_events=True
    ) as profiled:  # without it torch 2.11 warns
        attention(query, key, value, counts, attend, 0.1)
    ran = {event.key for event in profiled.key_averages()}
    assert any("attention" in name for name in ran)
    assert not any("cudnn_attention" in name for name in ran)


def test_positions_are_the_cpus() -> None:
    inputs, weight, bias = torch.randn(3, 70, 32), torch.randn(32, 8, 16), torch.randn(32)
    expected = grouped_conv(inputs, weight, bias, 4)
    found = grouped_conv(inputs.cuda(), weight.cuda(), bias.cuda(), 4).cpu()
    assert float((found - expected).norm() / expected.norm()) < 2e-3


def fine_tuning(device: Device, precision: str = "float32") -> FinetuneSettings:
    ctc = {"train_front_end": True, "dropout": 0.0, "time_mask": {"prob": 0.1, "length": 2}}
    ctc |= {
        "channel_mask_prob": 0.1,
        "channel_mask_length": 4,
        "augment": {"tempo": 0.15, "mel_masks": 2},
    }
    return tuned(encoder=STILL, ctc=ctc, train=FEW | {"device": device, "precision": precision})


def test_fine_tuning_is_the_same(labelled_store: Path, tmp_path: Path) -> None:
    for name, settings in (
        ("cpu", fine_tuning("cpu")),
        ("cuda", fine_tuning("cuda")),
        ("half", fine_tuning("cuda", "bfloat16")),
    ):
        finetune([labelled_store], tmp_path / name, settings, init=None)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=0.02)
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "cpu"), rel=0.05)


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_run_goes_on_where_it_was_stopped(
    verb: str, labelled_store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def go() -> None:
        if verb == "pretrain":
            train = {"train": {"device": "cuda", "save_every": 3}}
            pretrain(
                [labelled_store], run, build(PretrainSettings, merge(as_table(PRETRAIN), train))
            )
        else:
            finetune([labelled_store], run, tuned(train=FEW | {"device": "cuda"}), init=None)

    go()
    expected, weights = losses(run), load_folder(checkpoints(run)[0])[0]
    shutil.rmtree(checkpoints(run)[0])
    go()
    # Dropout draws the same again; sums of many threads come in any order.
    assert losses(run) == pytest.approx(expected, rel=1e-4)
    for key, value in load_folder(checkpoints(run)[0])[0].items():
        torch.testing.assert_close(value, weights[key], rtol=1e-2, atol=1e-3, msg=key)


def test_texts_do_not_depend_on_device_or_batch(labelled_folder: Path) -> None:
    model = random_recogniser()
    files = sorted(labelled_folder.glob("*.wav"))
    on_cpu = [
        result.text for result in transcribe(model, files, "name") if isinstance(result, Transcript)
    ]

    model.to("cuda")
    for seconds in (5, 30, 300):
        results = list(transcribe(model, files, "name", batch_seconds=seconds))
        texts = [result.text for result in results if isinstance(result, Transcript)]
        assert len(texts) == len(files)
        differing = sum(a != b for a, b in zip(texts, on_cpu, strict=True))
        assert differing <= len(files) // 50, (
            "near-ties of a random head may fall the other way, and few of them"
        )


def test_emissions_are_the_cpus(labelled_store: Path) -> None:
    model, dataset = random_recogniser(), Dataset([Store(labelled_store)], ["dev", "test"])

    def heard(model: CtcModel) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for names, rows, counts in emissions(model, dataset):
            found |= {n: r[:c].cpu() for n, r, c in zip(names, rows, counts.tolist(), strict=True)}
        return found

    expected, found = heard(model), heard(model.to("cuda"))
    assert expected.keys() == found.keys()
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows, rtol=0.01, atol=0.02, msg=name)


def test_labels_a_language_model_and_probes_work_there(
    labelled_store: Path, tmp_path: Path
) -> None:
    model, dataset = random_recogniser(), Dataset([Store(labelled_store)], ["dev"])
    texts = [text.split() for text in read_texts([labelled_store], "train")]
    arpa = tmp_path / "lm.arpa"
    write_lm(arpa, texts, 3)
    save_lm(
        tmp_path / "model",
        arpa,
        sorted({word for text in texts for word in text}),
        BeamConfig(),
        {},
    )

    beam = load_lm(tmp_path / "model", model.tokenizer)
    assert beam is not None
    expected = evaluate(model, dataset, decoder=beam_decoder(beam))
    on_cpu = label(model, dataset, tmp_path / "cpu.jsonl", "me")

    model.to("cuda")
    assert evaluate(model, dataset, decoder=beam_decoder(beam)).wer == pytest.approx(
        expected.wer, abs=0.05
    )

    on_gpu = label(model, dataset, tmp_path / "gpu.jsonl", "me")
    assert [one.id for one in on_gpu] == [one.id for one in on_cpu]
    assert [one.confidence for one in on_gpu] == pytest.approx(
        [one.confidence for one in on_cpu], abs=0.02
    )

    errors = [
        {
            (found.system, found.layer): found.error
            for found in probe(encoder, {"characters": labelled_store}, 0.5)
        }
        for encoder in (random_recogniser().encoder, model.encoder)
    ]
    assert errors[1] == pytest.approx(errors[0], abs=0.1)


def test_a_benchmark_says_what_it_ran_on() -> None:
    table = bench_training("pretrain", "tiny", {"train": {"device": "cuda"}}, seconds=60, updates=2)
    assert table["machine"]["device"] == "cuda"
    assert table["machine"]["processor"] == torch.cuda.get_device_name()
    assert 0 < table["update_s"]["median"] < 10
    assert 0 < table["peak_memory_gb"] < 20
