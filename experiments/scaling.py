"""How fast 1 to 1,024 GPUs train the MobileNets on ImageNet, and what each must hold.

    python -m experiments.scaling [--gpu v100] [--step-ms 60] [--link-efficiency 0.5]

Prints the tables of scaling.md and, where no option says otherwise, brings it up to
date, with scaling.json and scaling.png in experiments/results. `scaling_model` has the
formulas, `scaling_assumptions` the figures that they rest on. Runs in seconds, without
TensorFlow.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import scaling_model as model
from experiments.scaling_assumptions import (
    ASSUMPTIONS,
    BENCHMARK,
    CHECKS,
    GPUS,
    LINKS,
    RESULTS,
    RTX_3090,
    defaults,
)
from keras_mobilenets.architecture import cost
from keras_mobilenets.recipe import get_recipe
from keras_mobilenets.text import table

RESULT, PLOT = RESULTS / "scaling.json", RESULTS / "scaling.png"
TEXT = Path(__file__).with_suffix(".md")
NETWORKS = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}  # and recipes
CLASSES = 1001  # slim's ImageNet
# What is computed, beside the package as it is: changed assumptions, and options.
KINDS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "as built": ({}, {}),
    "Keras'": ({"norm_passes": 32, "norm_kernels": 20}, {}),
    "own": ({}, {"synchronized": False}),
    "one ring": ({}, {"algorithm": "ring"}),
}
COMPARED = ("gpus", "images_per_s", "efficiency")  # of all but the first
LABELS = {
    "as built": "batch norm synchronised, as built",
    "Keras'": "synchronised, in Keras' operations",
    "own": "statistics of each GPU's own",
}
SERVERS = ((1, 1), (4, 1), (16, 1), (16, 4), (64, 16), (256, 64))  # after workers
MESSAGES = (4, 2**22)  # bytes of the measured all-reduces that give hop and bandwidth


def compute(gpu: str, given: dict[str, float], **how: Any) -> dict[str, Any]:
    """Everything that the tables show, ready for JSON."""
    chosen = GPUS[gpu]
    results: dict[str, Any] = {"gpu": gpu, "assumptions": given, **how}
    for name, recipe_name in NETWORKS.items():
        price, recipe = cost(name, classes=CLASSES), get_recipe(recipe_name)
        per_gpu = model.memory_bytes(price, recipe, recipe.batch_size, 2, given)
        messages = model.norm_messages(price)
        results[name] = {
            "recipe": recipe_name,
            "batch": recipe.batch_size,
            "gradient_bytes": model.gradient_bytes(price),
            "norm_messages": len(messages),
            "norm_bytes": sum(messages),
            "memory_bytes": per_gpu,
            **{
                kind: {
                    link: model.sweep(
                        price, recipe, chosen, LINKS[link], given | changed,
                        **(how | options),
                    )
                    for link in LINKS
                }
                for kind, (changed, options) in KINDS.items()
            },
            "asynchronous": {
                link: [
                    model.predict_asynchronous(
                        price, recipe, *counts, chosen, LINKS[link], given
                    )
                    for counts in SERVERS
                ]
                for link in LINKS
            },
        }  # fmt: skip
        for kind in list(KINDS)[1:]:
            for rows in results[name][kind].values():
                rows[:] = [{key: row[key] for key in COMPARED} for row in rows]
    results["checks"] = checks(given)
    results["loopback"] = list(loopback())
    return json.loads(
        json.dumps(results), parse_float=lambda x: float(f"{float(x):.6g}")
    )


def checks(given: dict[str, float]) -> list[dict[str, float]]:
    """Published images a second of another GPU against the model's."""
    rows = []
    for alpha, published in CHECKS.items():
        price = cost("mobilenet_v2", alpha=alpha, bytes_per_element=2)
        ours = 512 / model.compute_seconds(price, 512, RTX_3090, given)
        row = {"alpha": alpha, "published": published, "model": round(ours)}
        rows.append(row | {"ratio": round(ours / published, 3)})
    return rows


