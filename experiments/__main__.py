"""All tables of costs: `python -m experiments`."""

import importlib

from experiments import COST_TABLES
from experiments.report import report

if __name__ == "__main__":
    for name in COST_TABLES:
        table = importlib.import_module(f"experiments.{name}")
        report(table.__file__, table.__doc__, table.rows())
        print()
