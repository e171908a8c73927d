"""What an image file says of itself before it is decoded: kind and size.

Pure Python. A few hundred bytes can claim any size, and a decoder believes them: so
the claim is read first.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
GIF, RIFF, WEBP = (b"GIF87a", b"GIF89a"), b"RIFF", b"WEBP"

# Of an image as decoded: height * width * 3 bytes, 89,478,485 pixels. Pillow warns of
# more, too. As floats, while it is resized, it takes four times as much; TensorFlow's
# own limit, for JPEG only, is twice as high.
MAX_DECODED_BYTES = 2**28
MAX_FILE_BYTES = 2**28

# Markers of JPEG that begin a frame, and so carry its size.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Header(NamedTuple):
    """Kind ("JPEG", "PNG", "GIF", "BMP" or "WebP"), pixels, frames, bits a channel."""

    kind: str
    height: int
    width: int
    frames: int = 1
    bits: int = 8

    @property
    def decoded_bytes(self) -> int:
        """What a decoder takes for all frames as RGB."""
        return self.height * self.width * 3 * self.frames


def read_header(encoded: bytes) -> Header:
    """What the file's own bytes claim, unchecked.

    ValueError, in words that fit behind the file's name, if they are those of no
    image, or end too early.

    >>> read_header(pathlib.Path("cat.jpg").read_bytes())
    Header(kind='JPEG', height=375, width=500, frames=1, bits=8)
    """
    try:
        if encoded.startswith(JPEG):
            return _jpeg(encoded)
        if encoded.startswith(PNG):
            width, height, bits = struct.unpack_from(">IIB", encoded, 16)
            return Header("PNG", height, width, bits=bits)
        if encoded.startswith(GIF):
            return _gif(encoded)
        if encoded.startswith(BMP):
            # The oldest of its headers, of 12 bytes, has 16 bits for a side.
            old = struct.unpack_from("<I", encoded, 14) == (12,)
            width, height = struct.unpack_from("<HH" if old else "<ii", encoded, 18)
            return Header("BMP", abs(height), abs(width))
        if encoded.startswith(RIFF) and encoded[8:12] == WEBP:
            return _webp(encoded)
    except (struct.error, IndexError) as error:
        raise ValueError("damaged or cut off") from error
    raise ValueError("not a JPEG, PNG, BMP, GIF or WebP image")


def _jpeg(encoded: bytes) -> Header:
    at = 2
    while True:
        at = encoded.find(b"\xff", at)
        while at >= 0 and encoded[at + 1] == 0xFF:  # filling
            at += 1
        if at < 0:
            raise IndexError
        marker, length = struct.unpack_from(">BH", encoded, at + 1)
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            return Header("JPEG", height, width)
        at += 2 + length


def _gif(encoded: bytes) -> Header:
    """The screen, and how many frames: TensorFlow unpacks all to show the first."""
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    at = 13 + _colors(flags)
    frames = 0
    while at < len(encoded) and encoded[at] in b"\x21\x2c":
        if encoded[at] == 0x21:  # an extension
            at += 2
        else:
            *_, wide, high, flags = struct.unpack_from("<HHHHB", encoded, at + 1)
            width, height, frames = max(width, wide), max(height, high), frames + 1
            at += 11 + _colors(flags)
        while encoded[at]:  # blocks of data
            at += 1 + encoded[at]
        at += 1
    return Header("GIF", height, width, max(frames, 1))


def _colors(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _webp(encoded: bytes) -> Header:
    chunk = encoded[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return Header("WebP", height & 0x3FFF, width & 0x3FFF)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return Header("WebP", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    flags, *sides = struct.unpack_from("<B3xHBHB", encoded, 20)
    width, height = (sides[i] + (sides[i + 1] << 16) + 1 for i in (0, 2))
    # Counting the frames is not worth it: animations of this kind are not read.
    return Header("WebP", height, width, 2 if flags & 2 else 1)
