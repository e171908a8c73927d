import importlib
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

import experiments
from experiments import v2_table_1
from experiments.report import compare, format_table
from tests.data import read

PRINTED = read("paper_costs")
RECOMPUTED = read("recomputed_costs")["mobilenet_v1"]
TABLES = {
    name: importlib.import_module(f"experiments.{name}")
    for name in experiments.COST_TABLES
}
ROWS = [
    pytest.param(row, id=f"{name}-{row['row']}-{row['quantity']}")
    for name, table in TABLES.items()
    for row in table.rows()
]
FOLDER = Path(experiments.__file__).parent


def plain(cell):
    """A cell as text; the files of numbers have no trailing zeros and no dashes."""
    if cell in (None, "-"):
        return None
    try:
        return Decimal(str(cell))
    except ArithmeticError:
        return cell


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_values_are_as_printed(name):
    ours = [[plain(cell) for cell in row] for row in TABLES[name].PAPER]
    assert ours == [[plain(cell) for cell in row] for row in PRINTED[name]["rows"]]


def test_the_other_version_of_v2_table_3_is_as_printed():
    printed = [tuple(row) for row in PRINTED["v2_table_3_without_appendix"]["rows"]]
    differing = [row for row in printed if row not in TABLES["v2_table_3"].PAPER]
    assert list(TABLES["v2_table_3"].PAPER_WITHOUT_APPENDIX) == differing


@pytest.mark.parametrize("row", ROWS)
def test_every_row_agrees_or_names_an_erratum(row):
    if row["agrees"] is False:
        assert row["erratum"], f"{row['ours']} is not the paper's {row['paper']}"
    else:
        assert not row["erratum"], "an erratum where the paper is right, or quoted"


@pytest.mark.parametrize(
    ("name", "errata"),
    # Rows that deviate: all of them, so that none slips in behind a broad remark.
    [
        ("v1_table_1", {("row 18", "layer"), ("all, row 18 s2", "mult-adds (M)")}),
        ("v1_table_2", {("Conv 3x3", "mult-adds (%)")}),
        ("v1_table_4", {("Conv MobileNet", "mult-adds (M)")}),
        ("v1_table_10", {("1.0 MobileNet-224", "mult-adds (M)")}),
        ("v1_table_11", {("PlaNet MobileNet", "mult-adds (M)")}),
        (
            "v1_table_12",
            {
                ("0.25 MobileNet-224", "mult-adds (M)"),
                ("0.25 MobileNet-128", "mult-adds (M)"),
            },
        ),
        (
            "v1_table_14",
            {
                ("row 1: 1.0 MobileNet-160", "mult-adds (M)"),
                ("row 3: 0.75 MobileNet-128", "mult-adds (M)"),
                ("row 4: 0.75 MobileNet-128", "mult-adds (M)"),
            },
        ),
        (
            "v2_table_1",
            {("t = 1", "layers"), ("all, t = 1 with row 1", "mult-adds (M)")},
        ),
        ("v2_table_2", {("bottlenecks", "in the text")}),
        (
            "v2_table_3",
            {
                ("56x56", "mobilenet_v2 channels"),
                ("56x56", "mobilenet_v2 kB"),
                ("28x28", "mobilenet_v2 channels"),
                ("28x28", "mobilenet_v2 kB"),
                ("14x14", "mobilenet_v2 channels"),
                ("14x14", "mobilenet_v2 kB"),
                ("7x7", "mobilenet_v1 kB"),
                ("max from 56x56 on", "mobilenet_v2 kB"),
            },
        ),
        (
            "v2_table_4",
            {
                ("MobileNetV1", "mult-adds (M)"),
                ("MobileNetV2 (1.4)", "mult-adds (M)"),
                ("MobileNetV2 (1.4)", "params (M)"),
            },
        ),
        *((f"v1_table_{number}", set()) for number in (3, 5, 6, 7, 8, 9)),
    ],
)
def test_errata(name, errata):
    rows = TABLES[name].rows()
    assert {(r["row"], r["quantity"]) for r in rows if r["erratum"]} == errata


