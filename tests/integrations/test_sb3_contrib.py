"""sb3-contrib's RecurrentPPO after `seqcells.swap` of its policy: it learns, predicts, is saved and loaded."""

import numpy as np
import pytest
import torch

import seqcells

pytestmark = pytest.mark.heavy
pytest.importorskip("sb3_contrib", reason="sb3-contrib is not here: make integrations installs it")

from sb3_contrib import RecurrentPPO  # noqa: E402

from benchmarks.integrations.sb3_contrib import ENVIRONMENTS, STEPS, algorithm  # noqa: E402


def test_it_learns_as_before():
    """The first rollout and the losses of its updates are the same; after them, rounding may change an action."""
    theirs = algorithm(epochs=2).learn(ENVIRONMENTS * STEPS)
    ours = algorithm(epochs=2)
    assert [*seqcells.swap(ours.policy, backend="cpu").adapted] == [""]
    ours.learn(ENVIRONMENTS * STEPS)
    np.testing.assert_array_equal(ours.rollout_buffer.actions, theirs.rollout_buffer.actions)
    np.testing.assert_allclose(ours.rollout_buffer.values, theirs.rollout_buffer.values, rtol=1e-4, atol=1e-5)
    for name in ("loss", "value_loss", "entropy_loss", "approx_kl"):
        found, expected = (each.logger.name_to_value[f"train/{name}"] for each in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(ours.policy.state_dict(), theirs.policy.state_dict(), rtol=1e-3, atol=1e-4)


def test_prediction_goes_on_over_steps_and_starts():
    theirs, ours = algorithm(), algorithm()
    seqcells.swap(ours.policy)
    rng, states = np.random.default_rng(0), [None, None]
    for step in range(20):
        seen, starts = (
            rng.normal(size=(ENVIRONMENTS, 2)).astype("float32"),
            rng.random(ENVIRONMENTS) < (step == 0) + 0.2,
        )
        found = [each.predict(seen, state, starts, True) for each, state in zip((theirs, ours), states, strict=True)]
        states = [state for _, state in found]
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5, atol=1e-6)


def test_by_torchs_operators_and_a_policy_of_the_same_class():
    made = algorithm()
    seqcells.swap(made.policy, backend="torch")
    made.learn(ENVIRONMENTS * STEPS)
    again = type(made.policy)(**made.policy._get_constructor_parameters())
    seen = np.zeros((ENVIRONMENTS, 2), "float32")
    for each in (made.policy, again):
        each.predict(seen, None, np.ones(ENVIRONMENTS, bool), True)


def test_files_go_both_ways(tmp_path):
    made = algorithm()
    seqcells.swap(made.policy)
    made.learn(ENVIRONMENTS * STEPS)
    made.save(tmp_path / "ours")
    again = RecurrentPPO.load(tmp_path / "ours", env=made.env)
    assert type(again.policy.lstm_actor) is torch.nn.LSTM
    torch.testing.assert_close(again.policy.state_dict(), made.policy.state_dict(), rtol=0, atol=0)
    seqcells.unswap(made.policy)
    assert type(made.policy) is type(again.policy)
    made.learn(ENVIRONMENTS * STEPS, reset_num_timesteps=False)
