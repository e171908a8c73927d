"""The paper's value beside ours: one row of it, and a table of the rows.

A row agrees where ours is within one unit of the last digit that the paper
prints, since the papers round some values and truncate others. The papers count
kernels and the classifier's bias as parameters, but not batch norm.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture import Layer, make_plan, plan_cost
from keras_mobilenets.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("row", "quantity", "paper", "ours", "deviation", "agrees")
CLASSES = 1000  # the classifier in both papers' tables


def compare(
    row: str,
    quantity: str,
    paper: str,
    ours: float | str | None = None,
    *,
    unit: float | None = None,
    erratum: str = "",
    note: str = "",
) -> dict[str, Any]:
    """One value of a table: as the paper prints it, and as we count it.

    Without `ours` the value is only quoted. `unit` replaces the unit of the last
    printed digit where the paper's trailing zeros are rounding. `erratum` says
    how the paper errs, for a row that therefore does not agree.
    """
    deviation = None
    if ours is None:
        agrees = None
    elif isinstance(ours, str):
        agrees = ours == paper
    else:
        printed = Decimal(paper)
        unit = unit or 10.0 ** printed.as_tuple().exponent
        agrees = abs(ours - float(printed)) < unit
        deviation = round(100 * (ours / float(printed) - 1), 4)
    return {
        "row": row,
        "quantity": quantity,
        "paper": paper,
        "ours": ours,
        "deviation_percent": deviation,
        "agrees": agrees,
        "erratum": erratum,
        "note": note,
    }


def kernels_and_bias(plan: Iterable[Layer]) -> int:
    """The parameters the papers count: all but batch norm's."""
    return sum(
        layer.trainable_params - 2 * layer.layer.channels_out * layer.layer.batch_norm
        for layer in plan_cost(tuple(plan)).layers
    )


def compare_network(
    row: str,
    macs: str,
    params: str,
    name: str,
    *,
    errata: tuple[str, str] = ("", ""),
    **settings: Any,
) -> list[dict[str, Any]]:
    """A network's mult-adds and parameters, both in millions, as two rows."""
    plan = make_plan(name, **({"classes": CLASSES} | settings))
    counted = plan_cost(plan).macs, kernels_and_bias(plan)
    quantities = "mult-adds (M)", "params (M)"
    return [
        compare(row, quantity, paper, ours / 1e6, erratum=erratum)
        for quantity, paper, ours, erratum in zip(
            quantities, (macs, params), counted, errata, strict=True
        )
    ]


def quote_network(row: str, macs: str, params: str) -> list[dict[str, Any]]:
    """The same two rows for a network that is not ours."""
    return [
        compare(row, "mult-adds (M)", macs),
        compare(row, "params (M)", params),
    ]


def _cells(row: dict[str, Any], mark: str) -> tuple[str, ...]:
    ours, deviation = row["ours"], row["deviation_percent"]
    deviates = "erratum" if row["erratum"] else "NO"
    verdict = {True: "yes", False: deviates, None: "quoted"}[row["agrees"]]
    return (
        row["row"],
        row["quantity"],
        row["paper"],
        {float: "{:.6g}", type(None): "-"}.get(type(ours), "{}").format(ours),
        "" if deviation is None else f"{deviation:+.2f} %",
        f"{verdict} {mark}".strip(),
    )


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows in aligned columns, errata and notes numbered below."""
    remarks: list[str] = []
    lines = []
    for row in rows:
        marks = []
        for kind in ("erratum", "note"):
            if not row[kind]:
                continue
            remark = f"{kind}: {row[kind]}"
            if remark not in remarks:
                remarks.append(remark)
            marks.append(f"[{remarks.index(remark) + 1}]")
        lines.append(_cells(row, " ".join(marks)))
    notes = [f"[{number}] {remark}" for number, remark in enumerate(remarks, 1)]
    return "\n".join([table(COLUMNS, lines), *notes])


def report(file: str, notebook: str, rows: list[dict[str, Any]]) -> None:
    """Print a table and write it to results, under the experiment's name."""
    title = notebook.splitlines()[0]
    print(title, format_table(rows), sep="\n")
    keep(file, {"title": title, "rows": rows})


def keep(file: str, results: dict[str, Any]) -> None:
    """Write what an experiment found to results, under its name."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{Path(file).stem}.json"
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps(results, indent=1) + "\n")
    whole.replace(path)


def keep_figure(file: str, figure: Figure) -> None:
    """The same for its figure, as PNG and SVG.

    The SVG has no date and no random names, so that only what changed differs.
    """
    from matplotlib import rc_context  # the tables need none

    RESULTS.mkdir(exist_ok=True)
    for suffix, metadata in {"png": None, "svg": {"Date": None}}.items():
        path = RESULTS / f"{Path(file).stem}.{suffix}"
        whole = path.with_suffix(f".tmp.{suffix}")
        with rc_context({"svg.hashsalt": path.stem}):
            figure.savefig(whole, dpi=100, metadata=metadata)
        whole.replace(path)
