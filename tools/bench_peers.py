"""Speed and memory of speechssl beside transformers: same work, same weights, on the processor.

    python tools/bench_peers.py pretrain [--size small|base|tiny] [--repeats 5] [--json FILE]
    python tools/bench_peers.py transcribe AUDIO... [--hours 1] [--size small|base | --model DIR]
        [--memory 10 360]

pretrain: whole updates in float32. Ours are those of our training loop, with the drawing of masks,
negatives and noise. Theirs are forward, backward, clipping and AdamW as in their example, with
masks and negatives ready-made. Both start from the same weights, and nothing is timed unless losses
and gradients agree without dropout. small: width 256, 6 layers, 7 x 256 convolutions, 8 x 10 s;
base: the published BASE, 2 x 10 s; tiny: our log-mel preset beside their small.

transcribe: from the path of one long WAV, joined from AUDIO, to its text. Theirs is the pipeline
with chunks of 30 s in batches of 8 and of 1; it is given samples, read within the time, so that it
needs no ffmpeg. --memory: our peak for recordings of so many minutes.

Each side has a process of its own and they take turns; the one that waits does nothing. By default
glibc gives large blocks back to the system when they are freed, and fetching their pages again may
be half the time of an update: with --keep-memory neither side pays for it. The share of the best,
in both, counts the matrix products, convolutions and attention of their model, forward and
backward, against the best matrix product measured here.
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
from speechssl.data.collate import Batch, collate
from speechssl.encoder.config import WAV2VEC2_CONVS
from speechssl.encoder.encoder import Encoder
from speechssl.errors import AudioError, ConfigError, SpeechsslError
from speechssl.interop.huggingface import quiet_transformers
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.seeds import generator
from speechssl.storage.json_text import as_json
from speechssl.storage.saved_folders import model_folder
from speechssl.tables import text_table
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.training.loop import fit
from speechssl.training.presets import resolve_settings
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure

# transformers is only imported where it is used: our process must not hold it, nor theirs what it
# does not need.

# Turns that do not count: they allocate, and fill caches.
WARM_UP = 2
# Updates: nothing is saved or printed while a run is timed.
NEVER = 10**9
# Of the joined recording, Hz.
RATE = 16_000
# Chunks in a batch of their pipeline.
PIPELINE_BATCHES = (8, 1)

SMALL = {
    "conv_layers": [(256, kernel, stride) for _, kernel, stride in WAV2VEC2_CONVS],
    "width": 256,
    "num_layers": 6,
    "num_heads": 4,
    "ffn_width": 1024,
}
ENCODERS: dict[str, Table] = {"small": SMALL, "base": {}}
# Utterances, and seconds of each.
BATCHES = {"small": (8, 10.0), "base": (2, 10.0)}
TINY_CHUNK_S = 15.0
STILL = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
THEIRS = "transformers"
# Variables of the environment that glibc reads.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
side = partial(Side, __file__)


# --- pretraining ---


def pretraining(size: str, still: bool = False) -> PretrainSettings:
    """Make the settings of our side; those of small and base have nothing transformers lacks.

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

    encoder = ENCODERS[size] | {"layer_drop": 0.0}
    if still:
        encoder |= STILL
    objective = {"penalty_weight": 0.0, "front_end_gradient": 1.0}
    changes = {"encoder": encoder, "contrastive": objective, "train": train}
    return resolve_settings(PretrainSettings, "base", changes)


def make_objective(settings: PretrainSettings, seed: int) -> Contrastive:
    """Make a model of random weights, the same with and without dropout."""
    torch.manual_seed(seed)
    encoder = Encoder(settings.encoder)
    model = Contrastive(encoder, settings.contrastive, settings.quantizer, settings.mask, seed)
    return model.train()


