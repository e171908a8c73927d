"""Tables and numbers as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def count(value: float) -> str:
    """A count at four digits with its unit: 300,775,552 is '300.8 M'.

    >>> count(300775552), count(1692489), count(999)
    ('300.8 M', '1.692 M', '999')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:g}"


def printable(text: Any) -> str:
    """`text` with all that moves a cursor, colours or ends a line escaped.

    Names of files and classes may hold anything but "/" and the null byte.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


def shortened(text: str, most: int) -> str:
    """A name of at most `most` letters: of a longer one the middle is left out.

    Names of one data set differ at their ends as often as at their beginnings.

    >>> shortened("n02123045_tabby_cat", 12)
    'n02123…y_cat'
    """
    text = printable(text)
    if len(text) <= most:
        return text
    return text[: most // 2] + "…" + text[len(text) - (most - 1) // 2 :]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Aligned columns; numbers to the right, None as a dash, one line a row."""
    cells = [["-" if c is None else printable(str(c)) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    left = [
        any(not c[:1].isdigit() and c not in "-" for c in column)
        for column in zip(*cells, strict=True)
    ] or [True] * len(header)

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *map(line, cells)])


def short_name(text: str, most: int = 60) -> str:
    """Text as part of a file name: printable, without a separator, `most` bytes.

    >>> short_name("a/b" * 100, 5)
    'a_ba_'
    """
    name = printable(text).replace("/", "_").replace("\\", "_")
    return name.encode()[:most].decode(errors="ignore")
