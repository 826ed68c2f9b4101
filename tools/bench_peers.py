"""Speed and memory of speechssl beside transformers, on the same work with the same weights, on the processor.

    python tools/bench_peers.py pretrain [--size small|base|tiny] [--repeats 5] [--json FILE]
    python tools/bench_peers.py transcribe AUDIO... [--hours 1] [--size small|base | --model DIR] [--memory 10 360]

pretrain: whole updates in float32. Ours are those of train.fit, with the drawing of masks, negatives and noise. Theirs
are forward, backward, clipping and AdamW as in their example, with masks and negatives ready-made. Both start from the
same weights; nothing is timed unless losses and gradients agree without dropout. small: width 256, 6 layers, 7 x 256
convolutions, 8 x 10 s; base: the published BASE, 2 x 10 s; tiny: our log-mel preset beside their small.

transcribe: from the path of one long WAV, joined from AUDIO, to its text. Theirs is the pipeline with chunks of 30 s in
batches of 8 and of 1; it is given samples, read within the time, so that it needs no ffmpeg. --memory: our peak for
recordings of so many minutes.

Each side has a process of its own and they take turns; the one that waits does nothing. By default glibc gives large
blocks back to the system when they are freed, and fetching their pages again may be half the time of an update: with
--keep-memory neither side pays for it. The share of the best, in both, counts the matrix products, convolutions and
attention of their model, forward and backward, against the best matrix product measured here.
"""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from turns import OURS, Side, Turns, alternate, best_peer, compared, machine, measures

from speechssl.analysis.profiler import Spread, flop_counter, matmul_peak
from speechssl.audio.features import input_length
from speechssl.audio.reader import load_audio
from speechssl.config import Table
from speechssl.data.dataset import Batch, collate
from speechssl.encoder.config import WAV2VEC2_CONVS
from speechssl.encoder.encoder import Encoder
from speechssl.errors import AudioError, ConfigError, SpeechsslError
from speechssl.interop.huggingface import quiet_transformers
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.seeds import generator
from speechssl.storage.checkpoint import model_folder
from speechssl.storage.json_text import as_json
from speechssl.tables import text_table
from speechssl.text.tokenizers import CharTokenizer
from speechssl.training.loop import fit
from speechssl.training.presets import resolve_settings
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure

# transformers is only imported where it is used: our process must not hold it, nor theirs what it does not need.
WARM_UP = 2  # turns that do not count: they allocate, and fill caches
NEVER = 10**9  # updates: nothing is saved or printed while a run is timed
RATE = 16_000  # of the joined recording, Hz
PIPELINE_BATCHES = 8, 1

SMALL = {
    "conv_layers": [(256, kernel, stride) for _, kernel, stride in WAV2VEC2_CONVS],
    "width": 256,
    "num_layers": 6,
    "num_heads": 4,
    "ffn_width": 1024,
}
ENCODERS: dict[str, Table] = {"small": SMALL, "base": {}}
BATCHES = {"small": (8, 10.0), "base": (2, 10.0)}  # utterances, seconds of each
TINY_CHUNK_S = 15.0
STILL = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
THEIRS = "transformers"
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}  # what glibc reads
side = partial(Side, __file__)


# ---- pretraining ---------------------------------------------------------------------------------


def pretraining(size: str, still: bool = False) -> PretrainSettings:
    """Settings of our side; those of small and base hold nothing that transformers has not.

    Args:
        still: without dropout.
    """
    train = {
        "steps": NEVER,
        "log_every": NEVER,
        "save_every": NEVER,
        "device": "cpu",
        "precision": "float32",
    }
    if size == "tiny":
        return resolve_settings(PretrainSettings, "tiny", {"train": train})
    encoder = ENCODERS[size] | {"layer_drop": 0.0} | (STILL if still else {})
    objective = {"penalty_weight": 0.0, "front_end_gradient": 1.0}
    return resolve_settings(
        PretrainSettings, "base", {"encoder": encoder, "contrastive": objective, "train": train}
    )