def make_batch(settings: PretrainSettings, rows: int, seconds: float, seed: int) -> Batch:
    """Make a batch of noise as a store would hold it, all utterances of one length."""
    features = settings.encoder.features
    units = input_length(round(seconds * features.sample_rate_hz), features)

    # Samples of 16 bits as loud as speech, or normalised mel frames.
    shape: tuple[int, ...] = (units, features.num_mels)
    kind = "float16"
    scale = 1
    if features.kind == "waveform":
        shape = (units,)
        kind = "int16"
        scale = 3000

    rng = generator("peers", seed)
    arrays = [(scale * rng.standard_normal(shape)).astype(kind) for _ in range(rows)]
    ids = [f"utterance {row}" for row in range(rows)]
    return collate(ids, arrays, [None] * rows, features)


def agreement(model: Contrastive, batch: Batch) -> Table:
    """Compare one update of ``model``, without dropout, with that of transformers' twin.

    Both get the same draws.

    Returns:
        ``loss_difference`` and ``gradient_difference`` (of the gradient's norm), both relative, and
        ``flops``: matrix products, convolutions and attention of their update per second of audio.
    """
    from reference.objective import drawn
    from reference.twins import their_negatives, their_training

    ours = model(batch, 0)
    ours.total.backward()
    theirs, result = their_training(model, batch, 0)
    result.loss.backward()
    loss_ratio = ours.total.item() / result.loss.item()
    norm_ratio = gradient_norm(model) / gradient_norm(theirs)

    draws, _ = drawn(model, batch, 0)
    mask = torch.from_numpy(draws.mask)
    negatives = their_negatives(draws)
    with flop_counter() as counter:
        output = theirs(batch.inputs, mask_time_indices=mask, sampled_negative_indices=negatives)
        output.loss.backward()

    return {
        "loss_difference": abs(loss_ratio - 1),
        "gradient_difference": abs(norm_ratio - 1),
        "flops": counter.get_total_flops() / batch.audio_s,
    }


def gradient_norm(model: nn.Module) -> float:
    """Measure the norm of all gradients together."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def make_pretraining(task: Table, turns: Turns) -> None:
    """Refuse models that differ; leave what ``their_updates`` needs.

    This is transformers' settings, weights, masks and negatives, as files in the task's folder.
    """
    from reference.twins import objective_twin

    folder = Path(task["folder"])
    size = task["size"]
    seed = task["seed"]
    settings = pretraining(size)
    model = make_objective(pretraining(size, still=True), seed)

    for _ in turns:
        few_rows = min(task["rows"], 2)
        found = agreement(model, make_batch(settings, few_rows, task["seconds"], seed))
        # Also refused if a difference is not a number.
        same = found["loss_difference"] < 1e-4 and found["gradient_difference"] < 1e-3
        if not same:
            raise SystemExit(f"the models are not the same, so their speeds say nothing: {found}")
        turns.report = found

        theirs = objective_twin(model)
        theirs.config.update(
            {
                "hidden_dropout": settings.encoder.dropout,
                "feat_proj_dropout": settings.encoder.dropout,
                "attention_dropout": settings.encoder.attention_dropout,
            }
        )
        theirs.config.to_json_file(folder / "theirs.json")
        save_file(theirs.state_dict(), folder / "theirs.safetensors")

        batch = make_batch(settings, task["rows"], task["seconds"], seed)
        save_draws(model, batch, folder, task["updates"])


def save_draws(model: Contrastive, batch: Batch, folder: Path, updates: int) -> None:
    """Write the masks and negatives of so many updates as transformers takes them."""
    from reference.twins import their_negatives

    lengths = model.encoder.num_frames(batch.input_lengths).tolist()
    for number in range(updates):
        draws = model.draw(batch, lengths, max(lengths), number, noisy=False)
        ready = {"mask": torch.from_numpy(draws.mask), "negatives": their_negatives(draws)}
        save_file(ready, folder / f"draws-{number}.safetensors")


class Enough(Exception):  # noqa: N818 - no error, the end
    """No more turns."""


class OneBatch:
    """The same batch for every update, each in its turn."""

    def __init__(self, batch: Batch, turns: Turns) -> None:
        self.batch = batch
        self.turns = iter(turns)

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        if next(self.turns, None) is None:
            raise Enough
        return [self.batch]


def our_updates(task: Table, turns: Turns) -> None:
    """Train with our loop, one update in each turn."""
    settings = pretraining(task["size"])
    model = make_objective(settings, task["seed"])
    batch = make_batch(settings, task["rows"], task["seconds"], task["seed"])
    turns.report = {"audio_s": task["rows"] * task["seconds"]}

    with TemporaryDirectory() as folder, suppress(Enough):
        fit(model, OneBatch(batch, turns), settings.optim, settings.train, Path(folder, "run"))


def their_updates(task: Table, turns: Turns) -> None:
    """Train transformers' model as in their example, one update in each turn."""
    folder = Path(task["folder"])
    settings = pretraining(task["size"])
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
            mask = ready[number]["mask"]
            negatives = ready[number]["negatives"]

            optimizer.zero_grad()
            loss = model(inputs, mask_time_indices=mask, sampled_negative_indices=negatives).loss
            (loss / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optim.clip_norm)
            optimizer.step()


