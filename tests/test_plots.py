import os

import pytest
from matplotlib.colors import to_hex
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.errors import UsageError
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


def test_search_of_resolutions_of_two_sides(tmp_path):
    rows = [
        trial(0.5, 96, 20e6, 0.25),
        trial(0.5, "96x160", 40e6, 0.5),
        trial(0.5, "96x64", 15e6, 0.125),
    ]
    (axes,) = plot_search(rows, rows, tmp_path / "search.png").axes
    assert [(15, 12.5), (20, 25), (40, 50)] in drawn(axes, marker="None")
    labels = [text.get_text() for text in axes.get_legend().texts]
    assert labels[1:4] == ["96x64 px", "96 px", "96x160 px"]
    for wrong in ("wide", [96, 160], None):
        with pytest.raises(ValueError, match="resolution"):
            plot_search([trial(0.5, wrong, 20e6, 0.25)])


@pytest.mark.parametrize("rows", [[], [trial(0.5, 96, 20e6, 0.5)]])
def test_search_of_one_trial_or_none(rows, tmp_path):
    plot_search(rows, rows, tmp_path / "search.png")
    assert_png(tmp_path / "search.png")


def test_a_column_that_only_some_epochs_have(history):
    history.write_text("epoch,loss,val_loss\n0,2.0,\n1,1.0,3.0\n")
    values = lines(km.plot_curves(history).axes[0])
    assert values["training"] == [2, 1]
    assert values["validation"] == pytest.approx([float("nan"), 3], nan_ok=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"loss\n1\n",
        b"epoch,loss\n0,high\n",
        b"epoch,loss\n0\n",
        b"epoch,loss\n0,1,2\n",
        b"epoch,loss\ninf,1\n",
        b"epoch,loss\n,1\n",
        b"\xff\xfe\x00",
    ],
    ids=repr,
)
def test_a_damaged_history_is_named(content, history):
    history.write_bytes(content)
    with pytest.raises(UsageError, match=f"history must be .* got '{history}'"):
        km.plot_curves(history)


@pytest.mark.parametrize("wrong", ["/nonexistent", "/", "", "a\0b", 3, None, ["x"]])
def test_what_is_no_history(wrong):
    with pytest.raises(UsageError, match="^history must be .* got "):
        km.plot_curves(wrong)


def test_a_pipe_is_no_history(tmp_path):
    os.mkfifo(tmp_path / "history.csv")
    with pytest.raises(UsageError, match="not a file"):  # and no wait for a writer
        km.plot_curves(tmp_path / "history.csv")


@pytest.mark.parametrize("wrong", ["x", None, 3, (1, 2)])
def test_what_is_no_cost(wrong):
    with pytest.raises(UsageError, match=r"cost must be what keras_mobilenets\.cost"):
        km.plot_cost(wrong)
    with pytest.raises(UsageError, match="title must be a text"):
        km.plot_cost(km.cost(), title=3)


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        None,
        3,
        [3],
        [{}],
        [trial("wide", 96, 20e6, 0.5)],
        [trial(0.5, 96, "20e6", 0.5)],
        [trial(0.5, 96, 20e6, 0.5, name=None)],
    ],
    ids=repr,
)
def test_what_are_no_rows(wrong):
    with pytest.raises(UsageError, match="^rows must be"):
        plot_search(wrong)
    if wrong != []:
        with pytest.raises(UsageError, match="^front must be"):
            plot_search([], wrong)


def test_an_unknown_axis():
    with pytest.raises(UsageError, match="cost must be one of .*did you mean 'macs'"):
        plot_search([], cost="mac")


def test_rows_that_cannot_be_drawn_are_left_out():
    rows = [trial(0.5, 96, 20e6, float("nan")), trial(0.5, 96, 0, 0.5)]
    (front,) = plot_search(rows).axes[0].lines
    assert len(front.get_xdata()) == 0


@pytest.mark.parametrize("name", ["x.txt", "x", "", ".png", "folder.png", "file/x.png"])
def test_what_cannot_be_written_is_refused_first(name, tmp_path, history):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    path = tmp_path / name if name else name
    for plot in (
        lambda: km.plot_curves(history, path),
        lambda: km.plot_cost(km.cost(), path),
        lambda: plot_search([], (), path),
    ):
        with pytest.raises(UsageError, match="^path must be"):
            plot()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("wrong", [3, b"x.png", ["x.png"], "x\0.png"])
def test_what_is_no_path(wrong):
    with pytest.raises(UsageError, match="^path must be"):
        km.plot_cost(km.cost(), wrong)


def test_a_figure_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "cost.png"
    km.plot_cost(km.cost(), path)
    before = path.read_bytes()

    def fill(self, beside, **_):
        with open(beside, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill)
    with pytest.raises(OSError, match="No space"):
        km.plot_cost(km.cost(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
