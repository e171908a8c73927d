"""Work directories: whose they are, and what a damaged one says."""

import json
import os
import pathlib

import pytest

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.settings import make_settings
from keras_mobilenets.training import workdir as work


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(path: pathlib.Path) -> None:
    storage.write_json(path / work.SETTINGS, make_settings({}).as_dict())


def test_a_directory_that_was_made_in_vain_is_gone():
    for workdir in (None, "deep/run"):
        with pytest.raises(OSError, match="full"), work.claim(workdir, "digits"):
            raise OSError("the disk is full")
    assert not list(pathlib.Path().iterdir())


def test_what_a_killed_start_left_is_nobodys():
    path = pathlib.Path("run")
    path.mkdir()
    (path / work.LOCK).touch()
    (path / f"{storage.PARTIAL}123-settings.json").write_text("{")
    with work.claim("run", "digits") as directory:
        assert [file.name for file in directory.iterdir()] == [work.LOCK]
        begin(directory)
    assert [file.name for file in path.iterdir()] == [work.SETTINGS]


def test_a_file_of_the_users_is_not():
    path = pathlib.Path("run")
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty"):
        with work.claim("run", "digits"):
            pytest.fail("claimed")
    assert (path / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_is_claimed_once():
    with work.claim("run", "digits") as directory:
        begin(directory)
        with pytest.raises(UsageError, match="in use"), work.claim("run", "digits"):
            pytest.fail("claimed twice")
    with work.claim("run", "digits"):
        pass
    assert (pathlib.Path("run") / work.SETTINGS).is_file()


def test_names_are_short_enough_for_the_disk():
    with work.claim(None, "x" * 300) as directory:
        begin(directory)
    assert directory.parent == pathlib.Path(work.RUNS)


def test_a_kill_behind_the_report_leaves_nothing_for_good():
    path = pathlib.Path("run")
    (path / work.CHECKPOINTS).mkdir(parents=True)
    (path / work.CHECKPOINTS / "step-00000001.npz").write_bytes(b"x" * 100)
    begin(path)
    storage.write_json(path / work.REPORT, {})
    work.clear_leftovers(path)
    assert not (path / work.CHECKPOINTS).exists()


DEEP = "[" * 100_000
REPORT = {**make_settings({}).as_dict(), "classes": ["a", "b"], "epochs": 1}
DAMAGED = {
    "empty": "",
    "deeply nested": DEEP,
    "a list": "[]",
    "no settings": "{}",
    "no recipe": json.dumps({**REPORT, "recipe": {}}),
    "another kind of recipe": json.dumps({**REPORT, "recipe": [1]}),
    "classes of another kind": json.dumps({**REPORT, "classes": [1, 2]}),
    "no classes": json.dumps({k: v for k, v in REPORT.items() if k != "classes"}),
    "a resolution of another kind": json.dumps({**REPORT, "rho": "wide"}),
    "a variation of another network": json.dumps(
        {**REPORT, "variant": {"shallow": True}}
    ),
    "variations of another kind": json.dumps({**REPORT, "variant": [1]}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_report_is_named(text):
    pathlib.Path(work.REPORT).write_text(text)
    with pytest.raises(UsageError, match=r"report\.json"):
        work.read_report(pathlib.Path())


def test_reports_may_be_read_again():
    storage.write_json(work.REPORT, REPORT)
    settings, report = work.read_report(pathlib.Path())
    assert settings == make_settings({})
    assert report["classes"] == ["a", "b"]


def test_the_newest_run_is_found_though_others_vanish():
    for number in (1, 2):
        path = pathlib.Path(work.RUNS) / f"digits-{number}"
        path.mkdir(parents=True)
        begin(path)
        os.utime(path / work.SETTINGS, ns=(number * 10**9,) * 2)
    assert work.find_unfinished(None).name == "digits-2"
    pathlib.Path(work.RUNS, "digits-3").symlink_to("nowhere")
    assert work.find_unfinished(None).name == "digits-2"
