import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.inference.pictures import (
    MATRIX_CLASSES,
    PAIRS,
    draw_confusion,
    draw_mistakes,
    draw_reliability,
)
from keras_mobilenets.inference.tally import Tally
from tests.inference.test_tally import draw, rows_for


def result_of(names, images=500, labels=None):
    """As `evaluate` returns it."""
    random, scores = draw(images, len(names))
    tally = Tally()
    tally.add(rows_for(random if labels is None else labels, scores))
    return {
        "split": "test",
        "images": tally.images,
        "accuracy": tally.right / tally.images,
        "calibration_error": tally.calibration_error(),
        "reliability": tally.reliability(),
        "per_class": tally.per_class(names),
        "confusion": tally.confusion(names),
        "mistakes": [
            {"true": names[t], "predicted": names[p], "confidence": -c}
            for c, _, t, p in tally.worst
        ],
    }


def saved(figure, path):
    figure.savefig(path, dpi=150)
    with Image.open(path) as image:
        image.load()
        assert max(image.size) < 4000
        return image.size


NAMES = ["cat", "$dog$", "a_name_that_is_far_too_long_for_any_axis", "a\nb", "\udcff"]


def test_a_cell_for_every_pair_in_shares_of_its_row(tmp_path):
    result = result_of(NAMES, labels=np.arange(500) % 4)  # none of the last class
    figure = draw_confusion(result)
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    assert shares.mask[4].all()
    assert not shares.mask[:4].any()
    np.testing.assert_allclose(shares[:4].sum(axis=1), 1)
    of = result["per_class"]["cat"]
    assert shares[0, 0] == pytest.approx(of["recall"])
    counts = {t.get_position(): int(t.get_text()) for t in axes.texts}
    assert counts[0, 0] == result["confusion"]["cat"]["cat"]
    assert sum(counts.values()) == 500
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels[:2] == ["cat", "$dog$"]
    assert labels[3:] == [r"a\nb", r"\udcff"]
    assert labels[2] == "a_name_that…r_any_axis"
    saved(figure, tmp_path / "confusion.png")


@pytest.mark.parametrize("classes", [2, 10, MATRIX_CLASSES])
def test_a_matrix_of_all_classes(classes, tmp_path):
    figure = draw_confusion(result_of([f"class {n}" for n in range(classes)]))
    assert figure.axes[0].images[0].get_array().shape == (classes, classes)
    saved(figure, tmp_path / "confusion.png")


@pytest.mark.parametrize("classes", [100, 1000])
def test_the_pairs_of_many_classes(classes, tmp_path):
    result = result_of([f"class {n}" for n in range(classes)], images=5000)
    figure = draw_confusion(result)
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    counts = sorted(
        n for t, row in result["confusion"].items() for p, n in row.items() if t != p
    )
    assert widths == counts[::-1][:PAIRS]
    first = axes.get_yticklabels()[0].get_text().split(" → ")
    assert result["confusion"][first[0]][first[1]] == widths[0]
    assert f"of {len(counts):,} confused pairs" in figure.get_suptitle()
    saved(figure, tmp_path / "confusion.png")


def test_many_classes_without_a_mistake(tmp_path):
    names = [f"class {n}" for n in range(100)]
    result = result_of(names)
    result["confusion"] = {name: {name: 5} for name in names}
    saved(draw_confusion(result), tmp_path / "confusion.png")


def test_reliability_has_a_bar_for_each_bin_with_images(tmp_path):
    result = result_of(NAMES)
    figure = draw_reliability(result)
    accuracy, images = figure.axes
    full = [row for row in result["reliability"] if row["images"]]
    assert 1 < len(full) < 15
    assert [b.get_height() for b in accuracy.patches] == [r["accuracy"] for r in full]
    assert [b.get_height() for b in images.patches] == [r["images"] for r in full]
    assert [b.get_x() for b in images.patches] == [row["low"] for row in full]
    assert f"{result['calibration_error']:.2%}" in accuracy.get_title()
    saved(figure, tmp_path / "reliability.png")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 25])
def test_mistakes_have_names_and_confidence(channels, count, tmp_path):
    result = result_of(NAMES)
    result["mistakes"] = result["mistakes"][:count]
    images = [
        np.full((32, 48, channels), -1 + 2 * n / count) for n in range(count)
    ]  # fmt: skip
    figure = draw_mistakes(result, images)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == count
    for axes, mistake, image in zip(shown, result["mistakes"], images, strict=True):
        assert f"{mistake['confidence']:.1%}" in axes.get_title()
        grey = axes.images[0].get_array().mean()
        assert grey == pytest.approx((image.mean() + 1) / 2, abs=0.01)
    saved(figure, tmp_path / "mistakes.png")
