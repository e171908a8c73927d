"""Which table and figure of the papers is where, and what came out.

`python -m experiments.index` writes the tables of docs/experiments.md anew from the
results that were kept; it runs no experiment.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from experiments import (
    COST_TABLES,
    v1_figure_4,
    v2_figure_1,
    v2_figure_5,
    v2_section_5,
)
from experiments.report import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs" / "experiments.md"
HEADER = "| paper item | file and command | status | result |"

COUNTED, PUBLISHED, COMPUTED = "counted", "published accuracies", "computed"
MEASURED = "counted and measured"
NOT_TRAINED = "counted; accuracy not trained"
MISSING = "not run"


# What these found, in words.
TEXTS = {
    "v1_figure_4": v1_figure_4,
    "v2_figure_1": v2_figure_1,
    "v2_figure_5": v2_figure_5,
    "v2_section_5": v2_section_5,
}


class Item(NamedTuple):
    """A row of the index. Without a file: why there is none."""

    name: str
    module: str
    status: str
    reason: str = ""


# The tables in which a training run of ours could stand, and does not yet.
TRAINABLE = ("v1_table_4", "v1_table_5", "v1_table_6", "v1_table_7")
OTHERS = (
    Item("V1 figure 4", "v1_figure_4", PUBLISHED),
    Item("V2 figure 1", "v2_figure_1", COMPUTED),
    Item("V2 figure 5", "v2_figure_5", PUBLISHED),
    Item("V2 section 5", "v2_section_5", MEASURED),
)
ABSENT = (
    Item("V1 figure 5", "", MISSING, "accuracy over parameters: as figure 4"),
    Item("V1 Table 13", "", MISSING, "detection: there are no heads here yet"),
    Item("V1 section 4, distillation", "", MISSING, "`train` knows no teacher yet"),
    Item("V2 figure 6", "", MISSING, "bottlenecks and shortcuts: takes hours"),
    Item("V2 Tables 5 to 7", "", MISSING, "detection and segmentation: no heads yet"),
)


def kept(module: str) -> dict[str, Any]:
    """What an experiment wrote down."""
    return json.loads((RESULTS / f"{module}.json").read_text())


def counts(rows: list[dict[str, Any]]) -> str:
    """How many cells agree, differ by an erratum, and are only quoted.

    >>> counts([{"agrees": True}, {"agrees": None}])
    '1 as printed, 1 quoted'
    """
    found = Counter(row["agrees"] for row in rows)
    words = {True: "as printed", False: "with an erratum", None: "quoted"}
    return ", ".join(f"{found[key]} {words[key]}" for key in words if found[key])


def items() -> list[Item]:
    """All rows, in the papers' order."""
    tables = [
        Item(
            "{} Table {}".format(*name.upper().split("_TABLE_")),
            name,
            NOT_TRAINED if name in TRAINABLE else COUNTED,
        )
        for name in COST_TABLES
    ]

    def place(item: Item) -> tuple[str, int, int]:
        paper, kind, number, *_ = re.findall(r"\w+", item.name)
        kinds = "figure", "Table", "Tables", "section"
        return paper, kinds.index(kind), int(number)

    return sorted((*tables, *OTHERS, *ABSENT), key=place)


def result(item: Item) -> str:
    """What came out, in a few words, from what was written down."""
    if not item.module:
        return item.reason
    found = kept(item.module)
    parts = (
        [counts(found["rows"])] if item.status != MEASURED and "rows" in found else []
    )
    if item.module in TEXTS:
        parts.append(TEXTS[item.module].text(found))
    return "; ".join(parts)


def index() -> str:
    """The table of all items, in Markdown."""
    lines = [HEADER, "|---|---|---|---|"]
    for item in items():
        where = "-"
        if item.module:
            path = f"../experiments/{item.module}.py"
            where = f"[`python -m experiments.{item.module}`]({path})"
        lines.append(f"| {item.name} | {where} | {item.status} | {result(item)} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The tables below it: titles, and text."""
    made = {}
    for module in (v2_figure_1, v2_section_5):
        made |= module.tables(kept(module.__name__.split(".")[-1]))
    return made


def refresh(text: str) -> str:
    """The document with all its tables as the results have them."""
    before, old = text.split(HEADER)
    text = before + index() + "\n\n" + old.split("\n\n", 1)[1]
    for title, lines in tables().items():
        before, old = text.split(f"\n{title}\n\n```\n")
        text = f"{before}\n{title}\n\n```\n{lines}\n```" + old.split("\n```", 1)[1]
    return text


def main() -> None:
    text = refresh(DOCUMENT.read_text())
    beside = DOCUMENT.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(DOCUMENT)
    print(index())


if __name__ == "__main__":
    main()
