"""Pretrain an encoder and fine-tune it to a recogniser, on made-up speech, in about a minute.

    python examples/pretrain_and_finetune.py FOLDER

FOLDER gets the corpus, the store, and two run folders. If you stop the program, the same command
goes on where it was stopped.
"""

import sys
from pathlib import Path

from made_up_speech import make_corpus

import speechssl as ssl

# Small enough for a minute on a CPU. Everything else is as in the preset tiny.
SMALLER = {
    "encoder": {"channels": 64, "width": 96, "num_layers": 2, "ffn_width": 192},
    "batch": {"seconds": 10.0},
}
# So few updates of fine-tuning learn more from the recordings as they are than from changed ones.
UNCHANGED = {"tokens_per_frame": 1, "augment": {"tempo": 0.0, "mel_masks": 0}}
PRETRAIN_STEPS = 100
FINETUNE_STEPS = 300


def main(folder: Path, pretrain_steps: int, finetune_steps: int) -> float:
    """Run everything in ``folder``; returns the word error rate on the test split."""
    store = folder / "store"
    if not store.exists():
        ssl.prepare(make_corpus(folder / "corpus"), store)

    # Pretraining learns from the audio of the train split. It looks at no text. Reconstructing
    # masked rows is quicker to learn than the contrastive task, which is the default.
    changes = {**SMALLER, "task": "reconstruction", "train": {"steps": pretrain_steps}}
    settings = ssl.resolve_settings(ssl.PretrainSettings, "tiny", changes)
    ssl.pretrain([store], folder / "pretrained", settings)

    # Fine-tuning takes over the encoder and its settings, and learns from the transcripts.
    changes = {
        "batch": SMALLER["batch"],
        "ctc": UNCHANGED,
        "train": {"steps": finetune_steps},
    }
    tuning = ssl.finetune_settings(folder / "pretrained", None, changes)
    model = ssl.finetune([store], folder / "recogniser", tuning, init=folder / "pretrained")

    score = ssl.evaluate(model, ssl.Dataset([ssl.Store(store)], ["test"]))
    low, high = score.wer_interval
    print(f"word error rate {score.wer:.1%} (95 % interval {low:.1%} .. {high:.1%})")

    for utterance in score.utterances[:3]:
        print(f"  said {utterance.reference!r}, heard {utterance.hypothesis!r}")

    return score.wer


if __name__ == "__main__":
    main(Path(sys.argv[1]), PRETRAIN_STEPS, FINETUNE_STEPS)