def make_objective(settings: PretrainSettings, seed: int) -> Contrastive:
    """Random weights, the same with and without dropout."""
    torch.manual_seed(seed)
    encoder = Encoder(settings.encoder)
    return Contrastive(
        encoder, settings.contrastive, settings.quantizer, settings.mask, seed
    ).train()


def make_batch(settings: PretrainSettings, rows: int, seconds: float, seed: int) -> Batch:
    """Noise as a store would hold it, all utterances of one length."""
    features, rng = settings.encoder.features, generator("peers", seed)
    units = input_length(round(seconds * features.sample_rate_hz), features)
    shape = (units,) if features.kind == "waveform" else (units, features.num_mels)
    kind, scale = ("int16", 3000) if features.kind == "waveform" else ("float16", 1)
    arrays = [(scale * rng.standard_normal(shape)).astype(kind) for _ in range(rows)]
    return collate([f"utterance {row}" for row in range(rows)], arrays, [None] * rows, features)


def agreement(model: Contrastive, batch: Batch) -> Table:
    """Run one update of ``model``, which has no dropout, and of transformers' twin with the same draws.

    Returns:
        ``loss_difference`` and ``gradient_difference`` (of the gradient's norm), both relative, and ``flops``: matrix
        products, convolutions and attention of their update per second of audio.
    """
    from reference.objective import drawn
    from reference.twins import their_negatives, their_training

    ours = model(batch, 0)
    ours.total.backward()
    theirs, result = their_training(model, batch, 0)
    result.loss.backward()
    losses = ours.total.item(), result.loss.item()
    norms = [gradient_norm(own) for own in (model, theirs)]
    draws, _ = drawn(model, batch, 0)
    mask, negatives = torch.from_numpy(draws.mask), their_negatives(draws)
    with flop_counter() as counter:
        theirs(
            batch.inputs, mask_time_indices=mask, sampled_negative_indices=negatives
        ).loss.backward()
    return {
        "loss_difference": abs(losses[0] / losses[1] - 1),
        "gradient_difference": abs(norms[0] / norms[1] - 1),
        "flops": counter.get_total_flops() / batch.audio_s,
    }


def gradient_norm(model: nn.Module) -> float:
    return float(
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    )


def make_pretraining(task: Table, turns: Turns) -> None:
    """Refuse models that differ; leave their settings, weights, masks and negatives for ``their_updates``."""
    from reference.twins import objective_twin, their_negatives

    folder, size, rows, seconds, seed = (
        Path(task["folder"]),
        *(task[k] for k in ("size", "rows", "seconds", "seed")),
    )
    model = make_objective(pretraining(size, still=True), seed)
    for _ in turns:
        found = agreement(model, make_batch(pretraining(size), min(rows, 2), seconds, seed))
        if not (found["loss_difference"] < 1e-4 and found["gradient_difference"] < 1e-3):
            raise SystemExit(f"the models are not the same, so their speeds say nothing: {found}")
        turns.report = found
        theirs, learns = objective_twin(model), pretraining(size).encoder
        dropouts = {"hidden_dropout": learns.dropout, "feat_proj_dropout": learns.dropout}
        theirs.config.update(dropouts | {"attention_dropout": learns.attention_dropout})
        theirs.config.to_json_file(folder / "theirs.json")
        save_file(theirs.state_dict(), folder / "theirs.safetensors")
        batch = make_batch(pretraining(size), rows, seconds, seed)
        lengths = model.encoder.num_frames(batch.input_lengths).tolist()
        for number in range(task["updates"]):
            draws = model.draw(batch, lengths, max(lengths), number, noisy=False)
            ready = {"mask": torch.from_numpy(draws.mask), "negatives": their_negatives(draws)}
            save_file(ready, folder / f"draws-{number}.safetensors")


class Enough(Exception):  # noqa: N818 - no error, the end
    """No more turns."""


class OneBatch:
    """The same batch for every update, each in its turn."""

    def __init__(self, batch: Batch, turns: Turns) -> None:
        self.batch, self.turns = batch, iter(turns)

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        if next(self.turns, None) is None:
            raise Enough
        return [self.batch]


