"""The tokenizer of a fine-tuning: of letters, of pieces of words, or of phones."""

from collections.abc import Sequence

from speechssl.lexicon.espeak import PREFIX, espeak_lexicon
from speechssl.runtime.ranks import log_once
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.tokenizers import PHONES, train_tokenizer


def make_tokenizer(
    spec: str, texts: Sequence[str], other_texts: Sequence[str], normaliser: str
) -> Tokenizer:
    """Make a tokenizer for ``texts``, which are normalised already.

    Args:
        spec: as ``train_tokenizer`` takes it, or "phones:espeak-ng:LANGUAGE", which pronounces all
            words of the texts.
        other_texts: normalised texts whose words are to be pronounced too.

    Raises:
        ConfigError: another ``spec``, or one that does not suit the texts.
    """
    language = spec.removeprefix(PHONES + PREFIX)
    if language == spec:
        return train_tokenizer(spec, texts, normaliser)

    words = {word for text in (*texts, *other_texts) for word in text.split()}
    lexicon = espeak_lexicon(words, language)
    log_once(
        f"{lexicon.origin} pronounces {len(lexicon.words)} words of the transcripts, and a search "
        "will find no others: speechssl lexicon make makes a lexicon of more words"
    )
    return PhoneTokenizer(lexicon)
