import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.training.averaging import get_averages

X = np.random.default_rng(0).normal(0, 1, (16, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


def make(units: int = 3, decay: float | None = 0.9, seed: int = 1) -> keras.Model:
    """A net with batch norm, dropout, optimizer slots and averages."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(units)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.Dropout(0.5, seed=seed)(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    recipe = km.recipes["quick"].replace(ema_decay=decay, weight_decay=0.0)
    model.compile(km.RMSprop(0.01, recipe=recipe.as_dict()), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def steps(model: keras.Model, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        losses.append(model.train_on_batch(X, Y))
        model.reset_metrics()
    return losses


def test_a_restored_model_takes_the_steps_of_the_saved_one(tmp_path):
    model = make()
    steps(model, 5)
    km.save_checkpoint(model, tmp_path / "run.npz")
    expected = steps(model, 5)
    other = make(seed=2)
    km.restore_checkpoint(other, tmp_path / "run.npz")
    assert steps(other, 5) == expected
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(get_averages(other), get_averages(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_two_replicas_restore_what_one_saved(tmp_path, two_replicas):
    model = make()
    steps(model, 3)
    km.save_checkpoint(model, tmp_path / "run.npz")
    with two_replicas.scope():
        other = make(seed=2)
        km.restore_checkpoint(other, tmp_path / "run.npz")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(keras.ops.convert_to_numpy(other.optimizer.iterations)) == 3


@pytest.mark.parametrize("other", [{"units": 4}, {"decay": None}], ids=str)
def test_a_checkpoint_of_another_run_changes_nothing(tmp_path, other):
    model = make()
    km.save_checkpoint(model, tmp_path / "run.npz")
    changed = make(**other)
    before = changed.get_weights()
    with pytest.raises(ValueError, match="does not fit: .* has shape"):
        km.restore_checkpoint(changed, tmp_path / "run.npz")
    for now, then in zip(changed.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"text"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "run.npz").write_bytes(content)
    with pytest.raises(ValueError, match="must be a checkpoint of save_checkpoint"):
        km.restore_checkpoint(make(), tmp_path / "run.npz")


def test_content_of_another_kind_is_refused(tmp_path):
    model = make()
    km.save_checkpoint(model, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as stored:
        whole = {name: stored[name] for name in stored.files}
    wrong = [
        {"model/0": np.full_like(whole["model/0"], "x", dtype="U1")},
        {"note": np.frombuffer(b"[1", np.uint8)},
        {"note": np.frombuffer(b"[]", np.uint8)},
        {"metrics": np.zeros(3)},
    ]
    for change in wrong:
        np.savez(tmp_path / "run.npz", **{**whole, **change})
        with pytest.raises(km.UsageError, match="must be a checkpoint of"):
            km.restore_checkpoint(model, tmp_path / "run.npz")
    np.save(tmp_path / "run.npy", np.zeros(3))
    with pytest.raises(km.UsageError, match="must be a checkpoint of"):
        km.restore_checkpoint(model, tmp_path / "run.npy")


def test_a_model_without_optimizer(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(km.UsageError, match="must be compiled"):
        km.save_checkpoint(model, tmp_path / "run.npz")
    with pytest.raises(km.UsageError, match="must be compiled"):
        km.restore_checkpoint(model, tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_impossible_paths_and_notes(tmp_path):
    model = make()
    for wrong in (None, 3, "", "a\0b", b"x", tmp_path / "none" / "run.npz", "~/"):
        with pytest.raises(km.UsageError, match="path must be"):
            km.save_checkpoint(model, wrong)
    for wrong in (None, 3, b"x", tmp_path):
        with pytest.raises(km.UsageError, match="path must be"):
            km.restore_checkpoint(model, wrong)
    for wrong in (0, "", [], "x", [("a", 1)]):
        with pytest.raises(km.UsageError, match="note must be a mapping"):
            km.save_checkpoint(model, tmp_path / "run.npz", wrong)
    assert not list(tmp_path.iterdir())


def test_weights_in_bfloat16(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        model, other = make(), make(seed=2)
    finally:
        keras.config.set_dtype_policy("float32")
    km.save_checkpoint(model, tmp_path / "run.npz")
    km.restore_checkpoint(other, tmp_path / "run.npz")
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        assert ours.dtype == "bfloat16"
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
