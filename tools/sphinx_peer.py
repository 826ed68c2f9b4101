"""A GMM-HMM of the same labelled minutes, with the same language model: sphinxtrain, pocketsphinx.

    python tools/sphinx_peer.py check
    python tools/sphinx_peer.py train STORE MODEL --audio FOLDER --lexicon LEXICON
        [--minutes 10] [--seed 0] [--senones 200] [--gaussians 8]
    python tools/sphinx_peer.py evaluate MODEL STORE OUT --audio FOLDER --lm ARPA [--split test]

FOLDER is what STORE was prepared from: a store of log-mel rows holds no samples. The labelled
minutes are those of `speechssl finetune --minutes N --set train.seed=S`, and LEXICON is what its
`--tokenizer phones:LEXICON` takes. `evaluate` finds the weight of the language model and the word
insertion on dev, reads SPLIT once with them, and writes what `speechssl evaluate` writes, so that
`speechssl compare` takes OUT. `check` says whether Debian's packages sphinxtrain and
sphinxbase-utils and the Python package pocketsphinx are installed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sphinx_decode import evaluate
from sphinx_train import PeerSettings, require_packages, train

from speechssl.errors import SpeechsslError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="exit code 1 where something is not installed")

    training = commands.add_parser("train", help="train a model")
    training.add_argument("store", type=Path)
    training.add_argument("model", type=Path)
    training.add_argument("--audio", type=Path, required=True)
    training.add_argument("--lexicon", type=Path, required=True)
    training.add_argument("--minutes", type=float)
    training.add_argument("--seed", type=int, default=PeerSettings.seed)
    training.add_argument("--senones", type=int, default=PeerSettings.senones)
    training.add_argument("--gaussians", type=int, default=PeerSettings.gaussians)

    evaluation = commands.add_parser("evaluate", help="tune on dev and score a split")
    evaluation.add_argument("model", type=Path)
    evaluation.add_argument("store", type=Path)
    evaluation.add_argument("out", type=Path)
    evaluation.add_argument("--audio", type=Path, required=True)
    evaluation.add_argument("--lm", type=Path, required=True)
    evaluation.add_argument("--split", default="test")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, train or evaluate; exit code 1 with one line if that cannot be done."""
    given = parse(argv)
    try:
        if given.command == "check":
            require_packages()
        elif given.command == "train":
            settings = PeerSettings(given.minutes, given.seed, given.senones, given.gaussians)
            print(train(given.store, given.model, given.audio, given.lexicon, settings))
        else:
            done = evaluate(given.model, given.store, given.out, given.audio, given.lm, given.split)
            print(done)
    except SpeechsslError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    return 0


if __name__ == "__main__":
    sys.exit(main())