def our_updates(task: Table, turns: Turns) -> None:
    settings = pretraining(task["size"])
    model = make_objective(settings, task["seed"])
    batch = make_batch(settings, task["rows"], task["seconds"], task["seed"])
    turns.report = {"audio_s": task["rows"] * task["seconds"]}
    with TemporaryDirectory() as folder, suppress(Enough):
        fit(model, OneBatch(batch, turns), settings.optim, settings.train, Path(folder, "run"))


def their_updates(task: Table, turns: Turns) -> None:
    folder, settings = Path(task["folder"]), pretraining(task["size"])
    inputs = make_batch(settings, task["rows"], task["seconds"], task["seed"]).inputs
    ready = [load_file(folder / f"draws-{number}.safetensors") for number in range(task["updates"])]
    turns.report = {"audio_s": task["rows"] * task["seconds"]}
    with quiet_transformers() as transformers:
        config = transformers.Wav2Vec2Config.from_json_file(folder / "theirs.json")
        model = transformers.Wav2Vec2ForPreTraining(config).train()
        model.load_state_dict(load_file(folder / "theirs.safetensors"))
        turns.report["attention"] = model.config._attn_implementation
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.optim.lr)
        for number in turns:
            mask, negatives = ready[number]["mask"], ready[number]["negatives"]
            optimizer.zero_grad()
            loss = model(inputs, mask_time_indices=mask, sampled_negative_indices=negatives).loss
            (loss / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optim.clip_norm)
            optimizer.step()


