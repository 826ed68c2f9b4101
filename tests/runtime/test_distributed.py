"""One process and several make the same update; several really run, and this is their program."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.models import tiny_encoder
from safetensors.torch import load_file, save_file
from support import children
from support.commands import call
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.programs import running
from torch import Tensor, nn

from speechssl.config import build
from speechssl.data.batches import BatchConfig, Batches
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import ConfigError, TrainingError
from speechssl.pretraining.contrastive import Contrastive, ContrastiveConfig
from speechssl.pretraining.pretrain import pretrain, pretrain_cost
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import distributed, ranks
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints
from speechssl.text.tokenizers import train_tokenizer
from speechssl.training import loop
from speechssl.training.loop import Validation, fit
from speechssl.training.optim import OptimConfig
from speechssl.training.run_folder import start_anew
from speechssl.training.settings import TrainConfig

KINDS = "contrastive", "ctc"
STEPS = 5
CPU = torch.device("cpu")


def make_model(kind: str, seed: int = 0) -> Contrastive | CtcModel:
    """Without dropout and layer drop, which alone may differ between ranks."""
    encoder = tiny_encoder("logmel-4", seed, features={"kind": "logmel"})
    torch.manual_seed(seed)
    if kind == "ctc":
        # The encoder has no gradient in two updates: neither decay nor Adam may touch it then.
        config = CtcConfig(head_only_steps=2, dropout=0.0)
        return CtcModel(encoder, train_tokenizer("chars", ["abc def"]), "basic-1", config)
    config = ContrastiveConfig(num_negatives=10, width=16, diversity_weight=5)
    return Contrastive(
        encoder, config, QuantizerConfig(num_codes=16, width=16), MaskConfig(length=3)
    )


def make_batches(kind: str, store: Path, **config: object) -> Batches:
    table = {"seconds": 8, "crop_s": 1.5 if kind == "contrastive" else None} | config
    return Batches(Dataset([Store(store)], ["train"]), build(BatchConfig, table), 0)


def run_fit(
    kind: str, store: Path, run: Path, steps: int = STEPS, batches: object = None, **config: object
) -> nn.Module:
    """A short run; a rank other than 0 begins with other weights, which must not matter."""
    model = make_model(kind, seed=ranks.rank())
    table = {"steps": steps, "save_every": 2, "log_every": 2, "device": "cpu"} | config
    optim = OptimConfig(lr=1e-3, clip_norm=1e9)
    fit(model, batches or make_batches(kind, store), optim, build(TrainConfig, table), run)
    return model


# What the processes do, by name: each gets a folder that they share.


def one_update(folder: Path, store: Path) -> None:
    for kind in KINDS:
        keep(run_fit(kind, store, folder / kind, steps=1), folder / f"{kind}-{ranks.rank()}")


def one_update_without_statistics(folder: Path, store: Path) -> None:
    whole, loop._whole_statistics = loop._whole_statistics, lambda *_: None
    keep(run_fit("contrastive", store, folder / "run", steps=1), folder / f"{ranks.rank()}")
    loop._whole_statistics = whole


def several_updates(folder: Path, store: Path) -> None:
    for kind in KINDS:
        keep(run_fit(kind, store, folder / kind), folder / f"{kind}-{ranks.rank()}")


def too_few_utterances(folder: Path, store: Path) -> None:
    batches = make_batches("contrastive", store, seconds=3)
    sizes = [sum(len(b.ids) for b in batches.micro_batches(0, rank, 3)) for rank in range(3)]
    assert sizes == [1, 1, 0]
    keep(
        run_fit("contrastive", store, folder / "run", steps=3, batches=batches),
        folder / f"{ranks.rank()}",
    )


class Stopping(Batches):
    """SIGTERM comes to rank 1 in the second update."""

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        if rank == 1 and step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().micro_batches(step, rank, ranks)


def stopped(folder: Path, store: Path) -> None:
    known = make_batches("contrastive", store)
    with pytest.raises(SystemExit, match="143"):
        run_fit(
            "contrastive",
            store,
            folder / "run",
            batches=Stopping(known.dataset, known.config, 0),
            save_every=99,
        )


class Poisoned(Batches):
    """Rank 1 gets what is not a number."""

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        parts = super().micro_batches(step, rank, ranks)
        if rank == 1:
            parts[0].inputs.fill_(float("nan"))
        return parts


def failures(folder: Path, store: Path) -> None:
    known = make_batches("contrastive", store)
    poisoned = Poisoned(known.dataset, known.config, 0)
    with pytest.raises(TrainingError, match="2 updates in a row were not finite"):
        run_fit("contrastive", store, folder / "poisoned", batches=poisoned, max_bad_steps=2)

    for broken in range(2):
        with pytest.raises(KeyError if ranks.rank() == broken else TrainingError):
            fail_on(broken)

    with pytest.raises(
        ConfigError if ranks.rank() == 0 else TrainingError
    ):  # rank 0 refuses the folder for all
        run_fit("contrastive", store, folder / "poisoned", seed=1)

    with pytest.raises(ConfigError, match="is not one folder for all processes"):
        run_fit(
            "ctc",
            store,
            folder.parent / "several_updates" / ("ctc" if ranks.rank() == 0 else "not there"),
        )


def fail_on(rank: int) -> None:
    with distributed.fail_on_all_ranks():
        if ranks.rank() == rank:
            raise KeyError


def validated(folder: Path, store: Path) -> None:
    calls = list[int]()
    validation = Validation(lambda: {"score": 1.0}, "score", lambda _: calls.append(1))
    config = TrainConfig(steps=2, validate_every=1, device="cpu")
    fit(
        make_model("ctc"),
        make_batches("ctc", store),
        OptimConfig(),
        config,
        folder,
        validation=validation,
    )
    assert len(calls) == (ranks.rank() == 0)


def whole_runs(folder: Path, store: Path) -> None:
    few = {"train": {"steps": 3, "device": "cpu"}, "batch": {"seconds": 10}}
    model = pretrain(
        [store], folder / "run", build(PretrainSettings, {"encoder": SMALL_ENCODER} | few)
    )
    finetune(
        [store], folder / "words", build(FinetuneSettings, {"encoder": SMALL_ENCODER} | few), model
    )
    with pytest.raises(ConfigError, match="without torchrun"):
        pretrain_cost([store], PretrainSettings())


def sums(_folder: Path, _store: Path) -> None:
    own = ranks.rank()
    first, second, both, none = (nn.Parameter(torch.zeros(2, 3)) for _ in range(4))
    double = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    (first if own == 0 else second).grad = torch.full((2, 3), 1.0 + own)
    both.grad, double.grad = torch.full((2, 3), 3.0 + own), torch.ones(2, dtype=torch.float64)

    distributed.sum_gradients([first, second, both, none, double])
    assert none.grad is None
    gradients = [p.grad for p in (first, second, both, double) if p.grad is not None]
    assert [(g.shape, g.unique().tolist()) for g in gradients] == [
        ((2, 3), [1.0]), ((2, 3), [2.0]), ((2, 3), [7.0]), ((2,), [2.0])
    ]  # fmt: skip

    values = {"table": torch.ones(2, 2) * own, "count": 2**40 + own, "share": 0.25}
    whole = distributed.sum_over_ranks(values, CPU)
    assert torch.equal(whole.pop("table"), torch.ones(2, 2))
    assert whole == {"count": 2**41 + 1, "share": 0.5}
    assert type(whole["count"]) is int

    mine = {"a": 1, "b": torch.ones(3)} if own == 0 else {}
    assert distributed.sum_over_ranks(mine, CPU).keys() == mine.keys()

    assert distributed.any_rank(own == 1)
    assert not distributed.any_rank(False)


def leave(_folder: Path, _store: Path) -> None:
    distributed.start(CPU)
    for _ in range(20):
        distributed.any_rank(False)
    sys.exit(143)


def left_alone(_folder: Path, _store: Path) -> None:
    distributed.start(CPU)
    distributed.any_rank(False)
    if ranks.rank() == 0:
        with pytest.raises(TrainingError, match="another process of this run is gone"):
            distributed.sum_over_ranks({"a": 1}, CPU)


def keep(model: nn.Module, path: Path) -> None:
    """Weights, and the gradients that the last update left."""
    tensors = {f"weight.{n}": p.detach().clone() for n, p in model.named_parameters()}
    tensors |= {
        f"gradient.{n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }
    save_file(tensors, f"{path}.safetensors")


def meet_and_vanish(_folder: Path, _store: Path) -> None:
    """The second one comes late: what the first finds of it is of an attempt before, or nothing."""
    time.sleep(2 * ranks.rank())
    distributed.start(CPU)
    assert distributed.any_rank(ranks.rank() == 1)
    os._exit(0)


def launch(
    number: int,
    folder: Path,
    store: Path,
    *jobs: Callable[[Path, Path], None],
    variables: Mapping[str, object] | None = None,
) -> Path:
    """``number`` copies of a process run this file, with torchrun's variables; all end with 0."""
    processes = []
    for rank, environment in enumerate(environments(number, variables or {})):
        arguments = arguments_for(folder, store, jobs)
        log = folder / f"log-{rank}"
        processes.append(children.start_script(Path(__file__), arguments, log, environment))

    try:
        for rank, process in enumerate(processes):
            process.join(timeout=600)
            assert process.exitcode == 0, (folder / f"log-{rank}").read_text()
    finally:
        for process in processes:
            process.kill()
            process.join()
    return folder