def loopback() -> Iterator[dict[str, Any]]:
    """What messages cost two processes of one machine: measured, and by the model.

    The model gets the all-reduces as measured by themselves. Measured is what two
    workers take longer than two processes which do the same without messages.
    """
    measured = json.loads(BENCHMARK.read_text())["steps"]
    for case, figures in measured.items():
        name, alpha, size, _ = case.split()
        price = cost(name, alpha=float(alpha), resolution=int(size))
        seconds = figures["workers"]["all_reduce_s"]
        short, long = (seconds[str(size)] for size in MESSAGES)
        bandwidth = (MESSAGES[1] - MESSAGES[0]) / (long - short)
        sizes = [*model.norm_messages(price), model.gradient_bytes(price)]
        predicted = sum(short + size / bandwidth for size in sizes)
        step = figures["workers"]["step_s"]
        apart = figures["apart_synchronized"]["step_s"]
        yield {
            "case": case,
            "message_ms": 1e3 * short,
            "gbit_per_s": 8e-9 * bandwidth,
            "messages": len(sizes),
            "step_ms": 1e3 * step,
            "measured_ms": 1e3 * (step - apart),
            "model_ms": 1e3 * predicted,
            "measured_share": 1 - apart / step,
            "model_share": predicted / (predicted + apart),
        }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Titles and tables, as printed and as scaling.md has them."""
    made = {}
    for name in NETWORKS:
        network = results[name]
        for link, rows in network["as built"].items():
            header = [
                "GPUs", "batch", "rate", "step ms", "unfused", "norm ms", "gradient ms",
                "images/s", "efficiency %", "epoch min", "run h", "GB a GPU", "mind",
            ]  # fmt: skip
            made[f"{name} 1.0, 224 px, {results['gpu']}, {link} a machine"] = table(
                header,
                [
                    (
                        row["gpus"],
                        row["global_batch"],
                        f"{row['learning_rate']:.4g}",
                        *(
                            _number(row[key])
                            for key in (
                                "step_ms", "unfused_ms", "norm_ms", "gradient_ms",
                                "images_per_s",
                            )
                        ),
                        _percent(row["efficiency"]),
                        _number(row["epoch_min"]),
                        _number(row["run_h"]),
                        f"{row['memory_gb']:.1f}",
                        row["warnings"],
                    )
                    for row in rows
                ],
            )  # fmt: skip
    for name in NETWORKS:
        network = results[name]
        columns = {
            f"{kind}, {link.split()[0]}": network[kind][link]
            for link in LINKS
            for kind in KINDS
        }
        made[f"{name}: efficiency in percent"] = table(
            ["GPUs", *columns],
            [
                (rows[0]["gpus"], *(_percent(row["efficiency"]) for row in rows))
                for rows in zip(*columns.values(), strict=True)
            ],
        )
    made["Parameter servers, mobilenet_v2"] = table(
        ["network", "workers", "servers", "images/s", "efficiency %", "stale by",
         "limit"],
        [
            (
                link, row["workers"], row["servers"], _number(row["images_per_s"]),
                _percent(row["efficiency"]), row["staleness"], row["limit"],
            )
            for link, rows in results["mobilenet_v2"]["asynchronous"].items()
            for row in rows
        ],
    )  # fmt: skip
    kinds = list(results["mobilenet_v2"]["memory_bytes"])
    made["Memory of a GPU in MB, of several"] = table(
        ["network", *kinds],
        [
            (name, *(_number(results[name]["memory_bytes"][k] / 1e6) for k in kinds))
            for name in NETWORKS
        ],
    )
    made["Published images a second of one RTX 3090"] = table(
        ["V2, alpha", "published", "model", "ratio"],
        [tuple(row.values()) for row in results["checks"]],
    )
    made["Two processes on this machine"] = table(
        ["network", "a message ms", "Gbit/s", "messages", "step ms",
         "messages ms", "model ms", "share %", "model %"],
        [
            (
                row["case"],
                *(
                    _number(row[key])
                    for key in (
                        "message_ms", "gbit_per_s", "messages", "step_ms",
                        "measured_ms", "model_ms",
                    )
                ),
                _percent(row["measured_share"]),
                _percent(row["model_share"]),
            )
            for row in results["loopback"]
        ],
    )  # fmt: skip
    return made


def refresh(text: str, made: dict[str, str]) -> str:
    """The text with its tables replaced, each below its title."""
    for title, lines in made.items():
        before, old = text.split(f"\n{title}\n\n```\n")
        text = f"{before}\n{title}\n\n```\n{lines}\n```" + old.split("\n```", 1)[1]
    return text


def plot(results: dict[str, Any], path: Path) -> None:
    """Images a second and efficiency over the number of GPUs."""
    colors = dict(zip(LINKS, ("#ee6677", "#4477aa", "#228833"), strict=True))
    styles = {"as built": "-", "Keras'": "--", "own": ":"}
    figure = Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, name in enumerate(NETWORKS):
        speed, share = grid[:, column]
        for kind, style in styles.items():
            for link, rows in results[name][kind].items():
                gpus = [row["gpus"] for row in rows]
                look = {"color": colors[link], "linestyle": style}
                label = link if kind == "as built" else None
                speed.plot(gpus, [r["images_per_s"] for r in rows], label=label, **look)
                share.plot(gpus, [100 * r["efficiency"] for r in rows], **look)
        rows = results[name]["as built"]["100 Gbit/s"]
        ideal = [rows[0]["images_per_s"] * row["gpus"] for row in rows]
        speed.plot(gpus, ideal, color="0.6", linewidth=0.8, label="ideal")
        for kind, style in styles.items():
            speed.plot([], [], color="k", linestyle=style, label=f"{LABELS[kind]}")
        for axes in (speed, share):
            axes.axvspan(
                model.LARGE_BATCH / results[name]["batch"], gpus[-1], color="0.93",
                label=f"batch above {model.LARGE_BATCH:,}",
            )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_xlim(1, gpus[-1])
            axes.set_xticks(gpus, gpus)
            axes.grid(alpha=0.3)
        speed.set_yscale("log")
        speed.set_title(f"{name}, 224 px, {results[name]['batch']} images a GPU")
        share.set_xlabel(f"GPUs ({results['gpu']})")
        share.set_ylim(0, 105)
    grid[0, 0].set_ylabel("images a second")
    grid[1, 0].set_ylabel("efficiency, %")
    grid[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", choices=GPUS, default="a100")
    parser.add_argument("--step-ms", type=float, help="of one GPU alone, measured")
    for name, each in ASSUMPTIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=each.value,
            help=f"default {each.value:g}; {each.source}".replace("%", "%%"),
        )
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ASSUMPTIONS}
    how = {"step_seconds": options.step_ms / 1e3} if options.step_ms else {}
    results = compute(options.gpu, given, **how)
    made = tables(results)
    for title, text in made.items():
        print(f"{title}\n\n{text}\n")
    if given == defaults() and not how and options.gpu == parser.get_default("gpu"):
        text = refresh(TEXT.read_text(), made)
        for path, new in ((RESULT, json.dumps(results, indent=1) + "\n"), (TEXT, text)):
            beside = path.with_suffix(".tmp")
            beside.write_text(new)
            beside.replace(path)
        plot(results, PLOT)


if __name__ == "__main__":
    main()
