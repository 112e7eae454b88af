"""sb3-contrib's RecurrentPPO on CartPole without its velocities, in eight environments."""

import gymnasium
import numpy as np
from gymnasium.wrappers import TransformObservation
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from .case import Case, Step

ENVIRONMENTS, STEPS, UNITS = 8, 128, 128
POSITIONS = [0, 2]
"""The indices of the cart's position and the pole's angle."""


def environment() -> gymnasium.Env:
    """CartPole whose observations are the positions only."""
    env = gymnasium.make("CartPole-v1")
    space = env.observation_space
    seen = gymnasium.spaces.Box(space.low[POSITIONS], space.high[POSITIONS], dtype=np.float32)
    return Monitor(TransformObservation(env, lambda observation: observation[POSITIONS], seen))


def algorithm(seed: int = 0, epochs: int = 10) -> RecurrentPPO:
    """The algorithm before its first step."""
    policy = {"lstm_hidden_size": UNITS}
    options = {"n_steps": STEPS, "batch_size": 256, "n_epochs": epochs, "learning_rate": 1e-3, "seed": seed}
    made = RecurrentPPO("MlpLstmPolicy", DummyVecEnv([environment] * ENVIRONMENTS), policy_kwargs=policy, **options)
    made.set_logger(configure(format_strings=[]))
    return made


def _update():
    made = algorithm(epochs=1)

    def prepare() -> Step:
        made.learn(0)
        _, callback = made._setup_learn(STEPS * ENVIRONMENTS)
        made.collect_rollouts(made.env, callback, made.rollout_buffer, STEPS)

        def step() -> float:
            set_random_seed(0)  # the buffer shuffles with the global random state
            made.train()
            return made.logger.name_to_value["train/loss"]

        return step

    return made.policy, prepare


CASES = [Case("RecurrentPPO's update, LSTM(128)", _update, adapted=True)]