def bench_pretrain(options: argparse.Namespace) -> Table:
    """Time updates in turn; our ``tiny`` stands beside their small."""
    is_tiny = options.size == "tiny"
    their_size = "small" if is_tiny else options.size
    their_batch = BATCHES[their_size]
    our_batch = their_batch
    if is_tiny:
        our_batch = (int(pretraining("tiny").batch.seconds // TINY_CHUNK_S), TINY_CHUNK_S)

    audio = []
    for rows, seconds in (our_batch, their_batch):
        audio.append((options.rows or rows, options.seconds or seconds))
    (our_rows, our_seconds), (their_rows, their_seconds) = audio

    common = {"threads": options.threads, "seed": options.seed}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        task = common | {"size": their_size, "rows": their_rows, "seconds": their_seconds}
        task |= {"folder": folder, "updates": WARM_UP + options.repeats}
        with side("make_pretraining", **task) as maker:
            made = maker.turn()

        own = common | {"size": options.size, "rows": our_rows, "seconds": our_seconds}
        sides = {OURS: side("our_updates", **own), THEIRS: side("their_updates", **task)}
        for each in sides.values():
            stack.enter_context(each)
        replies = alternate(sides, WARM_UP, options.repeats)

    torch.set_num_threads(options.threads)
    best = matmul_peak(torch.device("cpu"))

    measured = {name: measures(found) for name, found in replies.items()}
    for name, found in measured.items():
        # Our tiny is another architecture: `speechssl bench pretrain` counts its operations.
        if name != OURS or not is_tiny:
            found["share"] = made["flops"] * found["audio_s_per_s"]["median"] / best

    table: Table = {
        "bench": "pretrain",
        "about": {
            "size": options.size,
            "repeats": options.repeats,
            "attention": replies[THEIRS][0]["attention"],
            "loss_difference": made["loss_difference"],
            "gradient_difference": made["gradient_difference"],
            "batch": dict(zip((OURS, THEIRS), audio, strict=True)),
        },
        "machine": machine(keep_memory=options.keep_memory, **common),
        "matmul_peak": best,
        "flops_per_audio_s": made["flops"],
        "sides": measured,
    }
    return table | compared(replies, best_peer(measured))


# --- transcription ---


def make_recognisers(task: Table, turns: Turns) -> None:
    """Make a recogniser of ours and its export, which is refused if it differs.

    Its weights are random unless a model is given.
    """
    from speechssl.interop.convert import export_model

    folder = Path(task["folder"])
    for _ in turns:
        if task["model"] is None:
            ours = folder / "ours"
            save_random_recogniser(ours, task["size"], task["seed"])
        else:
            ours = model_folder(Path(task["model"]))

        exported = export_model(ours, folder / "theirs", "hf")
        turns.report = {"ours": str(ours), "difference": exported.difference}


def save_random_recogniser(folder: Path, size: str, seed: int) -> None:
    """Save a recogniser of English letters with random weights."""
    settings = resolve_settings(FinetuneSettings, "base", {"encoder": ENCODERS[size]})
    tokenizer = CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz"])
    torch.manual_seed(seed)
    model = CtcModel(Encoder(settings.encoder), tokenizer, settings.normaliser, settings.ctc)
    save_ctc(model, folder, {})


def our_texts(task: Table, turns: Turns) -> None:
    """Transcribe the first recording in the first turn, the last one from then on."""
    model = load_ctc(Path(task["model"]))
    for number in turns:
        path = recording_of(task, number)
        (result,) = transcribe(model, [path])
        if isinstance(result, Failure):
            raise ConfigError(f"{result.path}: {result.error}")
        turns.report = {"audio_s": result.duration_s, "characters": len(result.text)}


def their_texts(task: Table, turns: Turns) -> None:
    """Transcribe as ``our_texts`` does, with transformers' pipeline."""
    with quiet_transformers() as transformers:
        recognise = transformers.pipeline(
            "automatic-speech-recognition",
            model=task["model"],
            device="cpu",
            chunk_length_s=30,
            batch_size=task["batch"],
        )
        for number in turns:
            samples, rate = soundfile.read(recording_of(task, number), dtype="float32")
            text = recognise({"raw": samples, "sampling_rate": rate})["text"]
            turns.report = {"audio_s": len(samples) / rate, "characters": len(text)}


def recording_of(task: Table, turn: int) -> str:
    """Name the recording of a turn: the last one when all have had theirs."""
    last = len(task["audio"]) - 1
    path: str = task["audio"][min(turn, last)]
    return path


def write_joined(paths: Sequence[Path], seconds: float, out: Path) -> Path:
    """Join all recordings to one WAV of so many seconds, again and again if they are shorter."""
    files = deque(find_audio(paths))
    left = round(seconds * RATE)
    with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16") as joined:
        while left:
            if not files:
                names = ", ".join(map(str, paths))
                raise ConfigError(f"no recording that can be read in {names}: give other files")

            path = files.popleft()
            try:
                samples = load_audio(path, RATE)[:left]
            except AudioError as error:
                print(f"left out: {path}: {error}", file=sys.stderr)
                continue

            # An empty recording would be taken again for ever.
            if len(samples):
                files.append(path)
                joined.write(samples)
                left -= len(samples)
    return out


def bench_transcribe(options: argparse.Namespace) -> Table:
    """Time one long recording in turn; then measure our memory for other lengths, alone."""
    common = {"threads": options.threads, "seed": options.seed}
    seconds = 3600 * options.hours
    source = str(options.model) if options.model else None

    with TemporaryDirectory() as folder, ExitStack() as stack:
        task = common | {"folder": folder, "size": options.size, "model": source}
        with side("make_recognisers", **task) as maker:
            made = maker.turn()

        joined = write_joined(options.audio, seconds, Path(folder, "joined.wav"))
        warm = write_joined([joined], min(60.0, seconds), Path(folder, "warm.wav"))
        audio = [str(warm), str(joined)]

        sides = {OURS: side("our_texts", model=made["ours"], audio=audio, **common)}
        their_task = common | {"model": str(Path(folder, "theirs")), "audio": audio}
        for size in PIPELINE_BATCHES:
            sides[f"{THEIRS}, batches of {size}"] = side("their_texts", batch=size, **their_task)
        for each in sides.values():
            stack.enter_context(each)
        replies = alternate(sides, 1, options.repeats)

        memory = {}
        for minutes in options.memory:
            path = write_joined([joined], 60 * minutes, Path(folder, "other.wav"))
            with side("our_texts", model=made["ours"], audio=[str(path)], **common) as alone:
                memory[f"{minutes:g} minutes"] = alone.turn()["peak_gb"]

    measured = {name: measures(found) for name, found in replies.items()}
    table: Table = {
        "bench": "transcribe",
        "about": {
            "model": source or f"{options.size}, random weights",
            "difference": made["difference"],
            "audio_s": replies[OURS][0]["audio_s"],
            "repeats": options.repeats,
        },
        "machine": machine(keep_memory=options.keep_memory, **common),
        "sides": measured,
    }
    table |= compared(replies, best_peer(measured))
    if memory:
        table["our_peak_gb"] = memory
    return table


# --- what is told ---


def as_text(table: Table) -> str:
    """Write for people what ran and where, and a Markdown table."""
    lines = []
    for part in ("about", "machine"):
        lines.append(", ".join(f"{name} {value}" for name, value in table[part].items()))

    rows: list[list[object]] = []
    for name, found in table["sides"].items():
        keys = ("peak_gb", "increase_gb", "cores", "cores_in_kernel")
        numbers = [f"{found[key]:.2f}" for key in keys]
        share = f"{found['share']:.1%}" if "share" in found else ""
        rows.append([name, Spread(**found["audio_s_per_s"]), *numbers, share])

    peak_ratio = f"{table['peak_gb_ratio']:.2f}"
    increase_ratio = f"{table['increase_gb_ratio']:.2f}"
    speed_ratio = Spread(**table["speed_ratio"])
    name = f"{OURS} / {table['peer']}"
    rows.append([name, speed_ratio, peak_ratio, increase_ratio, "", "", ""])

    header = (
        "",
        "seconds of audio per second",
        "peak, GB",
        "increase, GB",
        "cores",
        "in kernel",
        "share of the best",
    )
    # Only pretraining counts operations.
    has_share = "matmul_peak" in table
    shown = len(header) if has_share else len(header) - 1
    lines.append("\n" + text_table(header[:shown], [row[:shown] for row in rows]))

    if has_share:
        lines.append(
            f"best matrix product {table['matmul_peak'] / 1e9:.0f} GFLOP/s; "
            f"{table['flops_per_audio_s'] / 1e9:.2f} GFLOP per second of audio"
        )
    for length, peak in table.get("our_peak_gb", {}).items():
        lines.append(f"our peak for a recording of {length}: {peak:.3f} GB")
    return "\n".join(lines)


def work(arguments: str) -> None:
    """Run the process of a ``Side``."""
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
    by_name = {function.__name__: function for function in functions}
    by_name[task["work"]](task, Turns())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=2, help="of torch, in both")
    common.add_argument("--seed", type=int, default=0)
    keep_help = "both processes keep the memory that they free, where the C library is glibc"
    common.add_argument("--keep-memory", action="store_true", help=keep_help)
    common.add_argument("--json", type=Path, help="also write everything here")
    verbs = parser.add_subparsers(required=True)

    pretrain_help = "updates of the contrastive objective"
    pretrain = verbs.add_parser("pretrain", parents=[common], help=pretrain_help)
    pretrain.add_argument("--size", choices=[*ENCODERS, "tiny"], default="small")
    pretrain.add_argument("--repeats", type=int, default=5, help="timed updates of each")
    pretrain.add_argument("--rows", type=int, help="utterances of an update, in both")
    pretrain.add_argument("--seconds", type=float, help="of each utterance, in both")
    pretrain.set_defaults(run=bench_pretrain)

    long_one = verbs.add_parser("transcribe", parents=[common], help="one long recording")
    long_one.add_argument("audio", type=Path, nargs="+", help="files and folders that are joined")
    long_one.add_argument("--hours", type=float, default=1.0, help="of the joined recording")
    long_one.add_argument("--size", choices=ENCODERS, default="small", help="of random weights")
    long_one.add_argument("--model", type=Path, help="a recogniser of ours instead, waveform")
    long_one.add_argument("--repeats", type=int, default=3, help="timed passes of each")
    memory_help = "also our peak for so many minutes"
    long_one.add_argument("--memory", type=float, nargs="+", default=[], help=memory_help)
    long_one.set_defaults(run=bench_transcribe)

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
