"""Bottlenecks in groups: what was measured, and that measuring works."""

import json

import pytest

from experiments import report, v2_section_5
from keras_mobilenets.architecture.tables import NETWORKS


@pytest.fixture(scope="module")
def kept():
    return json.loads((report.RESULTS / "v2_section_5.json").read_text())


def test_what_is_counted(kept):
    # block_2 of 448 pixels: 96 channels at 224 and at 112, in float32, of each image
    wide = 4 * 96 * (224**2 + 112**2)
    for row in kept["rows"]:
        if row["resolution"] == 448 and row["splits"] in (2, 3):
            share = 1 - 1 / row["splits"]
            saved = wide * share * row["batch"] / 1e6
            assert row["counted_saving_mb"] == pytest.approx(saved, abs=0.06)


def test_every_case_was_measured(kept):
    found = [(r["resolution"], r["batch"], r["splits"]) for r in kept["rows"]]
    assert found == [
        (*case, splits) for case in v2_section_5.CASES for splits in v2_section_5.SPLITS
    ]


def test_numbers_of_a_row_belong_together(kept):
    whole = {}
    for row in kept["rows"]:
        case = row["resolution"], row["batch"]
        whole.setdefault(case, row)
        if row["splits"] is None:
            continue
        saved = whole[case]["peak_mb"] - row["peak_mb"]
        assert row["measured_saving_mb"] == pytest.approx(saved, abs=0.11)
        ratio = row["seconds"] / whole[case]["seconds"]
        assert row["time_ratio"] == pytest.approx(ratio, rel=0.02)
        share = saved / row["counted_saving_mb"]
        assert row["measured_of_counted"] == pytest.approx(share, rel=0.02)


def test_large_images_need_less(kept):
    large = [r for r in kept["rows"] if r["splits"] and r["resolution"] >= 448]
    assert len(large) == 6
    assert min(row["measured_of_counted"] for row in large) >= 0.6
    assert max(row["time_ratio"] for row in large if row["splits"] == 2) <= 1.15


@pytest.mark.parametrize("splits", [None, 2])
def test_a_case(splits, monkeypatch, capsys):
    whole = NETWORKS["mobilenet_v2"]
    few = whole._replace(rows=(*whole.rows[:3], whole.rows[-1]))
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", few)
    v2_section_5.run_case(32, 2, splits, runs=2)
    said = json.loads(capsys.readouterr().out)
    assert 0 < said["seconds"] < 60
    assert 100 < said["peak_mb"] < 100_000


def test_rows_and_table(monkeypatch):
    """The best of several processes, from what each of them says."""
    said = iter([(2.0, 900.0), (2.2, 700.0), (1.8, 910.0), (2.1, 690.0)])
    monkeypatch.setattr(v2_section_5, "SPLITS", (None, 2))
    monkeypatch.setattr(
        v2_section_5,
        "measure_case",
        lambda *case: dict(zip(("seconds", "peak_mb"), next(said), strict=True)),
    )
    plain, split = v2_section_5.measure([(448, 16)], processes=2, runs=1)
    assert (plain["seconds"], plain["peak_mb"]) == (1.8, 900)
    assert (split["seconds"], split["peak_mb"]) == (2.1, 690)
    assert split["time_ratio"] == 1.167
    assert split["measured_saving_mb"] == 210
    (text,) = v2_section_5.tables({"rows": [plain, split]}).values()
    assert text.splitlines()[2].split()[:5] == ["448", "16", "-", "1800", "900"]
    sentence = v2_section_5.text({"rows": [plain, split]})
    assert "in 1.167 to 1.167 of the time" in sentence


@pytest.mark.slow
def test_a_process_of_its_own():
    said = v2_section_5.measure_case(32, 1, 3, 1)
    assert said["seconds"] > 0
    assert said["peak_mb"] > 200
