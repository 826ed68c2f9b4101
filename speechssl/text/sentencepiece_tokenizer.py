"""Subword pieces, by the library SentencePiece."""

import io
import re
from collections.abc import Iterable, Sequence

from speechssl.errors import CheckpointError, ConfigError
from speechssl.storage.json_text import json_line
from speechssl.text.tokenizer import (
    BLANK_TEXT,
    TOKENIZER_FILE,
    UNK_ID,
    UNK_TEXT,
    Tokenizer,
    single_characters,
    single_spaced,
    training_lines,
)

SENTENCEPIECE_FILE = "tokenizer.model"

# Unicode has given this code point away for no character, so that no text holds it.
_NO_CHARACTER = "\ufdd0"


class SentencePieceTokenizer(Tokenizer):
    """Subword pieces of a SentencePiece model, shifted by one id to make room for the blank."""

    def __init__(self, model: bytes) -> None:
        """``model``: a serialised SentencePiece model whose unknown piece has id 0.

        Raises:
            CheckpointError: not such a model.
        """
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise CheckpointError("not a SentencePiece model: write the tokenizer again") from error

        num_pieces = self._processor.get_piece_size()
        unknown_piece = self._processor.unk_id()
        if unknown_piece != UNK_ID - 1:
            raise CheckpointError(
                f"the SentencePiece model has its unknown piece at {unknown_piece}, not 0"
            )

        pieces = []
        for i in range(UNK_ID, num_pieces):
            piece = self._processor.id_to_piece(i)
            pieces.append(piece.replace("▁", " "))

        self.model = model
        self.size = num_pieces + 1
        self.texts = (BLANK_TEXT, UNK_TEXT, *pieces)
        self.alphabet = single_characters(pieces)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, model_type: str
    ) -> "SentencePieceTokenizer":
        """Train a model of the words in ``texts``; the same texts give the same bytes.

        Args:
            vocab_size: number of pieces, the unknown piece included and the blank not (``size`` is
                one more).
            model_type: "bpe" or "unigram".

        Raises:
            ConfigError: ``vocab_size`` is too small or too large for these texts (the limit is
                named), the texts are empty, or they hold a character that SentencePiece reserves.
        """
        from sentencepiece import SentencePieceTrainer

        if model_type not in ("bpe", "unigram"):
            raise ConfigError(
                f"unknown SentencePiece model type {model_type!r}: choose bpe or unigram"
            )

        lines = training_lines(texts)
        longest = max(len(line.encode()) for line in lines)  # bytes of UTF-8
        # Longer lines it drops silently; below 10 it refuses to train.
        max_line_bytes = max(10, longest + 1)

        model = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=model_type,
                vocab_size=vocab_size,
                character_coverage=1.0,
                # Normalising is the work of ``normalise``, and is done once only.
                normalization_rule_name="identity",
                max_sentence_length=max_line_bytes,
                # The sums of unigram training depend on the number of threads.
                num_threads=1,
                unk_id=UNK_ID - 1,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            advice = _vocabulary_advice(str(error), f"{model_type}:{vocab_size}")
            raise ConfigError(advice) from error

        tokenizer = cls(model.getvalue())
        lost: set[str] = set()
        for line in lines:
            lost |= tokenizer.unknown(line)

        if lost:
            first_few = sorted(lost)[:3]
            raise ConfigError(
                f"SentencePiece cannot spell {first_few}: "
                "remove these characters, or use basic-2 or chars"
            )

        return tokenizer

    def encode(self, text: str) -> list[int]:
        pieces = self._processor.encode(single_spaced(text))
        return [piece + 1 for piece in pieces]

    def encode_inside(self, text: str) -> list[int]:
        """Return the ids of ``text`` where it follows other text without a space.

        ``encode`` begins with a space. Here an unknown character begins instead: no piece reaches
        over it, and what follows is divided as it would be inside a longer text.
        """
        ids = self.encode(_NO_CHARACTER + text)
        begin = ids.index(UNK_ID) + 1
        return ids[begin:]

    def decode(self, ids: Sequence[int]) -> str:
        pieces = [i - 1 for i in self.without_blanks(ids)]
        return single_spaced(self._processor.decode(pieces))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "sentencepiece", "size": self.size}
        return {TOKENIZER_FILE: json_line(table).encode(), SENTENCEPIECE_FILE: self.model}


def _vocabulary_advice(message: str, spec: str) -> str:
    """Turn SentencePiece's reason, which is prose with its source line, into one line of ours."""
    largest = re.search(r"too high.*<= (\d+)", message)
    if largest:
        return (
            f"tokenizer {spec} has more pieces than these texts support: "
            f"use at most {largest[1]}, or chars"
        )

    smallest = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if smallest:
        return (
            f"tokenizer {spec} has fewer pieces than these texts have characters: "
            f"use at least {smallest[1]}, or chars"
        )

    return f"tokenizer {spec} cannot be trained on these texts: {message}"
