"""V1 figure 4 and V2 figure 5: published accuracies over counted mult-adds."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import report, v1_figure_4, v2_figure_5
from keras_mobilenets.architecture.published import Published
from tests.data import read

FIGURES = {"v1_figure_4": v1_figure_4, "v2_figure_5": v2_figure_5}
NAMES = {"v1_figure_4": "mobilenet_v1", "v2_figure_5": "mobilenet_v2"}
ERRATA = {
    "v1_figure_4": [
        *(f"0.75 MobileNet-{size}" for size in (224, 192, 160, 128)),
        "0.25 MobileNet-192",
    ],
    "v2_figure_5": [],
}


def kept(name):
    return json.loads((report.RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", FIGURES)
def test_results_are_current(name):
    assert kept(name) == FIGURES[name].results()


@pytest.mark.parametrize("name", FIGURES)
def test_published_numbers_are_as_printed(name):
    printed = read("slim_checkpoints")[NAMES[name]]["rows"]
    assert list(FIGURES[name].PRINTED) == [str(row[2]) for row in printed]
    quoted = [r["paper"] for r in kept(name)["rows"] if r["quantity"] == "top-1 (%)"]
    assert quoted[: len(printed)] == [str(row[4]) for row in printed]


@pytest.mark.parametrize("name", FIGURES)
def test_mult_adds_to_the_unit(name):
    counted = read("recomputed_costs")[NAMES[name]]["rows"]
    ours = [r["ours"] for r in kept(name)["rows"] if r["ours"] is not None]
    assert ours == [row[2] / 1e6 for row in counted]


@pytest.mark.parametrize("name", FIGURES)
def test_errata(name):
    rows = kept(name)["rows"]
    assert [row["row"] for row in rows if row["erratum"]] == ERRATA[name]
    assert all(bool(row["erratum"]) == (row["agrees"] is False) for row in rows)


def test_the_quoted_networks_are_those_of_table_4():
    printed = read("paper_costs")["v2_table_4"]["rows"]
    costs = {row[0]: str(row[2]) for row in printed}
    assert all(macs == costs[name] for name, _, macs in v2_figure_5.OTHERS)


def test_the_line_of_v1():
    """By the normal equations; the smallest networks lie below, one line is worse."""
    rows = [
        (macs, top1)
        for (alpha, _, macs, *_), (*_, top1, _) in zip(
            read("recomputed_costs")["mobilenet_v1"]["rows"],
            read("slim_checkpoints")["mobilenet_v1"]["rows"],
            strict=True,
        )
        if alpha > 0.25
    ]
    assert len(rows) == 12
    macs, top1 = np.array(rows).T
    design = np.stack([np.ones(12), np.log2(macs / 1e6)], axis=1)
    offset, slope = np.linalg.solve(design.T @ design, design.T @ top1)
    found = kept("v1_figure_4")
    line = found["fit_of_alpha_0.5_to_1"]
    assert (line["offset"], line["slope"]) == pytest.approx((offset, slope), abs=1e-3)
    assert line["r_squared"] > found["fit_of_all"]["r_squared"] > 0.9
    jump = found["alpha_0.25_below_the_line"]
    assert min(jump) > 5 * line["largest_deviation"]
    assert jump[0] == pytest.approx(
        offset + slope * np.log2(41.030528) - 49.8, abs=0.01
    )


def point(macs, top1):
    return Published("mobilenet_v1", 1.0, 224, top1, 90.0, None, None, macs, 1)


def test_above_a_front():
    others = [point(100, 50), point(400, 60), point(300, 45)]
    assert v2_figure_5.front(others) == others[:2]
    assert v2_figure_5.above(point(200, 58), others) == 3.0  # half way is 55
    assert v2_figure_5.above(point(400, 59), others) == -1.0
    assert v2_figure_5.above(point(99, 58), others) is None
    assert v2_figure_5.above(point(401, 58), others) is None


def test_v2_is_above_v1():
    gains = kept("v2_figure_5")["above_v1_at_the_same_cost"]
    assert len(gains) == 20
    assert min(gains.values()) > 0
    # 1.0 at 160: 154.1 M, between V1's 0.5 at 224 (149.5) and 0.75 at 160 (166.4)
    share = np.log(154.08448 / 149.4976) / np.log(166.397568 / 149.4976)
    there = 63.3 + share * (65.3 - 63.3)
    assert gains["1 MobileNetV2-160"] == pytest.approx(68.8 - there, abs=1e-3)


@pytest.mark.parametrize("name", FIGURES)
def test_it_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    FIGURES[name].main()
    found = kept(name)
    assert found == FIGURES[name].results()
    assert FIGURES[name].text(found) in capsys.readouterr().out
    with Image.open(tmp_path / f"{name}.png") as image:
        image.load()
        assert min(image.size) > 400
    assert "</svg>" in (tmp_path / f"{name}.svg").read_text()
