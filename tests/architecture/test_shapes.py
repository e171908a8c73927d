import pytest

from keras_mobilenets.architecture.shapes import (
    as_resolution,
    aspect,
    from_plain,
    pixels,
    plain,
    sides,
)


@pytest.mark.parametrize(
    ("resolution", "both", "count", "text", "wide"),
    [
        (96, (96, 96), 96 * 96, 96, 1.0),
        ((96, 160), (96, 160), 96 * 160, "96x160", 160 / 96),
        ((160, 96), (160, 96), 96 * 160, "160x96", 96 / 160),
    ],
    ids=["square", "wide", "tall"],
)
def test_one_number_or_two(resolution, both, count, text, wide):
    assert sides(resolution) == both
    assert as_resolution(*both) == resolution
    assert pixels(resolution) == count
    assert plain(resolution) == text
    assert from_plain(text) == resolution
    assert aspect(resolution) == wide


def test_text_of_a_square_is_a_square():
    assert from_plain("96x96") == 96


@pytest.mark.parametrize("text", ["96", "96x", "96x160x3", "96 x 160", "a", ""])
def test_other_text(text):
    with pytest.raises(ValueError, match="of the form 96x160"):
        from_plain(text)
