"""Measure a machine and a model at work: its best matrix product, operations, time by part."""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode

from speechssl.encoder.encoder import Encoder
from speechssl.runtime.device import Precision

# Where the time of an update goes; ``other`` is what no hook saw.
PARTS = ("data", "front end", "context network", "loss", "optimiser", "other")

# Sides of the square matrices that are multiplied to find the best rate.
_GPU_SIZES = (4096, 8192)
_CPU_SIZES = (512, 1024, 2048)

# How long each size is repeated, seconds.
_REPEAT_S = 0.2

# Operations of torch that fuse attention, and that its own counter misses on a CPU.
_ATTENTIONS = (
    "flash_attention_for_cpu",
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
)


@dataclass(frozen=True)
class Spread:
    """Middle and ends of repeated measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Show four digits of the median, as in ``105.2 (101.0 .. 109.3)``."""
        digits = 0
        if self.median != 0:
            magnitude = math.log10(abs(self.median))
            digits = max(0, 3 - math.floor(magnitude))

        median = f"{self.median:.{digits}f}"
        low = f"{self.low:.{digits}f}"
        high = f"{self.high:.{digits}f}"
        return f"{median} ({low} .. {high})"


def spread(values: Sequence[float]) -> Spread:
    """Find the median, the smallest and the largest of at least one value."""
    median = statistics.median(values)
    low = min(values)
    high = max(values)
    return Spread(median, low, high)


# ---- the machine ------------------------------------------------------------------------------


def matmul_peak(device: torch.device, precision: Precision = "float32") -> float:
    """Measure the best rate of a matrix product on ``device`` with torch's present threads.

    It takes one to two seconds. Square products of several sizes are written into a ready output,
    in both layouts of the second factor. What torch may do inside a product (TF32) stays as it is
    set.

    Returns:
        FLOP/s, where a multiplication and an addition are two operations.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    sizes = _GPU_SIZES if device.type == "cuda" else _CPU_SIZES
    best = 0.0

    for size in sizes:
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)
        out = torch.empty_like(left)
        operations = 2 * size**3

        for factor in (right, right.T):
            # The first product of a kind chooses a kernel and allocates, so it does not count.
            torch.mm(left, factor, out=out)

            until = time.perf_counter() + _REPEAT_S
            started = clock(device)
            while started < until:
                torch.mm(left, factor, out=out)
                took_s = clock(device) - started
                rate = operations / took_s
                best = max(best, rate)
                started = clock(device)

    return best


def clock(device: torch.device) -> float:
    """Read the time in seconds, once ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# ---- operations -------------------------------------------------------------------------------


def flop_counter() -> FlopCounterMode:
    """Make a context that counts matrix products, convolutions and attention, and nothing else.

    It is torch's counter, with what that misses or counts otherwise: products in place, attention
    on a CPU, complex products (as four real ones), gradients of grouped convolutions (torch takes
    them for dense). The backward pass of fused attention counts as twice the forward one, without
    what it computes again.

    Returns:
        A context whose ``get_total_flops()`` tells the number.
    """
    aten = torch.ops.aten
    formulas: dict[Any, Any] = {
        aten.mm: _product,
        aten.bmm: _product,
        aten.addmm: _added_product,
        aten.addmm_: _added_product,
        aten.baddbmm: _added_product,
        aten.baddbmm_: _added_product,
        aten.convolution_backward: _convolution_gradients,
    }
    for name in _ATTENTIONS:
        forward = getattr(aten, f"_scaled_dot_product_{name}")
        backward = getattr(aten, f"_scaled_dot_product_{name}_backward")
        formulas[forward] = _attention
        formulas[backward] = _attention_gradients

    for formula in set(formulas.values()):
        # The counter passes tensors to a formula with this mark, and only their shapes otherwise.
        formula.__dict__["_get_raw"] = True

    return FlopCounterMode(display=False, custom_mapping=formulas)


