"""The profiler: operations as counted by hand, time where it was spent, the best product."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.models import SMALL_ENCODER
from support.settings import PRETRAIN
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from speechssl.analysis import profiler
from speechssl.analysis.profiler import PARTS, Spread, Stopwatch, flop_counter, matmul_peak, spread
from speechssl.config import build
from speechssl.data.batches import BatchConfig, Batches
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.pretraining.contrastive import Contrastive
from speechssl.training.loop import fit
from speechssl.training.settings import TrainConfig

CPU = torch.device("cpu")


def test_spread_has_the_middle_and_the_ends_in_four_digits() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert str(spread([105.23, 101.0, 109.31])) == "105.2 (101.0 .. 109.3)"
    assert str(spread([0.35124])) == "0.3512 (0.3512 .. 0.3512)"
    assert str(spread([12345.6])) == "12346 (12346 .. 12346)"


# --- operations -----------------------------------------------------------------------------------


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


def attend(**settings: Any) -> None:
    query = ones(2, 4, 10, 8)
    F.scaled_dot_product_attention(
        query, ones(2, 4, 12, 8), ones(2, 4, 12, 8), **settings
    ).sum().backward()


MASK = torch.arange(12).lt(9)[None, None, None].expand(2, 1, 1, 12)
PRODUCT, ATTENTION, CONVOLUTION = (
    2 * 8 * 16 * 4,
    2 * 2 * 2 * 4 * 10 * 12 * 8,
    2 * 2 * 26 * 6 * 3 * 5,
)
COUNTED: dict[str, tuple[int, Callable[[], Any]]] = {
    "mm": (PRODUCT, lambda: torch.ones(8, 16) @ torch.ones(16, 4)),
    "mm, complex": (4 * PRODUCT, lambda: torch.ones(8, 16) * 1j @ (torch.ones(16, 4) * 1j)),
    "mm into out": (
        PRODUCT,
        lambda: torch.mm(torch.ones(8, 16), torch.ones(16, 4), out=torch.empty(8, 4)),
    ),
    "addmm": (PRODUCT, lambda: torch.addmm(torch.ones(4), torch.ones(8, 16), torch.ones(16, 4))),
    "addmm into out": (
        PRODUCT,
        lambda: torch.addmm(
            torch.ones(8, 4), torch.ones(8, 16), torch.ones(16, 4), out=torch.empty(8, 4)
        ),
    ),
    "addmm in place": (
        PRODUCT,
        lambda: torch.ones(8, 4).addmm_(torch.ones(8, 16), torch.ones(16, 4)),
    ),
    "bmm": (3 * PRODUCT, lambda: torch.bmm(torch.ones(3, 8, 16), torch.ones(3, 16, 4))),
    "baddbmm": (
        3 * PRODUCT,
        lambda: torch.baddbmm(torch.ones(3, 8, 4), torch.ones(3, 8, 16), torch.ones(3, 16, 4)),
    ),
    "baddbmm in place": (
        3 * PRODUCT,
        lambda: torch.ones(3, 8, 4).baddbmm_(torch.ones(3, 8, 16), torch.ones(3, 16, 4)),
    ),
    "linear layer, learning": (
        3 * PRODUCT,
        lambda: F.linear(ones(8, 16), ones(4, 16), ones(4)).sum().backward(),
    ),
    "linear layer of data": (
        2 * PRODUCT,
        lambda: F.linear(torch.ones(8, 16), ones(4, 16)).sum().backward(),
    ),
    "attention": (3 * ATTENTION, attend),
    "attention, masked": (3 * ATTENTION, lambda: attend(attn_mask=MASK)),
    "attention, dropped": (3 * ATTENTION, lambda: attend(attn_mask=MASK, dropout_p=0.1)),
    "grouped convolution": (
        3 * CONVOLUTION,
        lambda: F.conv1d(ones(2, 6, 30), ones(6, 3, 5), groups=2).sum().backward(),
    ),
    "grouped convolution of data": (
        2 * CONVOLUTION,
        lambda: F.conv1d(torch.ones(2, 6, 30), ones(6, 3, 5), groups=2).sum().backward(),
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_operations_are_counted_as_by_hand(name: str) -> None:
    expected, work = COUNTED[name]
    with flop_counter() as counter:
        work()
    assert counter.get_total_flops() == expected


def test_operations_of_an_encoder_are_those_of_its_shape() -> None:
    config = build(EncoderConfig, SMALL_ENCODER)
    encoder = Encoder(config).eval().requires_grad_(False)
    # bfloat16: the plain operations, as a benchmark counts them for the architecture.
    with torch.autocast("cpu", torch.bfloat16), flop_counter() as counter:
        hidden, num_frames = encoder(torch.randn(2, 203, 80), torch.tensor([203, 203]))
    first, frames, width = 101, 50, 32  # (203 - 3) // 2 + 1, (101 - 3) // 2 + 1
    assert hidden.shape == (2, frames, width)
    assert num_frames.tolist() == [frames, frames]
    front = first * 3 * 80 * 32 + frames * 3 * 32 * 32 + frames * 32 * width
    positions = (frames + 1) * width * (width // 4) * 8  # an even kernel gives one frame more
    layer = frames * (4 * width * width + 2 * width * 64) + 2 * frames * frames * width
    assert counter.get_total_flops() == 2 * 2 * (front + positions + 2 * layer)


def test_the_best_product_is_a_rate_that_a_plain_product_does_not_exceed() -> None:
    best = matmul_peak(CPU)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(left, right)
        took.append(time.perf_counter() - started)
    rate = 2 * 1024**3 / min(took)
    assert rate / 20 < best
    assert rate < 1.5 * best


# --- time by part ---------------------------------------------------------------------------------


class _Nap(torch.autograd.Function):
    """Identity that takes its time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, nap: Callable[[], None]) -> Tensor:
        ctx.nap = nap
        nap()
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.nap()
        return gradients[0], None


