"""Six training steps beside those of the authors' own code."""

import numpy as np
import pytest

import keras_mobilenets as km
from tests import golden

# Tolerances of tests/data/golden/README.md's files: losses of the six steps, norms
# of the tensors after each, inference logits after each.
FLOAT32 = ([1e-4, 1e-4, 2e-4, 2e-4, 5e-4, 1e-3], 2e-4, 1e-3)
FLOAT64 = ([5e-7] * 6, 3e-7, 1e-7)
GOLDEN = {
    "A_lr1e-5": ("mobilenet_v2", 0.35, "slim_v2", *FLOAT32),
    "C_lr1e-5": ("mobilenet_v1", 0.25, "slim_v1", *FLOAT32),
    "A_f64_lr1e-5": ("mobilenet_v2", 0.35, "slim_v2", *FLOAT64),
    "C_f64_lr1e-5": ("mobilenet_v1", 0.25, "slim_v1", *FLOAT64),
}


def check_golden_trajectory(case: str) -> None:
    name, alpha, recipe, loss_bars, norm_bar, logits_bar = GOLDEN[case]
    exact = "f64" in case
    stored = golden.load(case)
    model = km.build(
        name,
        alpha=alpha,
        resolution=96,
        classes=10,
        classifier_activation=None,
        dropout=0.0,
    )
    golden.set_weights(model, stored, inference=False)
    km.compile(
        model,
        recipe,
        steps_per_epoch=1000,
        learning_rate=1e-5,
        decay_rate=1.0,
        ema_decay=None,
    )
    statistics = stored["kinds"] == "moving_variance"
    for step in range(6):
        loss = model.train_on_batch(golden.images(step, 96), golden.labels(step, 10))
        model.reset_metrics()
        loss = loss[0] if isinstance(loss, (list, tuple)) else loss
        assert abs(loss - stored["loss_total"][step]) < loss_bars[step] * loss
        norms, expected = golden.norms(model.weights), stored["steps_l2"][step]
        # In float64 slim's unfused kernel feeds the biased variance; see *_unbiased.
        compared = (expected > 0) & ~(statistics if exact else False)
        difference = np.abs(norms - expected)[compared] / expected[compared]
        assert difference.max() < norm_bar
        if not exact:
            logits = np.array(model(golden.images(100, 96), training=False))
            each = stored["eval_logits_each_step"][step]
            assert golden.deviation(logits, each) < logits_bar
    final = stored["final_unbiased_l2" if exact else "final_l2"][statistics]
    norms = golden.norms(model.weights)[statistics]
    assert (np.abs(norms - final) / final).max() < (1e-6 if exact else 5e-6)
    if exact:
        logits = np.array(model(golden.images(100, 96), training=False))
        assert golden.deviation(logits, stored["eval_logits_unbiased"]) < 1e-7
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    for row, index in enumerate(stored["slot_index"].astype(int)):
        slot = position[id(model.weights[index])]
        for kind, slots, bar in (
            ("rms", model.optimizer._mean_squares, 1e-6 if exact else 0.1),
            ("momentum", model.optimizer._momentum_buffers, 1e-6 if exact else 0.06),
        ):
            expected = stored[f"slot_{kind}_l2"][row]
            (norm,) = golden.norms([slots[slot]])
            assert abs(norm - expected) <= bar * expected


@pytest.mark.parametrize(
    "case", [pytest.param("A_lr1e-5", marks=pytest.mark.slow), "C_lr1e-5"]
)
def test_six_steps_are_those_of_the_authors_code(case):
    check_golden_trajectory(case)


@pytest.mark.parametrize("case", ["A_f64_lr1e-5", "C_f64_lr1e-5"])
def test_six_steps_are_those_of_the_authors_code_in_float64(case, float64):
    check_golden_trajectory(case)
