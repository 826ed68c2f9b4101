"""Print the transcripts of the labelled minutes that fine-tuning would choose, a line each.

    python tools/chosen_texts.py STORE --minutes 10 [--seed 0]

They are normalised, and the same as texts.txt in the run folder of `speechssl finetune STORE
--minutes 10 --set train.seed=0`, for a language model that must be there before that run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.errors import SpeechsslError
from speechssl.recognition.settings import finetune_settings
from speechssl.recognition.training_set import choose_training_set


def chosen_texts(store: Path, minutes: float, seed: int) -> list[str]:
    """Choose utterances of the split train, and return their normalised transcripts."""
    opened = Store(store)
    train = Dataset([opened], ["train"])
    dev = Dataset([opened], ["dev"])
    settings = finetune_settings(None, None, {"minutes": minutes, "train": {"seed": seed}})
    return choose_training_set(train, dev, settings, labels=None, keep=1.0).texts


def main(argv: Sequence[str] | None = None) -> int:
    """Print them; exit code 1 with one line if that cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)

    try:
        texts = chosen_texts(given.store, given.minutes, given.seed)
    except SpeechsslError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    for text in texts:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
