"""Show that the tests can fail: plant mistakes of known implementations in a copy, one at a time.

python tools/mutate.py          every mistake
python tools/mutate.py 3 5      only these
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("speechssl", "tests", "tools", "docs", "recipes", "README.md", "pyproject.toml")
# Tests that take half a minute and look for none of these mistakes.
SLOW = "sigkill or sigterm or learns_a_toy_language"
# Processes at a time; each needs about 1 GB.
JOBS = min(2, os.cpu_count() or 1)
# Seconds after which the tests of a mutant are stopped.
TIMEOUT_S = 600
# A test that stops for one of these has met broken code, not the mistake.
BROKEN = (
    "NameError",
    "UnboundLocalError",
    "AttributeError",
    "ImportError",
    "ModuleNotFoundError",
    "TypeError",
)
# Messages of tests that compared something.
ASSERTED = ("AssertionError", "assert ", "Failed: DID NOT RAISE")
# The process that tests also says which file it imported. Hypothesis gives the same verdict each
# time, and does not look for the smallest example that fails.
RUN = """
import importlib, sys, pytest
class Profile:
    def pytest_configure(self):
        from hypothesis import Phase, settings
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutate", phases=phases, derandomize=True)
        settings.load_profile("mutate")
print(importlib.import_module(sys.argv[1]).__file__, flush=True)
sys.exit(pytest.main(sys.argv[2:], plugins=[Profile()]))
"""


@dataclass(frozen=True)
class Mutant:
    """One form of a mistake."""

    label: str
    """The mistake's number, and a letter for its form."""
    mistake: str
    file: str
    """In the tree, with slashes."""
    old: str
    """Occurs exactly once in the file."""
    new: str
    elsewhere: str = ""
    """The test file that must notice; empty = the module's own."""

    @property
    def number(self) -> int:
        """1 to 7."""
        return int(self.label[:-1])

    @property
    def test_file(self) -> str:
        """What is run."""
        if self.elsewhere:
            return self.elsewhere

        _, *rooms, file = Path(self.file).parts
        return str(Path("tests", *rooms, f"test_{file}"))


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a tree."""

    result: Literal["caught", "SURVIVED", "ERROR"]
    """SURVIVED: every test passed. ERROR: nothing is shown, the mutant or the tool is wrong."""
    by: str
    """The test that failed, or what went wrong."""
    seconds: float = 0.0


class MutantError(Exception):
    """A mutant that does not fit the code."""


CHECKPOINT = "speechssl/storage/checkpoint.py"
CTC = "speechssl/recognition/model.py"
CONTEXT = "speechssl/encoder/context.py"
FRONT_END = "speechssl/encoder/front_end.py"
KERNELS = "speechssl/encoder/kernels.py"
PADDING = "speechssl/encoder/padding.py"
ENCODER = "speechssl/encoder/encoder.py"
MASKED = "speechssl/pretraining/masked_prediction.py"
NORM = "speechssl/encoder/norm.py"
OPTIM = "speechssl/training/optim.py"
PRETRAINING = "speechssl/pretraining/contrastive.py"
QUANTIZER = "speechssl/pretraining/quantizer.py"
RUN_FOLDER = "speechssl/training/run_folder.py"
TRAIN = "speechssl/training/loop.py"
INVARIANCE = "tests/test_invariance.py"
ENCODER_TESTS = "tests/encoder/test_encoder.py"
FINETUNE_TESTS = "tests/recognition/test_finetune.py"

MUTANTS = (
    Mutant(
        "1a",
        "masks reach into the padding",
        MASKED,
        "span_mask(count, config, rng) for count, rng",
        "span_mask(length, config, rng) for count, rng",
        INVARIANCE,
    ),
    Mutant(
        "1b",
        "negatives drawn from padded slots too",
        PRETRAINING,
        "sample_negatives(count, num_negatives, rng)",
        "sample_negatives(masked.frames.shape[1], num_negatives, rng)[:count]",
        INVARIANCE,
    ),
    Mutant(
        "1c",
        "feature penalty over padded frames",
        PRETRAINING,
        "of_valid = mean_squares * valid",
        "of_valid = mean_squares",
    ),
    Mutant(
        "1d",
        "GroupNorm over padded frames",
        NORM,
        "windows[:count].double()",
        "windows.double()",
    ),
    Mutant(
        "1e",
        "inputs normalised over padding too",
        PADDING,
        "valid = valid_mask(num_valid, length, device)[..., None]",
        "valid = torch.ones_like(inputs[..., :1])\n"
        "    num_valid = torch.full_like(num_valid, length)",
    ),
    Mutant(
        "1f",
        "attention to padded frames",
        KERNELS,
        "attn_mask=attend",
        "attn_mask=None",
    ),
    Mutant(
        "1g",
        "positional convolution over padded frames",
        CONTEXT,
        "hidden = hidden * valid[..., None]",
        "hidden = hidden",
        ENCODER_TESTS,
    ),
    Mutant(
        "1h",
        "attention with dropout to padded frames",
        KERNELS,
        "counts = num_frames.tolist()",
        "counts = [key.shape[2]] * len(num_frames)",
    ),
    Mutant(
        "2a",
        "number of spans set by the batch's shortest utterance",
        MASKED,
        "span_mask(count, config, rng) for count, rng",
        "span_mask(\n"
        "        count,\n"
        '        config.model_copy(update={"prob": config.prob * min(num_frames) / count}),\n'
        "        rng,\n"
        "    ) for count, rng",
        INVARIANCE,
    ),
    Mutant(
        "2b",
        "frames un-masked until all utterances have as many",
        MASKED,
        "    counts = [int(own_mask.sum()) for own_mask in masks]\n",
        "    fewest = min(int(m.sum()) for m in masks)\n"
        "    for m, rng in zip(masks, rngs, strict=True):\n"
        "        m[rng.choice(np.flatnonzero(m), int(m.sum()) - fewest, replace=False)] = False\n"
        "    counts = [fewest] * len(masks)\n",
        INVARIANCE,
    ),
    Mutant(
        "2c",
        "fine-tuning: spans of the batch's shortest utterance",
        CTC,
        "time_mask[row, :count] = span_mask(count, self.config.time_mask, rng)",
        "fewest = min(num_frames)\n"
        "            time_mask[row, :fewest] = span_mask(fewest, self.config.time_mask, rng)",
    ),
    Mutant(
        "3a",
        "a negative may be the positive",
        PRETRAINING,
        "return others + moves_up",
        "return rng.integers(0, num_masked, size=others.shape, dtype=np.int64)",
    ),
    Mutant(
        "3b",
        "a negative may be the positive, off by one",
        PRETRAINING,
        "moves_up = others >= own_position",
        "moves_up = others > own_position",
    ),
    Mutant(
        "3c",
        "negatives of the previous utterance: offset M - 1 for M",
        PRETRAINING,
        "logits = similarity.gather(2, choices)",
        "offset = torch.arange(batch, device=device)[:, None, None] * (most_masked - 1)\n"
        "        everywhere = packed_predictions @ packed_targets.flatten(0, 1).T\n"
        "        others = everywhere.gather(2, choices[..., 1:] + offset)\n"
        "        logits = torch.cat([similarity.diagonal(dim1=1, dim2=2)[..., None], others], 2)",
    ),
    Mutant(
        "3d",
        "masked frames looked up with offset T - 1 for T",
        MASKED,
        "first_of_utterance = utterances * length",
        "first_of_utterance = utterances * (length - 1)",
    ),
    Mutant(
        "3e",
        "a negative with the positive's codes is kept",
        PRETRAINING,
        "return logits.masked_fill(same, -torch.inf)",
        "return logits",
    ),
    Mutant(
        "4a",
        "accumulated gradients rescaled at every micro-batch",
        TRAIN,
        "        output.total.backward()\n",
        "        for parameter in model.parameters():\n"
        "            if parameter.grad is not None:\n"
        "                parameter.grad.div_(max(1, output.weight))\n"
        "        output.total.backward()\n",
    ),
    Mutant(
        "4b",
        "every micro-batch counts alike, whatever its weight",
        TRAIN,
        "        output.total.backward()\n",
        "        (output.total / max(1, output.weight)).backward()\n",
    ),
    Mutant(
        "4c",
        "the objective ignores the whole step's diversity",
        PRETRAINING,
        "whole = statistics or own",
        "whole = own",
        INVARIANCE,
    ),
    Mutant(
        "4d",
        "the loop does not hand out the whole step's diversity",
        TRAIN,
        "output = model(batch, step, statistics)",
        "output = model(batch, step, None)",
        INVARIANCE,
    ),
    Mutant(
        "5a",
        "targets detached",
        PRETRAINING,
        "targets = self.target_projection(quantized.vectors)",
        "targets = self.target_projection(quantized.vectors).detach()",
    ),
    Mutant(
        "5b",
        "code vectors detached: only their projection learns",
        PRETRAINING,
        "targets = self.target_projection(quantized.vectors)",
        "targets = self.target_projection(quantized.vectors.detach())",
    ),
    Mutant(
        "5c",
        "no straight-through gradient: the choice of codes never learns",
        QUANTIZER,
        "choice = hard - soft.detach() + soft",
        "choice = hard",
    ),
    Mutant(
        "5d",
        "the codebook is a constant",
        QUANTIZER,
        "nn.Parameter(codebook)",
        "nn.Parameter(codebook, requires_grad=False)",
    ),
    Mutant(
        "5e",
        "the extractor gets no gradient through its targets",
        PRETRAINING,
        "frames = self._target_frames(batch, normed)",
        "frames = self._target_frames(batch, normed).detach()",
    ),
    Mutant(
        "6a",
        "weight_decay not given to the optimiser",
        OPTIM,
        "weight_decay=config.weight_decay,",
        "weight_decay=0.0,",
    ),
    Mutant(
        "6b",
        "the loop drops the weight_decay of its settings",
        TRAIN,
        "if p.requires_grad], optim)",
        'if p.requires_grad], optim.model_copy(update={"weight_decay": 0.0}))',
    ),
    Mutant(
        "6c",
        "a model folder without the CTC head",
        CTC,
        "save_folder(path, model.state_dict(), record",
        "save_folder(path, "
        '{n: t for n, t in model.state_dict().items() if "head" not in n}, record',
    ),
    Mutant(
        "6d",
        "a checkpoint without the CTC head",
        RUN_FOLDER,
        "for name, value in model.state_dict().items()}",
        'for name, value in model.state_dict().items() if not name.startswith("head.")}',
        FINETUNE_TESTS,
    ),
    Mutant(
        "7a",
        "a missing weight stays random",
        CHECKPOINT,
        "    own = module.state_dict()\n",
        "    own = module.state_dict()\n    tensors = own | dict(tensors)\n",
    ),
    Mutant(
        "7b",
        "a renamed weight stays random, as with weight norm in torch 2.1",
        CHECKPOINT,
        "    own = module.state_dict()\n",
        "    own = module.state_dict()\n"
        "    tensors = {n: tensors.get(n, t) for n, t in own.items()}\n",
    ),
    Mutant(
        "7c",
        "a recogniser loads what fits",
        CTC,
        "load_into(model, tensors, str(folder))",
        "model.load_state_dict(tensors, strict=False)",
    ),
    Mutant(
        "7d",
        "fine-tuning takes of a pretrained encoder what fits",
        ENCODER,
        "load_into(encoder, of_the_encoder, str(folder))",
        "encoder.load_state_dict(of_the_encoder, strict=False)",
        FINETUNE_TESTS,
    ),
    Mutant(
        "7e",
        "a pretrained encoder is not loaded at all",
        ENCODER,
        "load_into(encoder, of_the_encoder, str(folder))",
        "encoder.load_state_dict(tensors, strict=False)",
        FINETUNE_TESTS,
    ),
    Mutant(
        "7f",
        "a resumed run takes of a checkpoint what fits",
        RUN_FOLDER,
        "load_into(model, weights, str(path))",
        "model.load_state_dict(weights, strict=False)",
    ),
)


def mutated(mutant: Mutant, tree: Path) -> str:
    """Return the text of the mutant's file with the mistake in it.

    Raises:
        MutantError: its text is not there exactly once.
    """
    text = (tree / mutant.file).read_text(encoding="utf-8")
    count = text.count(mutant.old)
    if count != 1:
        raise MutantError(
            f"{mutant.label} ({mutant.mistake}): {mutant.old.strip()!r} stands {count} times in "
            f"{mutant.file}, not once: the code moved, so update the mutant"
        )
    return text.replace(mutant.old, mutant.new)


def copy_tree(source: Path, target: Path) -> Path:
    """Copy what the tests need, without leftovers of Python."""
    target.mkdir(parents=True)
    leftovers = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=leftovers)
        elif (source / name).is_file():
            shutil.copy2(source / name, target / name)
    return target


def run_tests(tree: Path, file: str, tests: Iterable[str]) -> Outcome:
    """Run tests of a copy.

    Args:
        tree: the copy.
        file: a file of the package. That the tests import it from the copy is checked.
        tests: test files.
    """
    started = time.monotonic()
    report = tree / "report.xml"
    module = file.removesuffix(".py").replace("/", ".")

    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-k", f"not ({SLOW})"]
    options += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
    command = [sys.executable, "-c", RUN, module, *tests, *options]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=_environment(tree),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Outcome("ERROR", f"not finished after {TIMEOUT_S} s", TIMEOUT_S)
    seconds = time.monotonic() - started

    imported, _, output = done.stdout.partition("\n")
    if not imported:
        why = f"{module} does not import: {_last_line(done.stderr)}"
        return Outcome("ERROR", why, seconds)
    if Path(imported).resolve() != (tree / file).resolve():
        why = f"{module} was imported from {imported}, not from the copy"
        return Outcome("ERROR", why, seconds)

    if done.returncode == 0:
        return Outcome("SURVIVED", "", seconds)

    failed = _failures(report) if report.exists() else []
    # Exit code 1 with a failure is a test that said no. Anything else is collection, a fixture or
    # pytest itself.
    if done.returncode != 1 or not failed:
        why = _last_line(output + done.stderr)
        why = f"no test failed, but pytest ended with {done.returncode}: {why}"
        return Outcome("ERROR", why, seconds)
    return _verdict(failed, seconds)


def _environment(tree: Path) -> dict[str, str]:
    """Variables under which Python finds the copy first, with one thread."""
    search = [str(tree)]
    if os.environ.get("PYTHONPATH"):
        search.append(os.environ["PYTHONPATH"])
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(search),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _verdict(failed: Sequence[tuple[str, str]], seconds: float) -> Outcome:
    """Judge failed tests, given their ids and messages: was it the mistake, or broken code?"""
    sound = [failure for failure in failed if not failure[1].startswith(BROKEN)]
    if not sound:
        why = f"broken code, not a mistake: {': '.join(failed[0])}"
        return Outcome("ERROR", why, seconds)

    # A test that compares says more than one that stumbles over the consequences.
    by = min(sound, key=lambda failure: not failure[1].startswith(ASSERTED))[0]
    if len(failed) > 1:
        by += f" and {len(failed) - 1} more"
    return Outcome("caught", by, seconds)


def _failures(report: Path) -> list[tuple[str, str]]:
    """Read id and message of the tests that failed themselves, not in a fixture."""
    found: list[tuple[str, str]] = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - written by our own pytest
        test_id = f"{case.get('file')}::{case.get('name')}"
        for failure in case.iter("failure"):
            found.append((test_id, failure.get("message", "")))
    return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def run_mutant(mutant: Mutant, source: Path) -> Outcome:
    """Plant one mistake in a copy of ``source`` and run its tests there."""
    with TemporaryDirectory(prefix=f"mutant-{mutant.label}-") as folder:
        tree = copy_tree(source, Path(folder, "tree"))
        text = mutated(mutant, tree)
        (tree / mutant.file).write_text(text, encoding="utf-8")
        return run_tests(tree, mutant.file, [mutant.test_file])


def run_baseline(mutants: Sequence[Mutant], source: Path) -> Outcome:
    """Run the same tests without a mistake: if they failed, a failure would show nothing."""
    test_files = sorted({mutant.test_file for mutant in mutants})
    with TemporaryDirectory(prefix="no-mutant-") as folder:
        tree = copy_tree(source, Path(folder, "tree"))
        return run_tests(tree, mutants[0].file, test_files)


def _row(mutant: Mutant, outcome: Outcome) -> str:
    """Write a line of the table."""
    about = f"{mutant.label:<3} {mutant.mistake:<63} {mutant.file:<25}"
    return f"{about} {outcome.result:<8} {outcome.seconds:>4.0f} s  {outcome.by}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    mutants = _chosen_mutants(arguments)

    with TemporaryDirectory(prefix="mutate-") as folder, ThreadPoolExecutor(JOBS) as pool:
        # One copy for all, so that they share a state of the code whoever edits it meanwhile.
        source = copy_tree(ROOT, Path(folder, "tree"))
        # All are tried before the first test runs, so that one that does not fit costs no time.
        for mutant in mutants:
            mutated(mutant, source)

        baseline = pool.submit(run_baseline, mutants, source)
        outcomes = [pool.submit(run_mutant, mutant, source) for mutant in mutants]

        before = baseline.result()
        if before.result != "SURVIVED":
            pool.shutdown(cancel_futures=True)
            print(f"the tests fail without any mistake, so they show nothing: {before.by}")
            return 1
        print(f"without a mistake the tests pass ({before.seconds:.0f} s)", flush=True)

        missed: list[str] = []
        for mutant, future in zip(mutants, outcomes, strict=True):
            outcome = future.result()
            print(_row(mutant, outcome), flush=True)
            if outcome.result != "caught":
                missed.append(mutant.label)

    num_mistakes = len({mutant.number for mutant in mutants})
    print(
        f"planted: {num_mistakes} of the mistakes in {len(mutants)} forms; "
        f"not caught: {', '.join(missed) or 'none'}"
    )
    return 1 if missed else 0


def _chosen_mutants(arguments: Sequence[str] | None) -> list[Mutant]:
    """Read the command line: the mutants of the mistakes that it numbers, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "numbers", type=int, nargs="*", metavar="NUMBER", help="mistakes to plant (default: all)"
    )
    chosen = set(parser.parse_args(arguments).numbers)

    known = {mutant.number for mutant in MUTANTS}
    unknown = sorted(chosen - known)
    if unknown:
        parser.error(f"no mistake {unknown[0]}: there are {min(known)} to {max(known)}")
    return [mutant for mutant in MUTANTS if not chosen or mutant.number in chosen]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MutantError as error:
        sys.exit(f"error: {error}")