def _product(left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """Count a product of (..., n, k) and (..., k, m): n k m multiplications, as many additions."""
    num_columns = right.shape[-1]
    multiplications = left.numel() * num_columns

    # A complex multiplication is four real ones.
    if left.is_complex():
        multiplications *= 4
    return 2 * multiplications


def _added_product(_sum: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """Count a product that is added to something; that sum does not count."""
    return _product(left, right)


def _convolution_gradients(
    above: Tensor, inputs: Tensor, weight: Tensor, *rest: Any, **__: Any
) -> int:
    """Count the gradients of a convolution's inputs and weight, each if it is needed.

    Args:
        above: the gradient of the output.
        rest: the other arguments of torch's operation, in its order.
    """
    transposed: bool = rest[4]
    wanted: list[bool] = rest[7]

    # A place is a position of one utterance that meets the whole weight.
    meets_weight = inputs if transposed else above
    batch, _, *lengths = meets_weight.shape
    places = batch * math.prod(lengths)

    # Either gradient takes as many operations as the forward pass.
    operations = 2 * places * weight.numel()
    wants_inputs, wants_weight, *_ = wanted
    return operations * (wants_inputs + wants_weight)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Count the two products of attention over (batch, heads, time, width)."""
    batch, heads, num_queries, query_width = query.shape
    num_keys = key.shape[2]
    pairs = batch * heads * num_queries * num_keys

    # Each pair takes a product of query and key, and one of its weight and the value.
    value_width = value.shape[3]
    return 2 * pairs * (query_width + value_width)


def _attention_gradients(
    _above: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    """Count the backward pass as twice the forward one."""
    return 2 * _attention(query, key, value)


# ---- time by part -----------------------------------------------------------------------------


class _Update(NamedTuple):
    """An update: seconds in all and for data, by the loop, and of the parts, by the hooks."""

    time_s: float
    data_s: float
    spent: Mapping[str, float]


class Stopwatch:
    """Time the parts of each update, by hooks from outside on any model with an encoder.

    Forward, the front end and the context network are what lies between the hooks before and
    behind them. Backward, a module's part begins with the gradient of its output. It ends with the
    gradient of its input, or with the last gradient of a parameter. What is left from the first
    frame to the last gradient is the loss: masks, negatives, quantiser, projections. From the last
    gradient to the end of the step is the optimiser: division, clipping, Adam.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.encoder: Encoder | None = None
        # What the time is spent on now, and since when (seconds of ``clock``).
        self.part = "between"
        self.last = 0.0
        # Seconds of each part: of the present update, and of each one before.
        self.spent: dict[str, float] = defaultdict(float)
        self.updates: list[dict[str, float]] = []

    def __enter__(self) -> "Stopwatch":
        # The time between the last gradient and the step is the optimiser's too.
        def begin_step(*_: Any) -> None:
            self._switch("optimiser", "optimiser")

        def end_step(*_: Any) -> None:
            self._end_update()

        self.hooks: list[Any] = [
            register_module_forward_pre_hook(self._meet),
            register_optimizer_step_pre_hook(begin_step),
            register_optimizer_step_post_hook(end_step),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def parts(self, rows: Sequence[Mapping[str, Any]], warm_up: int) -> dict[str, dict[str, float]]:
        """Average the seconds and the share of an update for each of ``PARTS``.

        Only the faster half of the updates counts: the other half is more disturbed by what else
        the machine does.

        Args:
            rows: of ``metrics.jsonl`` of the run that was watched.
            warm_up: updates at its start that do not count.
        """
        updates: list[_Update] = []
        for row, spent in zip(rows, self.updates, strict=True):
            updates.append(_Update(row["time_s"], row["data_s"], spent))

        counted = updates[warm_up:]
        counted.sort(key=lambda update: float(update.time_s))
        num_faster = (len(counted) + 1) // 2
        faster_half = counted[:num_faster]

        # Data are read before the first hook, so their time comes from the loop.
        seconds = {"data": statistics.mean(update.data_s for update in faster_half)}
        for part in PARTS[1:-1]:
            of_part = [update.spent.get(part, 0.0) for update in faster_half]
            seconds[part] = statistics.mean(of_part)

        whole = statistics.mean(update.time_s for update in faster_half)
        seconds["other"] = whole - sum(seconds.values())

        shares: dict[str, dict[str, float]] = {}
        for part in PARTS:
            own = seconds[part]
            shares[part] = {"seconds": own, "share": own / whole}
        return shares

    def _meet(self, model: nn.Module, _inputs: Any) -> None:
        """Add hooks to both halves of the encoder and to all that learns, at the first call."""
        encoder = getattr(model, "encoder", None)
        if self.encoder is not None or not isinstance(encoder, Encoder):
            return

        self.encoder = encoder
        self._watch(encoder.front_end, "front end")
        self._watch(encoder.context, "context network")

        # The time of a parameter's gradient belongs to the part that is on.
        def stay(_parameter: Tensor) -> None:
            self._switch(self.part)

        for parameter in model.parameters():
            if parameter.requires_grad:
                add_hook: Any = parameter.register_post_accumulate_grad_hook
                hook = add_hook(stay)
                self.hooks.append(hook)

    def _watch(self, module: nn.Module, part: str) -> None:
        """Switch to ``part`` while ``module`` is at work, forward and backward."""

        def begin(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # The time since the last gradient of the micro-batch before, if there is one, is no
            # backward pass.
            self._switch(part, "loss")
            self._at_gradient(inputs, "loss")

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._switch("loss")
            outputs = output if isinstance(output, tuple) else (output,)
            self._at_gradient(outputs, part)

        before = module.register_forward_pre_hook(begin)
        behind = module.register_forward_hook(end)
        self.hooks += [before, behind]

    def _at_gradient(self, values: tuple[Any, ...], part: str) -> None:
        """Switch to ``part`` once the gradient of one of ``values`` is known."""

        def begin_part(_gradient: Tensor) -> None:
            self._switch(part)

        for value in values:
            if isinstance(value, Tensor) and value.requires_grad:
                add_hook: Any = value.register_hook
                add_hook(begin_part)

    def _switch(self, part: str, until_now: str | None = None) -> None:
        """Count the time from now on for ``part``.

        Args:
            until_now: the part that the time up to now belongs to; None = the one that was on.
                Between updates it is ``between`` in any case.
        """
        now = clock(self.device)
        ended = self.part
        if until_now is not None and self.part != "between":
            ended = until_now

        self.spent[ended] += now - self.last
        self.part = part
        self.last = now

    def _end_update(self) -> None:
        """Keep the times of this update and begin anew."""
        self._switch("between")
        self.updates.append(dict(self.spent))
        self.spent.clear()
