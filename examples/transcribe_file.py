"""Transcribe recordings with a recogniser, and print the words with their times.

    python examples/transcribe_file.py MODEL RECORDING...

MODEL is a run or model folder of fine-tuning. If it holds a language model, that is used. To try it
without data, take the folder ``recogniser`` that ``pretrain_and_finetune.py`` makes, and a
recording of its folder ``corpus``.
"""

import sys
from pathlib import Path

import speechssl as ssl


def main(model: Path, recordings: list[Path]) -> None:
    recogniser = ssl.load_recogniser(model)

    for recording in recordings:
        transcript = recogniser.transcribe(recording)
        print(f"{recording} ({transcript.duration_s:.1f} s): {transcript.text}")

        for segment in transcript.segments:
            for word in segment.words:
                times = f"{word.start:6.2f} .. {word.end:6.2f}"
                print(f"  {times}  {word.probability:.2f}  {word.text}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
