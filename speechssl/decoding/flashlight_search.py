"""CTC beam search by flashlight-text, through torchaudio, with KenLM inside."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from speechssl.decoding.arpa import is_binary
from speechssl.decoding.hypothesis import BeamConfig, Found
from speechssl.decoding.lexicon import separator, token_names
from speechssl.decoding.ngram import UNKNOWN
from speechssl.decoding.token_ngrams import kenlm_arpa
from speechssl.errors import ConfigError
from speechssl.runtime.log import quiet_stderr
from speechssl.text.tokenizer import Tokenizer


class FlashlightSearch:
    """torchaudio's decoder, which reads ARPA files and KenLM's binary ones."""

    def __init__(self, tokenizer: Tokenizer, lm: Path, config: BeamConfig) -> None:
        """Read the language model, which is over tokens."""
        from torchaudio.models.decoder import ctc_decoder

        # The language model knows the tokens by these names.
        names = token_names(tokenizer)

        # The decoder demands a separator. Without one the unknown token stands for it, which no
        # hypothesis can emit.
        between_words = (*separator(tokenizer), tokenizer.unk_id)[0]

        with TemporaryDirectory() as folder:
            # The order of the language model's words: torchaudio would leave it to chance.
            path = Path(folder, "list.txt")
            _write_lines(path, names)

            # KenLM refuses files that are as good, in words of its own.
            readable = lm
            if not is_binary(lm):
                readable = Path(folder, "lm.arpa")
                readable.write_bytes(kenlm_arpa(lm))

            with quiet_stderr(), _kenlm_errors(lm):
                self._decoder = ctc_decoder(
                    lexicon=None,
                    tokens=names,
                    lm=str(readable),
                    lm_dict=str(path),
                    beam_size=config.beam_size,
                    beam_size_token=min(config.beam_tokens, tokenizer.size),
                    beam_threshold=config.beam_threshold,
                    lm_weight=config.lm_weight,
                    # flashlight-text scores a separator like a word when tokens are the words.
                    word_score=0.0,
                    sil_score=config.word_score,
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
            found.append(Found(ids, hypothesis.score))
        return found


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text of so many lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def _kenlm_errors(lm: Path) -> Iterator[None]:
    """Raise KenLM's errors as our own; its message begins with a path and a C++ signature."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(
            f"{lm} cannot be read as a language model: KenLM does not take it as a binary file of "
            "its own; make it again with build_binary, or give an ARPA file"
        ) from error