def arguments_for(
    folder: Path, store: Path, jobs: Sequence[Callable[[Path, Path], None]]
) -> list[str]:
    """The command line of this file; each job has its folder."""
    names = [job.__name__ for job in jobs]
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    return [str(folder), str(store), *names]


def environments(number: int, variables: Mapping[str, object]) -> list[dict[str, str]]:
    """What torchrun tells each of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    # As pytest has it: what the tests share and the references, and the package beside them.
    sources = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]
    common = {
        "PYTHONPATH": os.pathsep.join(sources),
        "WORLD_SIZE": number,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    common |= variables
    ranks = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(number)]
    return [{name: str(value) for name, value in own.items()} for own in ranks]


@pytest.fixture(scope="module")
def pair(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, a folder for each job."""
    jobs = (
        one_update,
        one_update_without_statistics,
        several_updates,
        stopped,
        failures,
        validated,
        whole_runs,
        sums,
    )
    return launch(2, tmp_path_factory.mktemp("pair"), labelled_store, *jobs)


@pytest.fixture(scope="module")
def alone(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for job in (one_update, several_updates):
        (folder / job.__name__).mkdir()
        job(folder / job.__name__, labelled_store)
    return folder


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], prefix: str) -> float:
    """Largest difference of any number as a share of the largest; both hold the same names."""
    assert ours.keys() == theirs.keys()
    names = [name for name in ours if name.startswith(prefix)]
    assert names
    largest = max(float(theirs[name].abs().max()) for name in names)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in names) / largest


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_and_weights_of_an_update_do_not_depend_on_the_ranks(
    pair: Path, alone: Path, kind: str
) -> None:
    single = load_file(alone / f"one_update/{kind}-0.safetensors")
    first, second = (load_file(pair / f"one_update/{kind}-{rank}.safetensors") for rank in range(2))
    assert all(
        torch.equal(first[name], second[name]) for name in single
    )  # bit for bit: ranks never drift apart
    for prefix in ("gradient.", "weight."):
        assert difference(first, single, prefix) < 1e-5


