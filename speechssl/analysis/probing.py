"""What a frozen encoder knows: linear probes on each of its layers, beside log-mel and an encoder of random weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechssl.audio.features import FeatureConfig, featurise
from speechssl.data.batches import length_batches
from speechssl.data.dataset import Batch, Dataset, choose_minutes
from speechssl.data.store import Store
from speechssl.decoding.greedy import greedy, min_ctc_frames
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, layer_outputs
from speechssl.errors import ConfigError
from speechssl.pictures import draw_line, finish_panel, new_figure, save_figure
from speechssl.runtime.seeds import derive_seed, generator
from speechssl.scoring.score import score
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json
from speechssl.tables import text_table
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import CharTokenizer, train_tokenizer

ProbeTarget = Literal["characters", "keyword", "digit", "speaker"]
PROBE_TARGETS: Mapping[ProbeTarget, str] = {
    "characters": "a linear CTC of the transcripts; character error rate on split dev, or 10 minutes of it",
    "keyword": "the first folder of each recording; error on a quarter of the recordings of split train",
    "digit": "the whole transcript as one class; error on split dev",
    "speaker": "the speaker; error on a quarter of the recordings of split train",
}
MIX = "mix"  # the layers weighed by a softmax that the probe learns
NORMALISER = "basic-1"
MOST = 2000  # recordings that a classifier is shown, those held out among them
HELD_OUT_MINUTES = 10.0  # of characters
BATCH_S = 60.0
OUTPUT_S = (
    0.02  # a linear CTC needs an output this often to have room for the letters of fast speech
)
UPDATES, LR, CTC_BATCH = 240, 1e-2, 32  # of the linear CTC; its rate falls to 0


@dataclass(frozen=True)
class Probed:
    """One probe. ``layer``: 0 = the projected frames of the front end, then each Transformer layer, or ``MIX``."""

    target: ProbeTarget
    system: str
    layer: str
    error: float
    """A fraction: of classes that were wrong, or the character error rate, which may exceed 1."""
    chance: float
    """The error of always naming the most frequent class; 1 for characters."""
    examples: int
    """Held-out recordings that the error was measured on."""


@dataclass(frozen=True)
class _Examples:
    """Recordings with what is asked of them; the first ``train`` are learned from, the others measured."""

    dataset: Dataset
    labels: Sequence[str]
    train: int


def probe(
    encoder: Encoder,
    stores: Mapping[ProbeTarget, str | Path],
    minutes: float = 10.0,
    seed: int = 0,
    only_mix: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Probed]:
    """Linear probes on every layer of ``encoder`` and on their learned mix.

    Recordings are classified by the mean of their frames (multinomial logistic regression, L-BFGS); characters are read
    frame by frame (one linear layer and CTC). Nothing of the encoder is changed.

    Args:
        stores: what to ask, and of which store; ``PROBE_TARGETS`` says what each needs.
        minutes: labelled audio that the probe of characters learns from, a seeded choice.
        only_mix: no probe of single layers, nor of the baselines: log-mel rows, and an encoder with the same shape and
            random weights. A third of the time of the layers and the mix together.
        progress: told what comes next.

    Raises:
        ConfigError: a store does not have what is asked of it, or features that the encoder does not read.

    Source: the protocol of SUPERB (arXiv 2105.01051), section 3: frozen model, learned mix of layers, light head.
    """
    systems: list[tuple[str, Callable[[Batch], tuple[list[Tensor], Tensor]]]] = [
        ("model", lambda batch: layer_outputs(encoder, batch.inputs, batch.input_lengths))
    ]
    if not only_mix:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "random encoder"))
            blank = Encoder(encoder.config).to(next(encoder.parameters()).device)
        systems.append(
            ("random", lambda batch: layer_outputs(blank, batch.inputs, batch.input_lengths))
        )
        systems.append(("log-mel", lambda batch: log_mel_frames(encoder, batch)))
    found = []
    for target, path in stores.items():
        examples = _examples(target, Dataset([Store(path)]), encoder, minutes, seed)
        for system, frames in systems:
            progress(f"probing {target}: {system}, {len(examples.labels)} recordings")
            read = _characters if target == "characters" else _classes
            errors, chance = read(examples, encoder, frames, seed, only_mix)
            names = ["log-mel"] if system == "log-mel" else [*map(str, range(len(errors) - 1)), MIX]
            held_out = len(examples.labels) - examples.train
            found += [
                Probed(target, system, name, error, chance, held_out)
                for name, error in zip(names, errors, strict=False)  # the mix of one is that one
            ]
    return found


def watch(
    stores: Mapping[ProbeTarget, str | Path],
    shape: EncoderConfig,
    minutes: float = 10.0,
    seed: int = 0,
) -> Callable[[Encoder], dict[str, float]]:
    """The error of the layers' mix for each target, and their mean, as ``pretrain`` logs them on the way.

    Args:
        shape: of the encoder that will be asked.
        stores, minutes, seed: as ``probe``.

    Raises:
        ConfigError, ManifestError: as ``probe``, which is said now and not hours later.
    """
    blank = Encoder(shape)
    for target, path in stores.items():
        _examples(target, Dataset([Store(path)]), blank, minutes, seed)

    def measure(encoder: Encoder) -> dict[str, float]:
        errors = {
            f"probe_{row.target}": row.error
            for row in probe(encoder, stores, minutes, seed, only_mix=True)
        }
        return errors | {"probe_mean": sum(errors.values()) / len(errors)}

    return measure


# ---- frames --------------------------------------------------------------------------------------------------------


def log_mel_frames(encoder: Encoder, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """The log-mel rows under each frame side by side, (B, T, n F), normalised per utterance; (B,) valid frames."""
    num_frames = encoder.num_frames(batch.input_lengths)
    length = int(num_frames.max())
    if encoder.config.features.kind == "logmel":
        return [encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)], num_frames
    config = FeatureConfig(sample_rate_hz=encoder.config.features.sample_rate_hz)
    stack = max(1, round(encoder.config.samples_per_frame / config.hop))
    out = torch.zeros(len(batch.ids), length, stack * config.num_mels)
    for row, samples, count, frames in zip(
        out, batch.inputs, batch.input_lengths.tolist(), num_frames.tolist(), strict=True
    ):
        mel = torch.from_numpy(featurise(samples[:count].cpu().numpy(), config)).float()
        mel = (mel - mel.mean(0)) / (mel.std(0) + 1e-5)
        wanted = F.pad(mel, (0, 0, 0, max(0, stack * frames - len(mel))))[: stack * frames]
        row[:frames] = wanted.view(frames, -1)
    return [out], num_frames


def _frames(
    dataset: Dataset,
    encoder: Encoder,
    frames: Callable[[Batch], tuple[list[Tensor], Tensor]],
    pool: bool,
) -> list[Tensor]:
    """Of each recording, in order: (L, T, D) float16 on the host, or with ``pool`` the mean over its frames, (L, D)."""
    device = next(encoder.parameters()).device
    found: dict[int, Tensor] = {}
    limit = round(BATCH_S * dataset.features.sample_rate_hz)
    for positions in length_batches(np.asarray(dataset.num_samples, dtype=np.int64), limit):
        layers, num_frames = frames(dataset.batch(positions).to(device))
        stacked = torch.stack(layers, 1)  # (B, L, T, D)
        for row, count, position in zip(stacked, num_frames.tolist(), positions, strict=True):
            own = row[:, :count].float()
            found[position] = own.mean(1).cpu() if pool else own.half().cpu()
    return [found[position] for position in range(len(dataset))]


# ---- probes --------------------------------------------------------------------------------------------------------


class _Heads(nn.Module):
    """A linear head for each of L layers and one for their mix, side by side: (N, L, D) -> (N, L + 1, C).

    Or for the mix alone: (N, 1, C).
    """

    def __init__(self, layers: int, width: int, outputs: int, only_mix: bool) -> None:
        super().__init__()
        heads = 1 if only_mix else layers + 1
        self.weight = nn.Parameter(torch.zeros(heads, width, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, outputs))
        self.mix = nn.Parameter(torch.zeros(layers))

    def forward(self, features: Tensor) -> Tensor:
        mixed = torch.einsum("nld,l->nd", features, self.mix.softmax(0))
        together = (
            mixed[:, None] if len(self.weight) == 1 else torch.cat([features, mixed[:, None]], 1)
        )
        return torch.einsum("nld,ldc->nlc", together, self.weight) + self.bias


def _classes(
    examples: _Examples,
    encoder: Encoder,
    frames: Callable[[Batch], tuple[list[Tensor], Tensor]],
    seed: int,
    only_mix: bool,
) -> tuple[list[float], float]:
    """Share of held-out recordings whose class is wrong, of each layer and of the mix; and chance."""
    pooled = torch.stack(_frames(examples.dataset, encoder, frames, pool=True))
    names = sorted(set(examples.labels[: examples.train]))
    numbers = {name: number for number, name in enumerate(names)}
    labels = torch.tensor(
        [numbers.get(name, -1) for name in examples.labels]
    )  # -1: never seen, never right
    learn, hold = pooled[: examples.train], pooled[examples.train :]
    mean, std = learn.mean(0), learn.std(0) + 1e-5
    learn, hold = (learn - mean) / std, (hold - mean) / std
    heads = _Heads(pooled.shape[1], pooled.shape[2], len(names), only_mix)
    optimizer = torch.optim.LBFGS(heads.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    known = labels[: examples.train]

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = heads(learn)
        wrong = F.cross_entropy(logits.flatten(0, 1), known.repeat_interleave(logits.shape[1]))
        loss: Tensor = wrong * logits.shape[1] + 1e-3 * heads.weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        wrong = heads(hold).argmax(-1) != labels[examples.train :, None]
    commonest = known.bincount().argmax()
    return wrong.float().mean(0).tolist(), float(
        (labels[examples.train :] != commonest).float().mean()
    )


def _characters(
    examples: _Examples,
    encoder: Encoder,
    frames: Callable[[Batch], tuple[list[Tensor], Tensor]],
    seed: int,
    only_mix: bool,
) -> tuple[list[float], float]:
    """Character error rate of greedy decoding on the held-out recordings, of each layer and of the mix; and 1."""
    config = encoder.config
    per_frame = max(1, round(config.samples_per_frame / config.features.sample_rate_hz / OUTPUT_S))
    tokenizer = train_tokenizer("chars", examples.labels[: examples.train])
    assert isinstance(tokenizer, CharTokenizer)
    features = _frames(examples.dataset, encoder, frames, pool=False)
    learn = features[: examples.train]
    joined = torch.cat([own.float() for own in learn], 1)
    mean, std = joined.mean(1, keepdim=True), joined.std(1, keepdim=True) + 1e-5
    features = [((own.float() - mean) / std) for own in features]  # (L, T, D)
    tokens = [torch.tensor(tokenizer.encode(text)) for text in examples.labels]
    usable = [
        i
        for i in range(examples.train)
        if features[i].shape[1] * per_frame >= max(1, min_ctc_frames(tokens[i].tolist()))
    ]
    heads = _Heads(features[0].shape[0], features[0].shape[2], per_frame * tokenizer.size, only_mix)
    optimizer = torch.optim.Adam(heads.parameters(), lr=LR)

    def log_probs(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """((L + 1) B, n T, V), all utterances of the first head first, and their valid outputs."""
        padded = nn.utils.rnn.pad_sequence(
            [features[i].transpose(0, 1) for i in chosen], batch_first=True
        )
        batch, length = padded.shape[:2]
        logits = heads(padded.flatten(0, 1)).unflatten(0, (batch, length))  # (B, T, L + 1, n V)
        logits = (
            logits.unflatten(-1, (per_frame, tokenizer.size))
            .permute(2, 0, 1, 3, 4)
            .flatten(2, 3)
            .flatten(0, 1)
        )
        counts = torch.tensor([features[i].shape[1] * per_frame for i in chosen])
        return logits.log_softmax(-1), counts.repeat(heads.weight.shape[0])

    rng = generator("probe", seed)
    for update in range(UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 - update / UPDATES)
        optimizer.zero_grad()
        chosen = rng.choice(usable, min(CTC_BATCH, len(usable)), replace=False).tolist()
        outputs, counts = log_probs(chosen)
        own = [tokens[i] for i in chosen] * heads.weight.shape[0]
        lengths = torch.tensor([len(t) for t in own])
        loss = F.ctc_loss(outputs.transpose(0, 1), torch.cat(own), counts, lengths, reduction="sum")
        (loss / sum(len(tokens[i]) for i in chosen)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    hold = list(range(examples.train, len(features)))
    texts: list[list[str]] = [[] for _ in range(heads.weight.shape[0])]
    with torch.no_grad():
        for start in range(0, len(hold), CTC_BATCH):
            chosen = hold[start : start + CTC_BATCH]
            outputs, counts = log_probs(chosen)
            read = [tokenizer.decode(ids) for ids in greedy(outputs, counts, tokenizer.blank_id)]
            for head, own_texts in enumerate(texts):
                own_texts += read[head * len(chosen) : (head + 1) * len(chosen)]
    references = {str(i): examples.labels[i] for i in hold}
    errors = [
        score(references, {str(i): text for i, text in zip(hold, own, strict=True)}).cer
        for own in texts
    ]
    return errors, 1.0


# ---- what is asked -------------------------------------------------------------------------------------------------


def _examples(
    target: ProbeTarget, dataset: Dataset, encoder: Encoder, minutes: float, seed: int
) -> _Examples:
    """Recordings to learn from, then those held out, with their labels."""
    if dataset.features != encoder.config.features:
        raise ConfigError(
            f"the store holds {dataset.features}, the encoder reads {encoder.config.features}: prepare it anew"
        )
    heard = encoder.num_frames(torch.from_numpy(dataset.input_lengths)).numpy() > 0
    records = [dataset.stores[0].record(int(i)) for i in dataset.index_of]
    splits = np.array([record.split for record in records])
    if target in ("characters", "digit"):
        labels = [normalise(record.text, NORMALISER) if record.text else None for record in records]
        train, hold = splits == "train", splits == "dev"
    else:
        labels = [
            r.speaker if target == "speaker" else r.audio.rpartition("/")[0].partition("/")[0]
            for r in records
        ]
        # By recording, not by chunk: two pieces of one recording are no independent evidence.
        quarter = np.array(
            [derive_seed("hold out", seed, record.audio) % 4 == 0 for record in records]
        )
        train, hold = (splits == "train") & ~quarter, (splits == "train") & quarter
    labelled = np.array([bool(label) for label in labels]) & heard
    parts = [np.flatnonzero(labelled & part) for part in (train, hold)]
    if not len(parts[0]) or not len(parts[1]) or len({labels[i] for i in parts[0]}) < 2:
        raise ConfigError(
            f"{dataset.stores[0].path} cannot answer for {target} ({PROBE_TARGETS[target]}): it needs such recordings to "
            "learn from and to measure on, of two classes at least"
        )
    classes = len({labels[i] for i in parts[0]})
    if target != "characters" and 2 * classes > len(parts[0]):
        raise ConfigError(
            f"{dataset.stores[0].path} cannot answer for {target} ({PROBE_TARGETS[target]}): the {len(parts[0])} recordings "
            f"to learn from are of {classes} classes, at least two of each are needed"
        )
    if (
        target == "characters"
    ):  # all layers of all frames are held at once: 14 MB for a minute and layer of 768
        for k, bound in enumerate((minutes, HELD_OUT_MINUTES)):
            subset = dataset.subset(parts[k])
            chosen = subset if subset.seconds <= 60 * bound else choose_minutes(subset, bound, seed)
            parts[k] = parts[k][np.isin(dataset.index_of[parts[k]], chosen.index_of)]
    else:
        rng = generator("probe examples", seed)
        most = (3 * MOST // 4, MOST // 4)
        parts = [
            np.sort(rng.permutation(part)[:count]) for part, count in zip(parts, most, strict=True)
        ]
    together = np.concatenate(parts)
    return _Examples(dataset.subset(together), [labels[i] or "" for i in together], len(parts[0]))


# ---- results -------------------------------------------------------------------------------------------------------


def as_text(results: Sequence[Probed]) -> str:
    """A line for each target and system: the error of each layer in per cent."""
    layers = list(dict.fromkeys(r.layer for r in results if r.layer != "log-mel"))
    rows = []
    for target, system in dict.fromkeys((r.target, r.system) for r in results):
        own = {r.layer: r for r in results if (r.target, r.system) == (target, system)}
        one = next(iter(own.values()))
        cells = [
            f"{100 * own[layer].error:.1f}" if layer in own else ""
            for layer in ("log-mel", *layers)
        ]
        rows.append((target, system, *cells, f"{100 * one.chance:.1f}", one.examples))
    return text_table(
        (
            "error, %",
            "",
            "log-mel",
            *(f"layer {x}" if x != MIX else x for x in layers),
            "chance",
            "n",
        ),
        rows,
    )


def plot(results: Sequence[Probed], out_png: Path) -> None:
    """The error by layer, a panel for each target; log-mel and the mix of the layers are dashed."""
    targets = list(dict.fromkeys(r.target for r in results))
    figure, panels = new_figure(len(targets))
    for target, axes in zip(targets, panels, strict=True):
        for system, colour in (("model", "C0"), ("random", "C1"), ("log-mel", "C2")):
            own = [r for r in results if r.target == target and r.system == system]
            points = [(int(r.layer), 100 * r.error) for r in own if r.layer.isdigit()]
            draw_line(axes, points, system, marker="o", color=colour)
            for r in own:
                if not r.layer.isdigit():
                    label = "log-mel" if system == "log-mel" else f"{system}, {MIX}"
                    axes.axhline(
                        100 * r.error, linestyle="--", linewidth=0.8, color=colour, label=label
                    )
        finish_panel(axes, f"{target}: error (%)", "layer")
    save_figure(figure, out_png)


def write_probes(results: Sequence[Probed], out: Path, about: Mapping[str, str]) -> None:
    """``probe.json`` and ``probe.png`` in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "probe.json", as_json({**about, "results": [asdict(r) for r in results]}))
    plot(results, out / "probe.png")


def probe_stores(probes: Sequence[str]) -> dict[ProbeTarget, Path]:
    stores: dict[ProbeTarget, Path] = {}
    for given in probes:
        name, _, path = given.partition("=")
        target = next((target for target in PROBE_TARGETS if target == name), None)
        if target is None or not path:
            raise ConfigError(
                f"a probe is {', '.join(f'{t}=STORE' for t in PROBE_TARGETS)}, not {given!r}"
            )
        if target in stores:
            raise ConfigError(f"{target} is asked of two stores: give one of them")
        stores[target] = Path(path)
    return stores
