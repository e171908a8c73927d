"""The papers' tables and figures, one readable file each.

`python -m experiments` prints all tables of costs and writes them to
`experiments/results`; `python -m experiments.v1_table_6` does one.
"""

COST_TABLES = (
    *(f"v1_table_{number}" for number in (*range(1, 13), 14)),
    *(f"v2_table_{number}" for number in range(1, 5)),
)
