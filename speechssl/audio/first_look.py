"""What a file says before anything is decoded: whether it can be a recording that is read."""

from pathlib import Path

from speechssl.audio.containers.inspection import find_foreign
from speechssl.audio.reader import open_recording
from speechssl.errors import AudioError


def why_unusable(path: Path) -> str:
    """Return the reason for which a file will be rejected; empty where its beginning tells none.

    Only the beginning is read, so that a look at many files costs little. Damage behind it shows
    when the file is decoded.
    """
    try:
        with open_recording(path) as raw:
            foreign = find_foreign(raw)
    except AudioError as error:
        return error.reason
    except OSError:
        return "unreadable file"

    return "" if foreign is None else foreign.reason