def bench_pretrain(options: argparse.Namespace) -> Table:
    """Updates in turn; ``tiny`` beside their small."""
    size = "small" if options.size == "tiny" else options.size
    tiny_rows = int(pretraining("tiny").batch.seconds // TINY_CHUNK_S)
    ours, theirs = (
        (tiny_rows, TINY_CHUNK_S) if options.size == "tiny" else BATCHES[size],
        BATCHES[size],
    )
    audio = [(options.rows or rows, options.seconds or seconds) for rows, seconds in (ours, theirs)]
    common = {"threads": options.threads, "seed": options.seed}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        task = common | {"size": size, "rows": audio[1][0], "seconds": audio[1][1]}
        task |= {"folder": folder, "updates": WARM_UP + options.repeats}
        with side("make_pretraining", **task) as maker:
            made = maker.turn()
        own = common | {"size": options.size, "rows": audio[0][0], "seconds": audio[0][1]}
        sides = {OURS: side("our_updates", **own), THEIRS: side("their_updates", **task)}
        for each in sides.values():
            stack.enter_context(each)
        replies = alternate(sides, WARM_UP, options.repeats)
    torch.set_num_threads(options.threads)
    best = matmul_peak(torch.device("cpu"))
    checked = {name: made[name] for name in ("loss_difference", "gradient_difference")}
    about = {
        "size": options.size,
        "repeats": options.repeats,
        "attention": replies[THEIRS][0]["attention"],
        **checked,
    }
    about |= {"batch": dict(zip((OURS, THEIRS), audio, strict=True))}
    where = machine(keep_memory=options.keep_memory, **common)
    table: Table = {"bench": "pretrain", "about": about, "machine": where, "matmul_peak": best}
    table |= {
        "flops_per_audio_s": made["flops"],
        "sides": {name: measures(found) for name, found in replies.items()},
    }
    for name, found in table["sides"].items():
        if (
            name != OURS or options.size != "tiny"
        ):  # another architecture: `speechssl bench pretrain` counts its own
            found["share"] = made["flops"] * found["audio_s_per_s"]["median"] / best
    return table | compared(replies, best_peer(table["sides"]))


# ---- transcription -------------------------------------------------------------------------------


def make_recognisers(task: Table, turns: Turns) -> None:
    """A recogniser of ours, of random weights unless one is given, and its export, which is refused if it differs."""
    from speechssl.interop.convert import export_model

    folder, source = Path(task["folder"]), task["model"]
    for _ in turns:
        if source is None:
            settings = resolve_settings(
                FinetuneSettings, "base", {"encoder": ENCODERS[task["size"]]}
            )
            tokenizer = CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz"])
            torch.manual_seed(task["seed"])
            model = CtcModel(
                Encoder(settings.encoder), tokenizer, settings.normaliser, settings.ctc
            )
            save_ctc(model, folder / "ours", {})
        ours = folder / "ours" if source is None else model_folder(Path(source))
        turns.report = {
            "ours": str(ours),
            "difference": export_model(ours, folder / "theirs", "hf").difference,
        }


def our_texts(task: Table, turns: Turns) -> None:
    """The first recording in the first turn, the last one from then on."""
    model = load_ctc(Path(task["model"]))
    for number in turns:
        path = task["audio"][min(number, len(task["audio"]) - 1)]
        (result,) = transcribe(model, [path])
        if isinstance(result, Failure):
            raise ConfigError(f"{result.path}: {result.error}")
        turns.report = {"audio_s": result.duration_s, "characters": len(result.text)}


def their_texts(task: Table, turns: Turns) -> None:
    """As ``our_texts``."""
    with quiet_transformers() as transformers:
        recognise = transformers.pipeline(
            "automatic-speech-recognition",
            model=task["model"],
            device="cpu",
            chunk_length_s=30,
            batch_size=task["batch"],
        )
        for number in turns:
            samples, rate = soundfile.read(
                task["audio"][min(number, len(task["audio"]) - 1)], dtype="float32"
            )
            text = recognise({"raw": samples, "sampling_rate": rate})["text"]
            turns.report = {"audio_s": len(samples) / rate, "characters": len(text)}


def write_joined(paths: Sequence[Path], seconds: float, out: Path) -> Path:
    """One WAV of so many seconds: all recordings one after the other, again and again if they are shorter."""
    files, left = deque(find_audio(paths)), round(seconds * RATE)
    with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16") as joined:
        while left:
            if not files:
                raise ConfigError(
                    f"no recording that can be read in {', '.join(map(str, paths))}: give other files"
                )
            path = files.popleft()
            try:
                samples = load_audio(path, RATE)[:left]
            except AudioError as error:
                print(f"left out: {path}: {error}", file=sys.stderr)
                continue
            if len(samples):
                files.append(path)
                joined.write(samples)
                left -= len(samples)
    return out


def bench_transcribe(options: argparse.Namespace) -> Table:
    """One long recording in turn; then, alone, recordings of other lengths for our memory."""
    common, seconds = {"threads": options.threads, "seed": options.seed}, 3600 * options.hours
    with TemporaryDirectory() as folder, ExitStack() as stack:
        source = str(options.model) if options.model else None
        with side(
            "make_recognisers", folder=folder, size=options.size, model=source, **common
        ) as maker:
            made = maker.turn()
        joined = write_joined(options.audio, seconds, Path(folder, "joined.wav"))
        warm = write_joined([joined], min(60.0, seconds), Path(folder, "warm.wav"))
        audio = [str(warm), str(joined)]
        sides = {OURS: side("our_texts", model=made["ours"], audio=audio, **common)}
        for size in PIPELINE_BATCHES:
            model = str(Path(folder, "theirs"))
            sides[f"{THEIRS}, batches of {size}"] = side(
                "their_texts", model=model, audio=audio, batch=size, **common
            )
        for each in sides.values():
            stack.enter_context(each)
        replies = alternate(sides, 1, options.repeats)
        memory = {}
        for minutes in options.memory:
            path = write_joined([joined], 60 * minutes, Path(folder, "other.wav"))
            with side("our_texts", model=made["ours"], audio=[str(path)], **common) as alone:
                memory[f"{minutes:g} minutes"] = alone.turn()["peak_gb"]
    about = {"model": source or f"{options.size}, random weights", "difference": made["difference"]}
    about |= {"audio_s": replies[OURS][0]["audio_s"], "repeats": options.repeats}
    table: Table = {
        "bench": "transcribe",
        "about": about,
        "machine": machine(keep_memory=options.keep_memory, **common),
    }
    table["sides"] = {name: measures(found) for name, found in replies.items()}
    return (
        table
        | compared(replies, best_peer(table["sides"]))
        | ({"our_peak_gb": memory} if memory else {})
    )


# ---- what is told --------------------------------------------------------------------------------


def as_text(table: Table) -> str:
    """For people: what ran and where, and a Markdown table."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in table[part].items())
        for part in ("about", "machine")
    ]
    rows = []
    for name, found in table["sides"].items():
        numbers = (
            f"{found[key]:.2f}" for key in ("peak_gb", "increase_gb", "cores", "cores_in_kernel")
        )
        share = f"{found['share']:.1%}" if "share" in found else ""
        rows.append([name, Spread(**found["audio_s_per_s"]), *numbers, share])
    ratio, memory = (
        Spread(**table["speed_ratio"]),
        (f"{table[f'{m}_gb_ratio']:.2f}" for m in ("peak", "increase")),
    )
    rows.append([f"{OURS} / {table['peer']}", ratio, *memory, "", "", ""])
    header = (
        "",
        "seconds of audio per second",
        "peak, GB",
        "increase, GB",
        "cores",
        "in kernel",
        "share of the best",
    )
    shown = len(header) if "matmul_peak" in table else -1
    lines.append("\n" + text_table(header[:shown], [row[:shown] for row in rows]))
    if "matmul_peak" in table:
        lines.append(
            f"best matrix product {table['matmul_peak'] / 1e9:.0f} GFLOP/s; "
            f"{table['flops_per_audio_s'] / 1e9:.2f} GFLOP per second of audio"
        )
    lines += [
        f"our peak for a recording of {length}: {peak:.3f} GB"
        for length, peak in table.get("our_peak_gb", {}).items()
    ]
    return "\n".join(lines)


def work(arguments: str) -> None:
    """The process of a ``Side``."""
    task: Table = json.loads(arguments)
    torch.set_num_threads(task["threads"])
    functions = (
        make_pretraining,
        our_updates,
        their_updates,
        make_recognisers,
        our_texts,
        their_texts,
    )
    {function.__name__: function for function in functions}[task["work"]](task, Turns())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=2, help="of torch, in both")
    common.add_argument("--seed", type=int, default=0)
    keep = "both processes keep the memory that they free, where the C library is glibc"
    common.add_argument("--keep-memory", action="store_true", help=keep)
    common.add_argument("--json", type=Path, help="also write everything here")
    verbs = parser.add_subparsers(required=True)
    pretrain = verbs.add_parser(
        "pretrain", parents=[common], help="updates of the contrastive objective"
    )
    pretrain.add_argument("--size", choices=[*ENCODERS, "tiny"], default="small")
    pretrain.add_argument("--repeats", type=int, default=5, help="timed updates of each")
    pretrain.add_argument("--rows", type=int, help="utterances of an update, in both")
    pretrain.add_argument("--seconds", type=float, help="of each utterance, in both")
    pretrain.set_defaults(run=bench_pretrain)
    transcribe = verbs.add_parser("transcribe", parents=[common], help="one long recording")
    transcribe.add_argument("audio", type=Path, nargs="+", help="files and folders that are joined")
    transcribe.add_argument("--hours", type=float, default=1.0, help="of the joined recording")
    transcribe.add_argument("--size", choices=ENCODERS, default="small", help="of random weights")
    transcribe.add_argument("--model", type=Path, help="a recogniser of ours instead, waveform")
    transcribe.add_argument("--repeats", type=int, default=3, help="timed passes of each")
    transcribe.add_argument(
        "--memory", type=float, nargs="+", default=[], help="also our peak for so many minutes"
    )
    transcribe.set_defaults(run=bench_transcribe)
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.repeats < 1:
        parser.error("--threads and --repeats are at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.keep_memory:
        os.environ.update(KEEP_MEMORY)
    try:
        table = options.run(options)
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error
    print(as_text(table))
    if options.json:
        options.json.write_text(as_json(table), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
    else:
        main()
