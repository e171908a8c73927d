"""Names that come from files, made fit for a terminal and for a file system."""

import os

import pytest

from keras_mobilenets.text import printable, short_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Müller 猫", "Müller 猫"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("\u202eevil", r"\u202eevil"),
    ],
    ids=["plain", "letters", "newline", "escape", "not UTF-8", "right to left"],
)
def test_what_controls_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_a_short_name_fits_any_file_system():
    assert short_name("a/b\\c") == "a_b_c"
    for text in ("x" * 255, "猫" * 85, "\n" * 255):
        name = short_name(text)
        assert 50 < len(name.encode()) <= 60
        assert name.isprintable()
