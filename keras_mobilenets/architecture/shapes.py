"""Sizes of images and feature maps: one number for a square, else (height, width).

In text, and wherever one plain value is needed, as in a table, 224 and "96x160".
"""

from __future__ import annotations

import re

Resolution = int | tuple[int, int]  # pixels of both sides, or of (height, width)

TEXT = re.compile(r"(\d{1,9})x(\d{1,9})")


def as_resolution(height: int, width: int) -> Resolution:
    """
    >>> as_resolution(96, 160), as_resolution(96, 96)
    ((96, 160), 96)
    """
    return height if height == width else (height, width)


def sides(resolution: Resolution) -> tuple[int, int]:
    """Height and width.

    >>> sides(96), sides((96, 160))
    ((96, 96), (96, 160))
    """
    return resolution if isinstance(resolution, tuple) else (resolution, resolution)


def pixels(resolution: Resolution) -> int:
    """Height times width."""
    height, width = sides(resolution)
    return height * width


def aspect(resolution: Resolution) -> float:
    """Width over height."""
    height, width = sides(resolution)
    return width / height


def plain(resolution: Resolution) -> int | str:
    """As one value, which `check_resolution` takes back.

    >>> plain(96), plain((96, 160))
    (96, '96x160')
    """
    if isinstance(resolution, tuple):
        return "x".join(map(str, resolution))
    return resolution


def from_plain(value: int | str) -> Resolution:
    """What `plain` gave. ValueError for text of another form.

    >>> from_plain(96), from_plain("96x160")
    (96, (96, 160))
    """
    if not isinstance(value, str):
        return value
    found = TEXT.fullmatch(value)
    if not found:
        raise ValueError(f"{value!r} is not of the form 96x160")
    return as_resolution(int(found[1]), int(found[2]))
