"""CTC beam search by flashlight-text, through torchaudio, with KenLM inside."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from speechssl.decoding.hypothesis import BeamConfig, Found
from speechssl.decoding.lexicon import Lexicon, separator, token_name
from speechssl.decoding.ngram import UNKNOWN
from speechssl.errors import ConfigError
from speechssl.runtime.log import quiet_stderr
from speechssl.text.tokenizers import Tokenizer


class FlashlightSearch:
    """torchaudio's decoder, which reads ARPA files and KenLM's binary ones."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path,
        lexicon: Lexicon | None,
        config: BeamConfig,
    ) -> None:
        """Read the language model.

        Args:
            lexicon: spellings of words in tokens; None for a language model over tokens.
        """
        from torchaudio.models.decoder import ctc_decoder

        over_tokens = lexicon is None
        if over_tokens:
            # The language model knows the tokens by these names.
            names = [token_name(text) for text in tokenizer.texts]
        else:
            # Neutral names: a token may be a character that a lexicon file could not hold.
            names = [f"t{i}" for i in range(tokenizer.size)]

        # The decoder demands a separator. Without one the unknown token stands for it, which no
        # hypothesis can emit.
        between_words = (*separator(tokenizer), tokenizer.unk_id)[0]

        # flashlight-text scores a separator like a word when tokens are the words.
        word_score = 0.0 if over_tokens else config.word_score
        separator_score = config.word_score if over_tokens else 0.0

        with TemporaryDirectory() as folder:
            path = Path(folder, "list.txt")
            if lexicon is None:
                # The order of the language model's words: torchaudio would leave it to chance.
                _write_lines(path, names)
            else:
                _write_lines(path, _lexicon_lines(lexicon, names, tokenizer.unk_id))

            with quiet_stderr(), _kenlm_errors(lm):
                self._decoder = ctc_decoder(
                    lexicon=None if over_tokens else str(path),
                    tokens=names,
                    lm=str(lm),
                    lm_dict=str(path) if over_tokens else None,
                    beam_size=config.beam_size,
                    beam_size_token=min(config.beam_tokens, tokenizer.size),
                    beam_threshold=config.beam_threshold,
                    lm_weight=config.lm_weight,
                    word_score=word_score,
                    sil_score=separator_score,
                    log_add=True,
                    blank_token=names[tokenizer.blank_id],
                    sil_token=names[between_words],
                    unk_word=UNKNOWN,
                )

    def __call__(self, log_probs: Tensor, nbest: int) -> list[Found]:
        """Find the ``nbest`` best hypotheses of (T, V) log-probabilities, best first."""
        self._decoder.nbest = nbest
        (hypotheses,) = self._decoder(log_probs[None])

        found: list[Found] = []
        for hypothesis in hypotheses:
            ids = tuple(hypothesis.tokens.tolist())
            found.append(Found(ids, tuple(hypothesis.words), hypothesis.score))
        return found


def _lexicon_lines(lexicon: Lexicon, names: Sequence[str], unk_id: int) -> Iterator[str]:
    """Write each word with the names of its tokens."""
    for word, ids in lexicon.items():
        spelling = " ".join(names[i] for i in ids)
        yield f"{word}\t{spelling}"

    # The decoder needs this entry; no frame can emit its spelling.
    yield f"{UNKNOWN}\t{names[unk_id]}"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text of so many lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def _kenlm_errors(lm: Path) -> Iterator[None]:
    """Raise KenLM's errors as our own, on one line."""
    try:
        yield
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{lm} cannot be read as a language model: {why}") from error