def test_without_statistics_over_ranks_the_gradient_is_another(pair: Path, alone: Path) -> None:
    single = load_file(alone / "one_update/contrastive-0.safetensors")
    wrong = load_file(pair / "one_update_without_statistics/0.safetensors")
    assert difference(wrong, single, "gradient.") > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_runs_do_not_depend_on_the_ranks(pair: Path, alone: Path, kind: str) -> None:
    ours, theirs = (folder / "several_updates" / kind for folder in (pair, alone))
    same_run(ours, theirs)
    assert [path.name for path in checkpoints(ours)] == ["step-00000005", "step-00000004"]
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    assert (ours / "settings.json").read_bytes() == (theirs / "settings.json").read_bytes()


def same_run(ours: Path, theirs: Path) -> None:
    """Every update once with equal metrics, and an equal last checkpoint with optimiser states."""
    rows, expected = (read_json_lines(run / "metrics.jsonl") for run in (ours, theirs))
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    loose = {"time_s", "data_s"}
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        assert {k: v for k, v in row.items() if k not in loose} == pytest.approx(
            {k: v for k, v in other.items() if k not in loose}, rel=1e-4
        )
    tensors, others = (load_folder(checkpoints(run)[0])[0] for run in (ours, theirs))
    for prefix in ("model.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.", "optimizer.step."):
        assert difference(tensors, others, prefix) < 1e-4


