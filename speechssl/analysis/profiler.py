"""What measures a machine and a model at work: the best matrix product, operations counted, time by part."""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Spread:
    """Middle and ends of repeated measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Four digits of the median, as in ``105.2 (101.0 .. 109.3)``."""
        digits = 0 if self.median == 0 else max(0, 3 - math.floor(math.log10(abs(self.median))))
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} .. {self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


# ---- the machine ------------------------------------------------------------------------------------------------


def matmul_peak(device: torch.device, precision: Precision = "float32") -> float:
    """The best rate of a matrix product measured on ``device`` with torch's present threads, FLOP/s.

    Takes one to two seconds. Square products of several sizes into a ready output, in both layouts of the second
    factor; a multiplication and an addition are two operations. What torch may do inside a product (TF32) stays as it
    is set.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    best = 0.0
    for size in (4096, 8192) if device.type == "cuda" else (512, 1024, 2048):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        for factor in (right, right.T):
            torch.mm(left, factor, out=out)
            until = time.perf_counter() + 0.2
            while (started := clock(device)) < until:
                torch.mm(left, factor, out=out)
                best = max(best, 2 * size**3 / (clock(device) - started))
    return best


def clock(device: torch.device) -> float:
    """Seconds, once ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# ---- operations -------------------------------------------------------------------------------------------------


def flop_counter() -> FlopCounterMode:
    """A context whose ``get_total_flops()`` counts matrix products, convolutions and attention, nothing else.

    It is torch's counter with what that misses or counts otherwise: products in place, attention on a CPU, complex
    products (as four real ones), gradients of grouped convolutions (torch takes them for dense). The backward pass of
    fused attention counts as twice the forward one, without what it computes again.
    """
    aten = torch.ops.aten
    mapping: dict[Any, Any] = dict.fromkeys((aten.mm, aten.bmm), _product)
    mapping |= dict.fromkeys((aten.addmm, aten.addmm_, aten.baddbmm, aten.baddbmm_), _added_product)
    mapping[aten.convolution_backward] = _convolution_gradients
    for kind in (
        "flash_attention_for_cpu",
        "flash_attention",
        "efficient_attention",
        "cudnn_attention",
    ):
        mapping[getattr(aten, f"_scaled_dot_product_{kind}")] = _attention
        mapping[getattr(aten, f"_scaled_dot_product_{kind}_backward")] = _attention_gradients
    for formula in set(mapping.values()):
        formula.__dict__["_get_raw"] = (
            True  # the counter then passes tensors, not only their shapes
        )
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _product(left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    return 2 * left.numel() * right.shape[-1] * (4 if left.is_complex() else 1)


def _added_product(_sum: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    return _product(left, right)


def _convolution_gradients(
    above: Tensor, inputs: Tensor, weight: Tensor, *rest: Any, **__: Any
) -> int:
    transposed: bool = rest[4]
    wanted: list[bool] = rest[7]
    places = (inputs if transposed else above).shape[2:].numel() * above.shape[0]
    # Of the inputs and of the weight, each if it is needed.
    return 2 * places * weight.numel() * (wanted[0] + wanted[1])


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return 2 * query.shape[:3].numel() * key.shape[2] * (query.shape[3] + value.shape[3])


def _attention_gradients(
    _above: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    return 2 * _attention(query, key, value)


# ---- time by part -----------------------------------------------------------------------------------------------

PARTS = ("data", "front end", "context network", "loss", "optimiser", "other")


class Stopwatch:
    """Where the time of each update goes, by hooks from outside on whatever model with an encoder is trained.

    Forward, the front end and the context network are what lies between the hooks before and behind them. Backward, a
    module's part begins with the gradient of its output and ends with that of its input, or with the last gradient of
    a parameter. What is left from the first frame to the last gradient is the loss: masks, negatives, quantiser,
    projections. From the last gradient to the end of the step is the optimiser: division, clipping, Adam.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.encoder: Encoder | None = None
        self.part, self.last = "between", 0.0
        self.spent: dict[str, float] = defaultdict(float)
        self.updates: list[dict[str, float]] = []

    def __enter__(self) -> "Stopwatch":
        self.hooks: list[Any] = [
            register_module_forward_pre_hook(self._meet),
            register_optimizer_step_pre_hook(lambda *_: self._switch("optimiser", "optimiser")),
            register_optimizer_step_post_hook(lambda *_: self._end_update()),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def parts(self, rows: Sequence[Mapping[str, Any]], warm_up: int) -> dict[str, dict[str, float]]:
        """Mean seconds and share of an update for each of ``PARTS``; ``other`` is what no hook saw.

        Only the faster half of the updates counts: the other half is more disturbed by what else the machine does.

        Args:
            rows: of ``metrics.jsonl`` of the run that was watched.
            warm_up: updates at its start that do not count.
        """
        kept = sorted(
            list(zip(rows, self.updates, strict=True))[warm_up:],
            key=lambda pair: float(pair[0]["time_s"]),
        )
        kept = kept[: (len(kept) + 1) // 2]
        found = {"data": statistics.mean(row["data_s"] for row, _ in kept)}
        for part in PARTS[1:-1]:
            found[part] = statistics.mean(spent.get(part, 0.0) for _, spent in kept)
        whole = statistics.mean(row["time_s"] for row, _ in kept)
        found["other"] = whole - sum(found.values())
        return {part: {"seconds": found[part], "share": found[part] / whole} for part in PARTS}

    def _switch(self, part: str, until_now: str | None = None) -> None:
        """From now on it is ``part``; the time up to now belongs to ``until_now``, or else to the part that was on."""
        now = clock(self.device)
        on = self.part if until_now is None or self.part == "between" else until_now
        self.spent[on] += now - self.last
        self.part, self.last = part, now

    def _end_update(self) -> None:
        self._switch("between")
        self.updates.append(dict(self.spent))
        self.spent.clear()

    def _meet(self, model: nn.Module, _inputs: Any) -> None:
        """At the first call of the model: hooks on the two halves of its encoder and on all that learns."""
        encoder = getattr(model, "encoder", None)
        if self.encoder is not None or not isinstance(encoder, Encoder):
            return
        self.encoder = encoder
        self._watch(encoder.front_end, "front end")
        self._watch(encoder.context, "context network")
        for parameter in model.parameters():
            if parameter.requires_grad:
                stay = (
                    parameter.register_post_accumulate_grad_hook
                )  # its time belongs to the part that is on
                self.hooks.append(stay(lambda _: self._switch(self.part)))  # type: ignore[no-untyped-call]

    def _watch(self, module: nn.Module, part: str) -> None:
        def begin(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # The time since the last gradient of the micro-batch before, if there is one, is no backward pass.
            self._switch(part, "loss")
            self._at_gradient(inputs, "loss")

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._switch("loss")
            self._at_gradient(output if isinstance(output, tuple) else (output,), part)

        self.hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]

    def _at_gradient(self, values: tuple[Any, ...], part: str) -> None:
        """Once the gradient of one of ``values`` is known, it is ``part``."""
        for value in values:
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(lambda _: self._switch(part))  # type: ignore[no-untyped-call]
