"""Tags with titles and pictures, which stand before or behind the audio of any container."""

from typing import BinaryIO

from speechssl.audio.containers.layout import read_at

_ID3_HEADER_BYTES = 10


def skip_id3(raw: BinaryIO, size: int) -> int:
    """Return the offset behind the ID3v2 tags at the front of a file."""
    start = 0
    while start < size:
        header = read_at(raw, start, _ID3_HEADER_BYTES)
        is_whole = len(header) == _ID3_HEADER_BYTES
        if not is_whole or not header.startswith(b"ID3"):
            break

        # The size of a tag, without its header: four bytes of seven bits each.
        size_bytes = header[6:]
        if max(size_bytes) > 127:
            break

        tag_size = 0
        for byte in size_bytes:
            tag_size = tag_size << 7 | byte

        start += _ID3_HEADER_BYTES + tag_size

    # Tags that claim the whole file are not believed.
    return start if start < size else 0
