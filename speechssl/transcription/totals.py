"""What is told of all transcripts together: what nobody would see in the texts."""

from dataclasses import dataclass, field

from speechssl.audio.channels import channels_line
from speechssl.recognition.remarks import RAW_CONFIDENCES
from speechssl.transcription.transcript import Transcript
from speechssl.transcription.wordless import LEAST_SOUND_S

# Less silence than this is not told, seconds.
LEAST_S = 0.1
# So many files are named.
NUM_NAMED = 3


@dataclass
class NamedFiles:
    """A number of files, of which the first are named."""

    num_files: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """Count one more file."""
        self.num_files += 1
        if len(self.first) < NUM_NAMED:
            self.first.append(path)

    def names(self) -> str:
        """Name the first files in brackets; empty where there are none."""
        if not self.first:
            return ""
        more = ", ..." if self.num_files > len(self.first) else ""
        return f" ({', '.join(self.first)}{more})"


@dataclass
class Totals:
    """What is told of all transcripts together.

    Attributes:
        num_files: files that were transcribed.
        num_dual_mono: files of several channels that are equal.
        num_averaged: files of several channels of which the mean was heard.
        without_text: files with sound in which no word was recognised.
        averaged_without_text: files of several channels, in whose mean no word was recognised.
        num_raw: files with words whose confidences are not scaled.
        duration_s: seconds of all files.
        silence_s: seconds of them that were left out as silence or steady noise.
        wordless_s: seconds of the rest in which no word was recognised.
        longest_wordless: the longest stretch of them: its file, from and until.
    """

    num_files: int = 0
    num_dual_mono: int = 0
    num_averaged: int = 0
    without_text: NamedFiles = field(default_factory=NamedFiles)
    averaged_without_text: NamedFiles = field(default_factory=NamedFiles)
    num_raw: int = 0
    duration_s: float = 0.0
    silence_s: float = 0.0
    wordless_s: float = 0.0
    longest_wordless: tuple[str, float, float] = ("", 0.0, 0.0)

    def add(self, transcript: Transcript) -> None:
        """Count one more transcript."""
        self.num_files += 1
        self.num_dual_mono += transcript.is_dual_mono
        self.num_averaged += transcript.is_averaged
        self.num_raw += bool(transcript.text) and not transcript.is_scaled
        self.duration_s += transcript.duration_s
        self.silence_s += transcript.silence_s
        self.wordless_s += transcript.wordless_s
        for start, end in transcript.wordless:
            _, longest_from, longest_until = self.longest_wordless
            if end - start > longest_until - longest_from:
                self.longest_wordless = (transcript.path, start, end)

        if not transcript.text and transcript.sound_s > 0:
            self.without_text.add(transcript.path)
        # Noise on one channel can make all of the mean steady, and leave no sound.
        if not transcript.text and transcript.is_averaged:
            self.averaged_without_text.add(transcript.path)

    def lines(self, with_confidences: bool = False) -> list[str]:
        """Say what nobody would see in the texts.

        Args:
            with_confidences: whether the texts are written with the confidences of words.
        """
        lines: list[str] = []
        channels = channels_line(self.num_files, self.num_dual_mono, self.num_averaged)
        if channels:
            lines.append(channels)

        if self.silence_s >= LEAST_S:
            lines.append(
                f"{self.silence_s:.1f} of {self.duration_s:.1f} s were left out as silence or "
                "steady noise (--silence-db)"
            )

        path, start, end = self.longest_wordless
        if self.without_text.num_files or end - start >= LEAST_SOUND_S:
            sound_s = self.duration_s - self.silence_s
            lines.append(
                f"no word was recognised in {self.wordless_s:.1f} of {sound_s:.1f} s of sound "
                f"(longest: {start:.1f} to {end:.1f} s of {path}); "
                f"{self.without_text.num_files} of {self.num_files} files have no text"
                f"{self.without_text.names()}: if there is speech in it, the recogniser may not be "
                "trained far enough (speechssl evaluate measures that)"
            )
        if self.averaged_without_text.num_files:
            lines.append(
                "no word was recognised in the mean of several channels of "
                f"{self.averaged_without_text.num_files} of {self.num_files} files"
                f"{self.averaged_without_text.names()}: noise on one channel may hide speech on "
                "another, so give a file of each channel (sox call.wav left.wav remix 1)"
            )
        if self.num_raw and with_confidences:
            lines.append(RAW_CONFIDENCES)
        return lines
