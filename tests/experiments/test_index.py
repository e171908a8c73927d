"""docs/experiments.md says what the results say."""

import re

from experiments import COST_TABLES, index


def test_the_documents_tables_are_the_results():
    text = index.DOCUMENT.read_text()
    assert index.refresh(text) == text
    assert index.index() in text
    for title, lines in index.tables().items():
        assert f"\n{title}\n\n```\n{lines}\n```\n" in text


def test_what_differs_is_written_anew(monkeypatch, tmp_path, capsys):
    text = index.DOCUMENT.read_text()
    document = tmp_path / "experiments.md"
    document.write_text(
        text.replace("| counted |", "| other |").replace("0.75", "0.57")
    )
    assert document.read_text() != text
    monkeypatch.setattr(index, "DOCUMENT", document)
    index.main()
    assert document.read_text() == text
    assert index.index() in capsys.readouterr().out


def test_every_result_is_listed():
    """All that is kept under a table's or figure's name, and nothing else."""
    kept = {path.stem for path in index.RESULTS.glob("v?_*.json")}
    listed = [item.module for item in index.items() if item.module]
    assert sorted(listed) == sorted(kept)
    assert set(COST_TABLES) <= kept


def test_the_rows_are_in_the_papers_order():
    names = [item.name for item in index.items()]
    tables = [name for name in names if re.fullmatch(r"V1 Table \d+", name)]
    assert tables == [f"V1 Table {number}" for number in range(1, 15)]
    figures = [name for name in names if name.startswith("V2 figure")]
    assert figures == ["V2 figure 1", "V2 figure 5", "V2 figure 6"]


def test_counts():
    rows = [{"agrees": each} for each in (True, None, True, False)]
    assert index.counts(rows) == "2 as printed, 1 with an erratum, 1 quoted"
    assert index.counts(rows[1:2]) == "1 quoted"