class Slow(nn.Module):
    """Another module and a nap."""

    def __init__(self, inner: nn.Module, nap: Callable[[], None]) -> None:
        super().__init__()
        self.inner, self.nap = inner, nap

    def forward(self, *inputs: Any) -> Tensor:
        out: Tensor = _Nap.apply(self.inner(*inputs), self.nap)
        return out


def test_time_is_put_where_it_was_spent(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0  # a clock that only naps move
    monkeypatch.setattr(profiler, "clock", lambda _: now)

    def nap(seconds: int) -> Callable[..., None]:
        def pass_time(*_: Any) -> None:
            nonlocal now
            now += seconds

        return pass_time

    objective = Contrastive(
        Encoder(PRETRAIN.encoder), PRETRAIN.contrastive, PRETRAIN.quantizer, PRETRAIN.mask
    )
    encoder: Any = objective.encoder
    encoder.front_end = Slow(encoder.front_end, nap(1))
    encoder.context = Slow(encoder.context, nap(10))

    # Parts of the loss run before the front end, between the two networks, and after them.
    objective.register_forward_pre_hook(nap(100))
    encoder.projection = Slow(encoder.projection, nap(100))
    objective.target_projection = Slow(objective.target_projection, nap(100))  # type: ignore[assignment]

    batches = Batches(
        Dataset([Store(labelled_store)], ["train"]),
        BatchConfig(seconds=12, micro_seconds=6),
        seed=0,
    )

    train = TrainConfig(steps=4, device="cpu")
    # It comes before the watch, so it naps before the watch hears of the step.
    hook = register_optimizer_step_pre_hook(nap(1000))
    try:
        with Stopwatch(CPU) as watch:
            fit(objective, batches, PRETRAIN.optim, train, tmp_path / "run")
    finally:
        hook.remove()

    # In update 0 the statistics of the whole update go before the first call.
    for step in (1, 2, 3):
        num_micro = len(batches.micro_batches(step))
        assert num_micro >= 2  # so the front end runs for the statistics too
        expected = {
            "front end": 3 * num_micro,
            "context network": 20 * num_micro,
            "loss": 500 * num_micro,
            "optimiser": 1000,
        }
        passed = {part: seconds for part, seconds in watch.updates[step].items() if seconds}
        assert passed == expected


def test_parts_are_means_over_the_faster_half() -> None:
    watch = Stopwatch(CPU)
    watch.updates = [
        {"loss": 90.0},
        {"front end": 1.0, "loss": 4.0},
        {"loss": 8.0},
        {"loss": 70.0},
        {"loss": 80.0},
    ]
    rows = [{"time_s": t, "data_s": 1.0} for t in (100.0, 10.0, 12.0, 80.0, 90.0)]

    parts = watch.parts(rows, warm_up=1)

    seconds = {
        "data": 1.0,
        "front end": 0.5,
        "context network": 0.0,
        "loss": 6.0,
        "optimiser": 0.0,
        "other": 3.5,
    }
    assert parts == {part: {"seconds": s, "share": s / 11} for part, s in seconds.items()}
    assert tuple(parts) == PARTS
