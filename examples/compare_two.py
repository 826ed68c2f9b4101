"""Compare two recognisers on the same recordings.

    python examples/compare_two.py MODEL_A MODEL_B STORE

MODEL_A and MODEL_B are run or model folders of fine-tuning. STORE has a test split with
transcripts.
``speechssl evaluate`` and ``speechssl compare`` do more: they also say whether the difference is
larger than chance.
"""

import sys
from pathlib import Path

import speechssl as ssl


def main(model_a: Path, model_b: Path, store: Path) -> None:
    # The best score of a recogniser is that with its language model, if it has one.
    a = ssl.load_recogniser(model_a).evaluate(store).best
    b = ssl.load_recogniser(model_b).evaluate(store).best

    for name, score in (("A", a), ("B", b)):
        low, high = score.wer_interval
        print(f"{name}: WER {score.wer:.1%} ({low:.1%} .. {high:.1%}), CER {score.cer:.1%}")

    # Both scores have one row for each utterance, in the order of their ids.
    pairs = list(zip(a.utterances, b.utterances, strict=True))
    better_a = sum(in_a.words.errors < in_b.words.errors for in_a, in_b in pairs)
    better_b = sum(in_b.words.errors < in_a.words.errors for in_a, in_b in pairs)
    equal = len(pairs) - better_a - better_b
    print(f"fewer word errors: A in {better_a} utterances, B in {better_b}, equal in {equal}")

    pairs.sort(key=lambda pair: abs(pair[0].words.errors - pair[1].words.errors), reverse=True)
    for in_a, in_b in pairs[:3]:
        print(f"said {in_a.reference!r}\n   A {in_a.hypothesis!r}\n   B {in_b.hypothesis!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