def test_sigterm_to_one_rank_stops_all_and_one_process_continues(
    pair: Path, alone: Path, labelled_store: Path
) -> None:
    run = pair / "stopped/run"
    assert [path.name for path in checkpoints(run)] == ["step-00000002"]
    assert len(read_json_lines(run / "metrics.jsonl")) == 2
    run_fit("contrastive", labelled_store, run, save_every=99)
    same_run(run, alone / "several_updates/contrastive")


def test_a_non_finite_update_names_the_utterances_of_all_ranks(
    pair: Path, labelled_store: Path
) -> None:
    run = pair / "failures/poisoned"
    rows = [json.loads(line) for line in (run / "bad_steps.jsonl").read_text().splitlines()]
    batches = make_batches("contrastive", labelled_store)
    ids = [[i for part in batches.micro_batches(step) for i in part.ids] for step in range(2)]
    assert rows == [{"step": 1, "utterances": ids[0]}, {"step": 2, "utterances": ids[1]}]


@pytest.mark.slow
def test_three_ranks_share_an_update_of_two_utterances(
    labelled_store: Path, tmp_path: Path
) -> None:
    three = launch(3, tmp_path, labelled_store, too_few_utterances) / "too_few_utterances"
    batches = make_batches("contrastive", labelled_store, seconds=3)
    run_fit("contrastive", labelled_store, tmp_path / "alone", steps=3, batches=batches)
    same_run(three / "run", tmp_path / "alone")
    first, *others = (load_file(three / f"{rank}.safetensors") for rank in range(3))
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 40), st.integers(1, 3), st.sampled_from([None, 3.0, 6.0]), st.floats(3, 20))
def test_gradients_of_any_shares_add_up(
    labelled_store: Path, step: int, number: int, micro_seconds: float | None, seconds: float
) -> None:
    model = make_model("contrastive").train()
    config = TrainConfig(device="cpu")
    (batch,) = make_batches("contrastive", labelled_store, seconds=seconds).micro_batches(step)

    whole, _ = loop._add_gradients(model, [batch], None, step, config)
    expected = taken_gradients(model)

    batches = make_batches(
        "contrastive", labelled_store, seconds=seconds, micro_seconds=micro_seconds
    )
    shares = [batches.micro_batches(step, rank, number) for rank in range(number)]
    statistics = model.statistics(batch, step)
    weights = [
        loop._add_gradients(model, share, statistics, step, config)[0]["weight"] for share in shares
    ]

    assert sum(weights) == whole["weight"]
    found = taken_gradients(model)
    assert difference(found, expected, "") < 1e-5