@pytest.mark.parametrize(
    ("name", "row", "quantity", "ours"),
    [
        ("v1_table_1", "all, row 18 s2", "mult-adds (M)", 533.833),
        ("v1_table_2", "Conv 3x3", "mult-adds (%)", 1.9056),
        ("v1_table_3", "rho=0.714", "mult-adds (M)", 15.0912),
        ("v1_table_4", "Conv MobileNet", "mult-adds (M)", 4867.293),
        ("v1_table_4", "Conv MobileNet, no classifier", "mult-adds (M)", 4866.269),
        ("v1_table_11", "PlaNet MobileNet", "mult-adds (G)", 0.577706),
        ("v1_table_14", "row 3 as 0.75 MobileNet-160", "mult-adds (M)", 165.629),
        ("v2_table_1", "t = 1", "layers", 2),
        ("v2_table_1", "all, t = 1 with row 1", "mult-adds (M)", 313.619),
        ("v2_table_2", "bottlenecks", "in the text", 17),
        ("v2_table_3", "14x14", "mobilenet_v2 channels", 96),
        ("v2_table_3", "7x7", "mobilenet_v1 kB", 100.352),
        ("v2_table_4", "MobileNetV1", "mult-adds (M)", 568.740),
        ("v2_table_4", "MobileNetV2 (1.4)", "params (M)", 6.0608),
    ],
)
def test_what_decides(name, row, quantity, ours):
    (found,) = (
        r["ours"]
        for r in TABLES[name].rows()
        if (r["row"], r["quantity"]) == (row, quantity)
    )
    assert found == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "classes"), [("v1_table_10", 120), ("v1_table_12", 0), ("v1_table_14", 0)]
)
def test_other_classifiers_to_the_unit(name, classes):
    """From the counts with 1,001 classes; without any, the body alone."""
    counted = {
        (alpha, resolution): (macs, kernels)
        for alpha, resolution, macs, kernels, *_ in RECOMPUTED["rows"]
    }
    compared = 0
    for row in TABLES[name].rows():
        which = re.search(r"([\d.]+) MobileNet-(\d+)$", row["row"])
        if not which or row["ours"] is None:
            continue
        alpha, resolution = float(which[1]), int(which[2])
        macs, kernels = counted[alpha, resolution]
        width = int(1024 * alpha)
        ours = {
            "mult-adds (M)": macs - width * (1001 - classes),
            "params (M)": kernels - (width + 1) * (1001 - classes),
        }[row["quantity"]]
        assert row["ours"] == ours / 1e6
        compared += 1
    assert compared == {"v1_table_10": 8, "v1_table_12": 12, "v1_table_14": 5}[name]


def test_what_cannot_be_had_says_why():
    for name in ("v1_table_10", "v1_table_11", "v1_table_12", "v1_table_14"):
        for row in TABLES[name].rows():
            if row["ours"] is None and "%" in row["quantity"]:
                assert row["note"].startswith("no training here: ")


def test_v2_table_1_is_read_back_from_the_blocks():
    """A block that is not as the others leaves no expression, or another."""
    plan = v2_table_1.make_plan(resolution=v2_table_1.RESOLUTION)
    assert v2_table_1.printed_plan(plan) == list(v2_table_1.PAPER)
    with_relu = v2_table_1.make_plan(resolution=(256, 192), linear_bottleneck=False)
    assert v2_table_1.printed_plan(with_relu)[2][1] == "1x1 conv2d, ReLU6"
    with pytest.raises(ValueError, match="unpack"):
        v2_table_1.printed_plan(
            v2_table_1.make_plan(resolution=(256, 192), expansion=4)
        )


@pytest.mark.parametrize("name", TABLES)
def test_results_are_current(name):
    kept = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    assert kept["rows"] == TABLES[name].rows()
    assert kept["title"] == TABLES[name].__doc__.splitlines()[0]


def test_every_cost_table_is_listed():
    files = {path.stem for path in FOLDER.glob("v?_table_*.py")}
    assert set(experiments.COST_TABLES) <= files
    assert len(experiments.COST_TABLES) == 17


@pytest.mark.parametrize(
    ("paper", "ours", "unit", "agrees"),
    [
        ("4.2", 4.21, None, True),
        ("3.4", 3.47, None, True),  # truncated
        ("3.4", 3.51, None, False),
        ("569", 568.7, None, True),
        ("569", 570.0, None, False),
        ("1600", 1605.6, None, False),
        ("1600", 1605.6, 16, True),
        ("17", 17, None, True),
        ("s2", "s2", None, True),
        ("s2", "s1", None, False),
        ("113", None, None, None),
    ],
)
def test_compare(paper, ours, unit, agrees):
    assert compare("row", "quantity", paper, ours, unit=unit)["agrees"] is agrees


def test_table_on_the_terminal():
    rows = [
        compare("a", "M", "569", 568.74),
        compare("b", "M", "575", 568.74, erratum="misprint"),
        compare("c", "M", "600", 568.74),
        compare("d", "ms", "113", note="a telephone"),
    ]
    lines = format_table(rows).splitlines()
    assert lines[2].split() == ["a", "M", "569", "568.74", "-0.05", "%", "yes"]
    assert lines[3].endswith("erratum [1]")
    assert lines[4].endswith("NO")
    assert lines[5].endswith("quoted [2]")
    assert lines[6:] == ["[1] erratum: misprint", "[2] note: a telephone"]
