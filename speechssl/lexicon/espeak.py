"""Pronunciations by espeak-ng, which reads more than a hundred languages by rule and word list."""

import ctypes
import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from speechssl.errors import ConfigError
from speechssl.text.pronunciations import DEFAULT_FOLDING, Pronunciation, Pronunciations

# What stands before the language in the name of a source, as in espeak-ng:de.
PREFIX = "espeak-ng:"

# From espeak-ng's speak_lib.h: no sound is made, and an error returns instead of ending the
# process; text is UTF-8; phonemes are IPA, with an underscore between them.
_RETRIEVE_ONLY = 1
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_IPA = 0x02
_SEPARATOR = "_"
_PHONEME_MODE = _IPA | (ord(_SEPARATOR) << 8)

# Phonemes of another language stand between two marks: (en)tˈiːneɪdʒə(de).
_SWITCH = re.compile(r"\(([a-z][a-z0-9-]*)\)")
# What begins the source of a pronunciation that has some.
PARTLY = "partly "


def espeak_lexicon(
    words: Iterable[str], language: str, folding: str = DEFAULT_FOLDING
) -> Pronunciations:
    """Pronounce words one by one. Words for which espeak-ng says nothing are not in the result.

    A phone is a phoneme of espeak-ng in IPA: an affricate, a diphthong and a long vowel are one
    phone each (tʃ, aɪ, iː). Stress is folded away, see ``pronunciations.fold``.

    A word alone gets its full form, and some words sound otherwise between others: in English "a"
    is ˈeɪ and ɐ, in Russian "не" is nʲe and nʲɪ. Where the word between two of itself has other
    phones, and no more of them, these are its second pronunciation, as probable as the first.

    Pronunciations with phonemes of another language have the source "partly en", for example.

    Args:
        words: as the normaliser leaves them.
        language: a voice of espeak-ng, such as "de" or "en-us".

    Raises:
        ConfigError: espeak-ng is not installed, or has no such language.
    """
    library = _library_with(language)
    entries = (
        (word, one)
        for word in sorted(set(words))
        for one in _pronunciations(library, word, language)
    )
    return Pronunciations.of_entries(entries, folding, f"espeak-ng {version()} {language}")


def foreign_words(lexicon: Pronunciations) -> list[str]:
    """List the words of which a pronunciation holds phonemes of another language."""
    return sorted({word for word, one in lexicon.entries() if PARTLY in one.source})


def version() -> str:
    """Give the version of espeak-ng, such as "1.52.0"."""
    library = _library()
    data_path = ctypes.c_char_p()
    found: bytes = library.espeak_Info(ctypes.byref(data_path))
    return found.decode().split()[0]


def languages() -> list[str]:
    """List the names of espeak-ng's languages, sorted."""
    folder = _data_path() / "lang"
    return sorted(path.name.lower() for path in folder.rglob("*") if path.is_file())


def _pronunciations(library: Any, word: str, language: str) -> Iterator[Pronunciation]:
    """Pronounce a word alone, and between two others."""
    alone = _phonemes(library, word)
    if not alone:
        return
    yield _pronunciation(alone, language)

    between = _phonemes(library, f"{word} {word} {word}").split(" ")
    # Some words are joined with their neighbours, and no third part is the word's own.
    is_separate = len(between) == 3 and " " not in alone and not _SWITCH.search(alone)
    if not is_separate:
        return

    reduced = _pronunciation(between[1], language)
    full = _pronunciation(alone, language)
    # A longer one is bound to the next word: an R that links vowels.
    is_no_longer = 0 < len(reduced.phones) <= len(full.phones)
    if is_no_longer:
        yield reduced


def _pronunciation(phonemes: str, language: str) -> Pronunciation:
    """Turn espeak-ng's text into phones."""
    others = [name for name in _SWITCH.findall(phonemes) if name != language.split("+")[0]]
    source = f"{PARTLY}{others[0]}" if others else ""

    # A hyphen marks where espeak-ng may join a word with the next one.
    plain = _SWITCH.sub(_SEPARATOR, phonemes).replace("-", "")
    phones = re.split(f"[{_SEPARATOR} ]+", plain)
    return Pronunciation(tuple(filter(None, phones)), source=source)


def _phonemes(library: Any, text: str) -> str:
    """Give espeak-ng's phonemes of a text; it returns them clause by clause."""
    position = ctypes.c_char_p(text.encode())
    clauses: list[str] = []
    while position.value is not None:
        clause: bytes = library.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, _PHONEME_MODE)
        clauses.append(clause.decode())
    return " ".join(clauses).strip()


def _library_with(language: str) -> Any:
    """Choose a language; the library is one global state."""
    library = _library()
    # It knows no "fr-fr", and would go on with the language that was chosen before.
    if not language or library.espeak_SetVoiceByName(language.encode()) != 0:
        known = languages()
        nearest = difflib.get_close_matches(language, known, n=3, cutoff=0.5) or known
        raise ConfigError(
            f"espeak-ng has no language {language!r}: choose one of its {len(known)}, "
            f"such as {', '.join(nearest[:3])}"
        )
    return library


def _data_path() -> Path:
    try:
        import espeakng_loader
    except ImportError as error:
        raise ConfigError(
            "espeak-ng is not installed: pip install 'speechssl[espeak]', or give a lexicon"
        ) from error

    return Path(espeakng_loader.get_data_path())


@cache
def _library() -> Any:
    """Load and start espeak-ng."""
    data_path = _data_path()
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p

    sample_rate_hz = library.espeak_Initialize(
        _RETRIEVE_ONLY, 0, str(data_path).encode(), _DO_NOT_EXIT
    )
    if sample_rate_hz <= 0:
        raise ConfigError(
            f"espeak-ng cannot read its data in {data_path}: install espeakng-loader again"
        )
    return library
