"""What was kept of the speed of forms, and what docs/deploy.md says of it."""

import json

import pytest

from experiments.benchmarks import deploy
from keras_mobilenets.deploy.forms import FORMS

KEPT = json.loads(deploy.RESULT.read_text())
DOCUMENT = (deploy.ROOT / "docs" / "deploy.md").read_text()


def test_both_networks_are_kept_in_every_form():
    assert list(KEPT) == ["mobilenet_v2 1.0, 224x224", "mobilenet_v1 1.0, 224x224"]
    for found in KEPT.values():
        assert found["threads"] == 1
        for batch in (1, 32):
            rows = [row["form"] for row in found["rows"] if row["batch"] == batch]
            assert rows == list(FORMS)


@pytest.mark.parametrize("case", KEPT)
def test_the_bars_are_of_the_rows(case):
    assert KEPT[case]["bars"] == deploy.ratios(KEPT[case]["rows"])
    assert len(KEPT[case]["bars"]) == len(deploy.BARS)


def test_a_ratio_is_of_single_images():
    def row(form, batch, time):
        times = dict.fromkeys(("median_ms", "least_ms", "cpu_ms", "least_cpu_ms"), time)
        return {"form": form, "batch": batch, **times}

    rows = [row("float32", 1, 8.0), row("int8", 1, 2.0), row("int8", 32, 80.0)]
    (ratio,) = deploy.ratios(rows)
    assert ratio["ratio"] == "int8 / float32"
    by = ("median", "least", "cpu", "least_cpu")
    assert {ratio[f"by_{of}"] for of in by} == {0.25}


def test_the_documents_table_is_what_was_found():
    """The least work of the processor, as a share of that of LiteRT in float32."""
    lines = []
    for form in FORMS:
        cells = []
        for found in KEPT.values():
            for batch in (1, 32):
                of = {r["form"]: r for r in found["rows"] if r["batch"] == batch}
                share = of[form]["least_cpu_ms"] / of["float32"]["least_cpu_ms"]
                cells.append(f"{share:.2f}")
        lines.append(f"| `{form}` | {' | '.join(cells)} |")
    assert "\n".join(lines) in DOCUMENT
