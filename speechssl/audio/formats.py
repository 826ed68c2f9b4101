"""Which files hold recordings, by their suffix, and how long one may be."""

import os

import soundfile

AnyPath = str | os.PathLike[str]

MAX_DURATION_S = 6 * 3600.0

# Formats that hold no recordings: libsndfile clips what their headers declare, and says nothing.
NO_RECORDINGS = {"MAT4", "MAT5", "SD2", "XI", "WVE"}
_MORE_SUFFIXES = {".aif", ".aifc", ".oga", ".opus", ".snd", ".wave", ".sph", ".sf", ".mp2"}
_FORMATS = soundfile.available_formats().keys() - NO_RECORDINGS - {"RAW", "WAVEX"}
_FORMAT_SUFFIXES = {f".{name.lower()}" for name in _FORMATS}
AUDIO_SUFFIXES: frozenset[str] = frozenset(_FORMAT_SUFFIXES | _MORE_SUFFIXES)

# Recordings that libsndfile cannot read. They are listed all the same, so that they are rejected by
# name and not passed over.
# fmt: off
UNREADABLE_SUFFIXES = {
    ".m4a", ".m4b", ".mp4", ".3gp", ".aac", ".wma", ".webm", ".amr", ".mka", ".ape", ".wv", ".tta",
    ".mpc", ".shn",
}
# fmt: on
