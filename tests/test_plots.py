import pytest
from matplotlib.colors import to_hex
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.plots import COLORS, LABELS, plot_search

HISTORY = """epoch,accuracy,learning_rate,loss,val_accuracy,val_loss
0,0.5,0.04,2.0,0.25,5.0
1,0.75,0.03,1.0,0.5,2.5
2,0.875,0.02,0.5,0.9375,0.25
"""


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    return path


def lines(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def assert_png(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_curves(history, tmp_path):
    path = tmp_path / "figures" / "curves.png"
    loss, accuracy = km.plot_curves(history, path).axes
    assert lines(loss) == {"training": [2, 1, 0.5], "validation": [5, 2.5, 0.25]}
    assert lines(accuracy) == {
        "training": [0.5, 0.75, 0.875],
        "validation": [0.25, 0.5, 0.9375],
    }
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in loss.lines)
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert accuracy.get_ylabel() == "accuracy"
    assert {t.get_text() for t in loss.get_legend().texts} == set(lines(loss))
    assert_png(path)


def test_curves_without_validation_or_without_epochs(history):
    history.write_text("epoch,accuracy,loss\n0,0.5,2.0\n")
    assert list(lines(km.plot_curves(history).axes[0])) == ["training"]
    history.write_text("epoch,accuracy,loss\n")
    assert not km.plot_curves(history).axes[0].lines


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_cost_has_a_bar_for_every_layer_with_mult_adds(name, tmp_path):
    cost = km.cost(name, alpha=0.5)
    path = tmp_path / "cost.png"
    figure = km.plot_cost(cost, path, title="half as wide")
    rows = [row for row in cost.layers if row.macs]
    macs, params = figure.axes
    for axes, values in (
        (macs, [row.macs / 1e6 for row in rows]),
        (params, [row.params / 1e3 for row in rows]),
    ):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(values)
        colors = [to_hex(bar.get_facecolor()) for bar in axes.patches]
        assert colors == [COLORS[row.layer.kind] for row in rows]
    assert sum(bar.get_width() for bar in macs.patches) == pytest.approx(
        cost.macs / 1e6
    )
    assert [t.get_text() for t in macs.get_yticklabels()] == [row.name for row in rows]
    assert macs.yaxis_inverted()  # the first layer on top
    assert macs.get_xlabel() == "mult-adds (millions)"
    assert params.get_xlabel() == "parameters (thousands)"
    assert {t.get_text() for t in params.get_legend().texts} == set(LABELS.values())
    title = figure.get_suptitle()
    assert title.startswith("half as wide: ")
    assert f"{cost.macs / 1e6:.1f} M mult-adds" in title
    assert_png(path)


def test_cost_without_classifier_names_none():
    figure = km.plot_cost(km.cost(include_top=False))
    labels = [t.get_text() for t in figure.axes[1].get_legend().texts]
    assert labels == [LABELS["conv"], LABELS["depthwise"]]


def trial(alpha, resolution, macs, accuracy, name="mobilenet_v2"):
    return {
        "name": name,
        "alpha": alpha,
        "resolution": resolution,
        "macs": macs,
        "accuracy": accuracy,
    }


def drawn(axes, **style):
    """The points of every line in this style."""
    return [
        list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
        if all(getattr(line, f"get_{key}")() == value for key, value in style.items())
    ]


def test_search_has_a_line_for_every_alpha_and_a_mark_for_every_resolution(tmp_path):
    rows = [
        trial(0.5, 160, 50e6, 0.5),
        trial(0.5, 96, 20e6, 0.25),
        trial(1.0, 96, 60e6, 0.5625),
        trial(1.0, 160, 150e6, 0.75),
        trial(1.0, 160, 150e6, 0.625),  # the same network again, not as good
        trial(1.0, 160, 500e6, 0.5, name="mobilenet_v1"),
        trial(1.0, 96, 60e6, None),
    ]
    front = [rows[1], rows[0], rows[2], rows[3]]
    path = tmp_path / "search.png"
    (axes,) = plot_search(rows, front, path).axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "mult-adds (millions)"
    lines = [
        [(20, 25), (50, 50)],  # in the order of the resolutions
        [(60, 56.25), (150, 75)],
    ]
    assert all(line in drawn(axes, marker="None", linestyle="--") for line in lines)
    assert [(500, 50)] in drawn(axes, marker="None", linestyle="-")
    assert drawn(axes, drawstyle="steps-post") == [
        [(20, 25), (50, 50), (60, 56.25), (150, 75)]
    ]
    assert sorted(drawn(axes, marker="o")) == [[(20, 25)], [(60, 56.25)]]
    squares = [[(50, 50)], [(150, 62.5)], [(150, 75)], [(500, 50)]]
    assert sorted(drawn(axes, marker="s")) == squares
    assert drawn(axes, marker="s", alpha=0.3) == [[(150, 62.5)]]
    assert [t.get_text() for t in axes.get_legend().texts] == [
        "mobilenet_v1",
        "mobilenet_v2",
        "alpha 0.5",
        "alpha 1",
        "96 px",
        "160 px",
        "Pareto front",
    ]
    assert_png(path)


@pytest.mark.parametrize("rows", [[], [trial(0.5, 96, 20e6, 0.5)]])
def test_search_of_one_trial_or_none(rows, tmp_path):
    plot_search(rows, rows, tmp_path / "search.png")
    assert_png(tmp_path / "search.png")