def taken_gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_one_process_communicates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "broadcast", "init_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, name=name, **__: pytest.fail(name))
    monkeypatch.setenv("RANK", "0")

    for size in ("1", None):
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        else:
            monkeypatch.delenv("RANK")
            monkeypatch.setenv("WORLD_SIZE", "4")  # without a rank: another program's variable

        assert (ranks.rank(), ranks.count()) == (0, 1)
        distributed.start(CPU)

        parameter = nn.Parameter(torch.ones(2))
        parameter.grad = gradient = torch.ones(2)
        distributed.sum_gradients([parameter])
        assert parameter.grad is gradient

        distributed.copy_from_first([gradient])
        assert distributed.sum_over_ranks({"a": 1, "b": gradient}, CPU) == {"a": 1, "b": gradient}
        assert distributed.any_rank(True)
        with distributed.fail_on_all_ranks():
            pass


def test_pretrain_and_finetune_write_once(pair: Path) -> None:
    for run, made in (("run", "loss.png"), ("words", "wer.png")):
        folder = pair / "whole_runs" / run
        assert [row["step"] for row in read_json_lines(folder / "metrics.jsonl")] == [1, 2, 3]
        assert {"model", "settings.json", "checkpoints", made} <= {
            path.name for path in folder.iterdir()
        }
    assert "dev_wer" in read_json_lines(folder / "metrics.jsonl")[-1]


def test_only_rank_0_logs_and_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.json").write_text("{}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # after a lost process: the run goes on
    start_anew(tmp_path, force=True)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")
    for rank in ("1", "0"):
        assert tmp_path.exists()
        monkeypatch.setenv("RANK", rank)
        ranks.log_once("a line")
        start_anew(tmp_path, force=True)
    assert not tmp_path.exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_verbs_that_share_no_work_print_under_any_launcher(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters set these variables for every job."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "kept" in call("prepare", labelled_folder, tmp_path / "store").stdout


def test_a_launcher_that_says_too_little_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR is not: start with torchrun"):
        distributed.start(CPU)
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'x', not a number"):
        ranks.count()


def test_processes_meet_before_work_that_takes_one_of_them_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MetError(Exception):
        pass

    def meet(_device: torch.device) -> None:
        raise MetError

    monkeypatch.setattr(distributed, "start", meet)
    with pytest.raises(MetError):  # and no store is missing yet
        pretrain([tmp_path / "missing"], tmp_path / "r", PretrainSettings())
    with pytest.raises(MetError):
        finetune([tmp_path / "missing"], tmp_path / "r", FinetuneSettings(), None)


@pytest.mark.slow
def test_processes_leave_with_their_own_exit_code(labelled_store: Path, tmp_path: Path) -> None:
    """Without taking leave of each other they abort at random: about every second one did."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        command = [sys.executable, __file__, *arguments_for(folder, labelled_store, [leave])]
        # Real programs: a copy of a process leaves in another way.
        with ExitStack() as stack:
            ranks = [
                stack.enter_context(running(command, env=os.environ | own))
                for own in environments(2, {})
            ]
            assert [rank.wait(timeout=600) for rank in ranks] == [143, 143]


@pytest.mark.slow
def test_an_attempt_does_not_find_the_addresses_of_the_one_before(
    labelled_store: Path, tmp_path: Path
) -> None:
    """torchrun keeps one store while it starts its processes again and again."""
    agent = torch.distributed.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    for attempt in range(2):
        told = {
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": attempt,
            "MASTER_PORT": agent.port,
        }
        launch(2, tmp_path / str(attempt), labelled_store, meet_and_vanish, variables=told)


@pytest.mark.slow
def test_who_is_left_alone_says_so(labelled_store: Path, tmp_path: Path) -> None:
    launch(2, tmp_path, labelled_store, left_alone)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="process 3 of this machine finds 2 GPUs"):
        distributed.start(torch.device("cuda"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, made, *wanted = sys.argv[1:]
    for job in wanted:
        globals()[job](Path(root, job), Path(made))
