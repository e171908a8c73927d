"""A run that was stopped, killed or damaged ends as if nothing had happened."""

import csv
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.storage import lock
from keras_mobilenets.training import job
from keras_mobilenets.training.callbacks import Follow
from keras_mobilenets.training.checkpoints import Checkpoints
from tests.training.noise import RUN, make_folder, train_until

pytestmark = pytest.mark.usefixtures("few_blocks")

SAME = ("history.csv", "report.json", "settings.json", "curves.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("noise") / "noise")


@pytest.fixture(scope="module")
def run(folder):
    """`train` on the folder; `stop_after` sends this process a SIGTERM."""

    def run(workdir, stop_after=None, **settings):
        given = {**RUN, "data": folder, "workdir": workdir, **settings}
        return train_until(stop_after, **given)

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run that nothing happens to."""
    return run(tmp_path_factory.mktemp("whole") / "run")


def assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    models = [
        keras.saving.load_model(path / "model.keras", compile=False)
        for path in (one, other)
    ]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (other / "checkpoints").exists()


@pytest.mark.parametrize(
    "step",  # the tenth: also with a damaged checkpoint, below
    [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (7, 10))],
)
def test_stopped_inside_at_the_end_and_in_the_next_epoch(step, run, whole, tmp_path):
    assert whole.report["steps_per_epoch"] == 7
    with pytest.raises(km.TrainingInterrupted, match=f"after step {step};"):
        run(tmp_path / "run", stop_after=step)
    assert not (tmp_path / "run" / "report.json").exists()
    kept = tmp_path / "run" / "checkpoints" / f"step-{step:08d}.npz"
    assert kept.is_file()
    resumed = run(tmp_path / "run")  # the same call
    assert resumed.report == whole.report
    assert_same(whole.workdir, tmp_path / "run")


# Statistics of each epoch's last batch alone, so that the loss goes up and down.
PATIENT = {
    "epochs": 30,
    "early_stopping_patience": 2,
    "learning_rate": 1e-12,
    "batch_norm_momentum": 0,
    "ema_decay": None,
}


@pytest.fixture(scope="module")
def ended(run, tmp_path_factory):
    """A run that ends as its patience does."""
    return run(tmp_path_factory.mktemp("ended") / "run", **PATIENT)


def test_early_stopping_goes_on_counting(run, ended, tmp_path):
    assert 3 <= ended.report["epochs"] < 30
    stop = 7 * (ended.report["epochs"] - 1) + 2  # after the best epoch
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "run", stop_after=stop, **PATIENT)
    run(tmp_path / "run", **PATIENT)
    assert_same(ended.workdir, tmp_path / "run")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, whole, tmp_path):
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "run", stop_after=10, checkpoint_steps=2)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [c.name for c in checkpoints] == ["step-00000009.npz", "step-00000010.npz"]
    content = checkpoints[-1].read_bytes()
    checkpoints[-1].write_bytes(content[: len(content) // 2])
    # What a kill in the middle of writing leaves is never looked at.
    (checkpoints[0].parent / ".partial-1-step-00000011.npz").write_bytes(content)
    with pytest.warns(UserWarning, match="step-00000010.npz.*trying the one before"):
        run(tmp_path / "run")
    assert_same(whole.workdir, tmp_path / "run")


def test_a_full_disk_does_not_end_the_run(run, whole, tmp_path, monkeypatch):
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "run", stop_after=3)
    (first,) = (tmp_path / "run" / "checkpoints").iterdir()
    before = first.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    too_small = min(len(before) // 2, 500_000)

    class Fill(Follow):  # no file of this process grows beyond, for some steps
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            full = 4 <= self.position.steps <= 6
            low = too_small if full else limits[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (low, limits[1]))

    monkeypatch.setattr(job, "Follow", Fill)
    with pytest.warns(UserWarning, match="no checkpoint after step 5"):
        km.train(
            **{**RUN, "data": whole.report["data"], "workdir": tmp_path / "run"},
            checkpoint_steps=2,
        )
    assert_same(whole.workdir, tmp_path / "run")


def test_what_cannot_be_resumed(run, whole, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="got none in runs/"):
        km.train(resume=True)
    with pytest.raises(ValueError, match="no settings.json: leave resume out"):
        km.train(resume=True, workdir=tmp_path)
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "runs" / "one", stop_after=2)
    with pytest.raises(ValueError, match="seed 0 there and 1 here.*own settings"):
        run(tmp_path / "runs" / "one", seed=1)
    with pytest.raises(ValueError, match="got resume=False"):
        run(tmp_path / "runs" / "one", resume=False)
    with lock(tmp_path / "runs" / "one" / ".lock"):
        with pytest.raises(ValueError, match="in use by a run that is going on"):
            run(tmp_path / "runs" / "one")
    with pytest.raises(ValueError, match="epochs 2 there and 3 here"):
        km.train(resume=True, epochs=3)
    # The newest unfinished run, with its own settings, from the command line.
    assert main(["train", "--resume", "--json"]) == 0
    assert_same(whole.workdir, tmp_path / "runs" / "one")
    # A finished run needs none, and says so by its report.
    again = km.train(resume=True, workdir=tmp_path / "runs" / "one")
    assert again.report == whole.report


def test_the_best_epoch_that_could_not_be_saved(run, ended, tmp_path, monkeypatch):
    """The disk was full just then: the best of the others is taken, and that is said.

    0.1.0 failed at the end, and again on every repetition.
    """
    losses = [float(row["val_loss"]) for row in history(ended.workdir)]
    best = losses.index(min(losses))
    assert best < len(losses) - 1
    save = Checkpoints.save

    def fail_once(self, model, step, *arguments):
        if step == 7 * (best + 1):
            self = Checkpoints(tmp_path / "no" / "such" / "folder")
        save(self, model, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", fail_once)
    with (
        pytest.warns(UserWarning, match="no checkpoint after step"),
        pytest.warns(UserWarning, match="could not be saved; the model is that of"),
    ):
        again = run(tmp_path / "again", **PATIENT)
    expected = min(loss for n, loss in enumerate(losses) if n != best)
    assert again.report["validation"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_weights_to_start_from_may_be_gone(run, whole, folder, tmp_path):
    start = tmp_path / "start.keras"
    shutil.copy(whole.workdir / "model.keras", start)
    expected = run(tmp_path / "whole", weights=start)
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "run", stop_after=3, weights=start)
    start.unlink()
    notes = tmp_path / "run" / "checkpoints" / "notes.txt"  # of the user
    notes.write_text("mine")
    resumed = run(tmp_path / "run", weights=start)
    assert resumed.report == expected.report
    assert notes.read_text() == "mine"
    assert [p.name for p in notes.parent.iterdir()] == ["notes.txt"]


def test_resumed_from_another_folder_with_more_and_fewer_images(
    run, whole, folder, tmp_path, monkeypatch
):
    """A run keeps the images that it began with; what breaks has a stand-in."""
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine / "noise")
    monkeypatch.chdir(mine)
    with pytest.raises(km.TrainingInterrupted):
        run(tmp_path / "run", stop_after=3, data="./noise")
    first, second, *_ = sorted((mine / "noise").rglob("*.png"))
    first.write_bytes(b"broken by now")
    shutil.copy(second, second.with_name("new.png"))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=first.name):
        resumed = km.train(resume=True, workdir=tmp_path / "run", verbose=False)
    assert resumed.report["images"] == whole.report["images"]
    assert resumed.report["data"] == str(mine / "noise")


# How any is heard, a hang-up too: tests/test_stopping.py.
@pytest.mark.parametrize(
    "name", ["SIGINT", pytest.param("SIGHUP", marks=pytest.mark.slow)]
)
def test_other_wishes_to_stop(name, folder, tmp_path, monkeypatch):
    class Stop(Follow):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.position.steps == 3:
                os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(job, "Follow", Stop)
    with pytest.raises(km.TrainingInterrupted, match="after step 3;"):
        km.train(**{**RUN, "data": folder, "workdir": tmp_path / "run"})
    assert (tmp_path / "run" / "checkpoints" / "step-00000003.npz").is_file()


def history(workdir: pathlib.Path) -> list[dict[str, str]]:
    with open(workdir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_line_has_a_status_of_its_own(run, folder, tmp_path, capsys):
    arguments = ["train", RUN["name"], "--data", str(folder), "--workdir"]
    arguments += [str(tmp_path / "run"), "--json"]
    for field, value in RUN.items():
        if field in ("alpha", "resolution", "recipe", "epochs", "batch_size"):
            arguments += [f"--{field.replace('_', '-')}", str(value)]
        elif field not in ("name", "verbose"):
            arguments += ["--set", f"{field}={value}"]

    class Stop(Follow):
        def on_train_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "Follow", Stop)
        assert main(arguments) == 4
    error = capsys.readouterr().err
    assert "asked to stop, after step 1; the state is kept in" in error
    assert "Traceback" not in error


def steps_in(checkpoints: pathlib.Path) -> set[str]:
    """Of checkpoints; a run that ends takes their folder away at any moment."""
    try:
        return {name for name in os.listdir(checkpoints) if name.startswith("step-")}
    except FileNotFoundError:
        return set()


def kill(
    arguments: list[str], checkpoints: pathlib.Path, seed: int, of_group: bool
) -> bool:
    """Start a run and kill it at a random moment after a new checkpoint.

    Returns whether it was killed, not finished. `of_group` kills one of the
    processes that it has started.
    """
    chance = random.Random(seed)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    before = steps_in(checkpoints)
    while process.poll() is None:
        if steps_in(checkpoints) - before:
            time.sleep(chance.random() * 0.3)
            target = process.pid
            if of_group:
                listed = ["pgrep", "-P", str(process.pid)]
                children = subprocess.run(listed, capture_output=True, text=True)
                target = int(chance.choice(children.stdout.split()))
            os.kill(target, signal.SIGKILL)
            return process.wait() != 0
        time.sleep(0.005)
    return False


KILLS = {1: 20, 2: 3}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_random_steps(workers, folder, tmp_path):
    """Killed again and again; one device, and either of two workers."""
    settings = {**RUN, "data": str(folder), "deterministic": True, "epochs": 6}
    settings |= {"batch_size": 16 // workers, "checkpoint_steps": 2}
    program = (
        "import sys, keras_mobilenets as km; "
        f"km.train(**{settings!r}, workdir=sys.argv[1])"
    )
    arguments = [sys.executable, "-c", program]
    if workers > 1:
        arguments = [sys.executable, "-m", "keras_mobilenets", "launch", "-n", "2"]
        arguments += ["--", "train", RUN["name"], "--deterministic"]
        for field, value in settings.items():
            if field in ("name", "verbose", "deterministic"):
                continue
            if field in ("data", "checkpoint_steps", "batch_size", "recipe", "epochs"):
                arguments += [f"--{field.replace('_', '-')}", str(value)]
            elif field in ("alpha", "resolution"):
                arguments += [f"--{field}", str(value)]
            else:
                arguments += ["--set", f"{field}={value}"]
        arguments += ["--workdir"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*arguments, str(whole)], check=True, stdout=subprocess.DEVNULL)
    kills = sum(
        kill([*arguments, str(killed)], killed / "checkpoints", seed, workers > 1)
        for seed in range(KILLS[workers])
    )
    assert kills >= min(KILLS[workers], 10)
    if not (killed / "report.json").exists():
        subprocess.run([*arguments, str(killed)], check=True, stdout=subprocess.DEVNULL)
    assert_same(whole, killed)
    assert json.loads((whole / "report.json").read_text())["deterministic"]
    shutil.rmtree(killed)
