"""The recogniser that users hold: a model folder at work, with its language model.

The command line, its worker processes and Python programs all use this object, so that all of
them load and decode alike. It stands in this room because it evaluates and labels (the room
``recognition``) and transcribes: imports go down only.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from speechssl.audio.threshold import TOP_DB
from speechssl.config import Table, as_table
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.lexicon import are_joined
from speechssl.errors import AudioError, ConfigError
from speechssl.recognition.decoders import CtcDecoder, beam_decoder, greedy_decoder
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.evaluate import Evaluation, evaluate_decoders, with_transcripts
from speechssl.recognition.language_model import LM_FOLDER, lm_words, load_lm
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.pseudo_labels import Label, label
from speechssl.recognition.remarks import (
    RAW_CONFIDENCES,
    Unwritable,
    ask_if_paired,
    say_unheard,
    unwritable_characters,
    unwritable_words,
)
from speechssl.runtime.device import Device, pick_device
from speechssl.runtime.log import log
from speechssl.scoring.score import Score
from speechssl.storage.json_text import as_json
from speechssl.storage.saved_folders import RECORD, model_folder, stored_folder
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.tokenizer import UNK_TEXT
from speechssl.training.lineage import has_learned
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure, Transcript

# Hexadecimal digits of the digest that tells whose labels a file holds.
DIGEST_DIGITS = 16
# Weight of the language model, beside its own, in the search that tells how stable a label is.
# Words that stay rest on what was heard (docs/experiments/062).
HEAVIER = 1.5


class Recogniser:
    """A fine-tuned model and the language model of its folder, ready to use.

    >>> recogniser = speechssl.load_recogniser("runs/words")
    >>> recogniser.transcribe("interview.wav").text
    'good morning'

    Attributes:
        folder: the model folder.
        name: what the results call it.
        model: the network, on its device.
        beam: the search with the language model; None decodes greedily.
        decoder: from the network's log-probabilities to words.
    """

    def __init__(self, folder: Path, name: str, model: CtcModel, beam: BeamSearch | None) -> None:
        self.folder = folder
        self.name = name
        self.model = model
        self.beam = beam
        self.decoder: CtcDecoder = greedy_decoder(model) if beam is None else beam_decoder(beam)

    def transcribe(self, path: str | Path) -> Transcript:
        """Transcribe one recording of any length, and give its words with their times.

        Raises:
            AudioError: the file cannot be read.
        """
        (result,) = self.transcribe_files([path])
        if isinstance(result, Failure):
            raise AudioError("cannot be transcribed", f"{result.path}: {result.error}")
        return result

    def transcribe_files(
        self,
        paths: Sequence[str | Path],
        batch_seconds: float = BATCH_SECONDS,
        progress: Callable[[float], None] | None = None,
        top_db: float = TOP_DB,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe many recordings, in order, as each is done; see ``transcribe.transcribe``."""
        return transcribe(
            self.model, paths, self.name, batch_seconds, progress, self.decoder, top_db
        )

    def evaluate(
        self,
        store: str | Path,
        split: str = "test",
        normaliser: str | None = None,
        batch_seconds: float = BATCH_SECONDS,
    ) -> Evaluation:
        """Measure word and character error rates: greedy, and with the language model if any.

        Greedy decoding of a recogniser with a pronunciation lexicon gives the phone error rate.

        Args:
            store: prepared store with transcripts.
            split: the split to measure on.
            normaliser: for both sides; None takes the recogniser's.

        Raises:
            ConfigError: no chunk has a transcript, or the store does not fit the model.
        """
        dataset = with_transcripts(Dataset([Store(store)], [split]), split)
        decoders = [greedy_decoder(self.model)]
        if self.beam is not None:
            decoders.append(self.decoder)

        normaliser = normaliser or self.model.normaliser
        scores = evaluate_decoders(self.model, dataset, decoders, batch_seconds, normaliser)

        num_empty = sum(not utterance.reference for utterance in scores[0].utterances)
        if num_empty:
            log(
                f"{num_empty} transcripts hold nothing that {normaliser} keeps: "
                "whatever is recognised there counts as inserted"
            )

        unwritable = self._say_unwritable(scores)
        num_unspelled = _num_unspelled(scores[0])
        if num_unspelled:
            log(
                f"{num_unspelled} words of the transcripts have no pronunciation: "
                "each counts as one wrong phone"
            )

        if split == "train" and has_learned(self.folder, dataset.identity):
            log(
                f"the recogniser learned from {store}, split {split}: "
                "it makes fewer errors there than in other recordings"
            )

        of_what = f"{store}, split {split}"
        if self.decoder.scaling.is_raw:
            log(RAW_CONFIDENCES)
        say_unheard(scores[-1], of_what)
        ask_if_paired(scores[-1], of_what)
        return Evaluation(scores[0], scores[1] if self.beam is not None else None, unwritable)

    def _say_unwritable(self, scores: Sequence[Score]) -> dict[str, int]:
        """Say what of the references nobody could write with these tokens, or these words.

        Returns:
            how often each such character stands there, or each such word with a language model
            over words, unless these are written without spaces between them.
        """
        found: list[Unwritable] = []
        if scores[0].unit == "word":
            texts = [utterance.reference for utterance in scores[0].utterances]
            found.append(unwritable_characters(self.model.tokenizer, texts))

        known = None if self.beam is None else lm_words(self.folder)
        if known is not None and not are_joined(self.model.tokenizer, known):
            texts = [utterance.reference for utterance in scores[-1].utterances]
            found.append(unwritable_words(known, texts))

        counts: dict[str, int] = {}
        for unwritable in found:
            if unwritable.counts:
                log(unwritable.line())
                counts |= unwritable.counts
        return counts

    def label(
        self,
        store: str | Path,
        out: str | Path,
        split: str = "train",
        batch_seconds: float = BATCH_SECONDS,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[Label]:
        """Write what is heard in each chunk of a store, for another fine-tuning to learn from.

        The same call continues a file that was left unfinished.

        Args:
            out: JSONL file to write.
            progress: called with the hours done and the hours in all.

        Raises:
            ConfigError: nothing is heard at all, the file holds labels of another model, or the
                recogniser gives phones, because it has no language model.
        """
        if self.decoder.unit == "phone":
            raise ConfigError(
                f"{self.folder} recognises phones, and labels are words: "
                "give it a language model (speechssl tune-lm)"
            )

        dataset = Dataset([Store(store)], [split])
        if self.decoder.scaling.is_raw:
            log(RAW_CONFIDENCES)

        digest = hashlib.sha256(as_json(self.made_by()).encode()).hexdigest()
        labels = label(
            self.model,
            dataset,
            Path(out),
            digest[:DIGEST_DIGITS],
            self.decoder,
            self._heavier_decoder(),
            batch_seconds,
            progress,
        )

        if not any(one.text for one in labels):
            raise ConfigError(f"{self.folder} recognises nothing in {store}: train it longer")
        return labels

    def _heavier_decoder(self) -> CtcDecoder | None:
        """Give a decoder that trusts the language model more; None without a language model."""
        if self.beam is None:
            return None
        heavier = self.beam.with_lm_weight(HEAVIER * self.beam.config.lm_weight)
        return beam_decoder(heavier)

    def made_by(self) -> Table:
        """Give the digests of all that decides its texts: the model, and its language model."""
        return digests(self.folder, language_model=self.beam is not None)

    def about_language_model(self) -> Table:
        """Give the settings of the search with the language model; empty without one."""
        return {} if self.beam is None else {"lm": as_table(self.beam.config)}


def load_recogniser(
    path: str | Path, device: Device = "auto", language_model: bool = True
) -> Recogniser:
    """Load a recogniser from a run folder or a model folder.

    Args:
        device: where the model runs; auto takes a GPU if there is one.
        language_model: whether to use the one that ``tune-lm`` put into the folder, if any.

    Raises:
        CheckpointError: no model, a damaged one, or an encoder that was not fine-tuned.
        ConfigError: its language model needs flashlight-text, which is not installed.
    """
    folder = model_folder(Path(path))
    model = load_ctc(folder).to(pick_device(device))
    beam = load_lm(folder, model.tokenizer) if language_model else None
    if beam is None and isinstance(model.tokenizer, PhoneTokenizer):
        log(f"{path} gives phones: with a language model it gives words (speechssl tune-lm)")
    return Recogniser(folder, Path(path).name, model, beam)


def _num_unspelled(score: Score) -> int:
    """Count the words of the references that have no phones."""
    if score.unit != "phone":
        return 0
    return sum(u.reference.split().count(UNK_TEXT) for u in score.utterances)


def digests(path: str | Path, language_model: bool = True) -> Table:
    """Give the digests of a model and, if it has and uses one, its language model."""
    folder = model_folder(Path(path))
    records = {"model": folder / RECORD}

    lm_record = stored_folder(folder / LM_FOLDER) / RECORD
    if language_model and lm_record.exists():
        records["language_model"] = lm_record

    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in records.items()}
