"""TorchRL's PPO on a batch of 16 × 100 steps, in which an episode begins every 25 steps on average."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import (
    GRUModule,
    LSTMModule,
    OneHotCategorical,
    ProbabilisticActor,
    ValueOperator,
    set_recurrent_mode,
)
from torchrl.objectives import ClipPPOLoss

from .case import Case, Step, descent

BATCH, STEPS, FEATURES, UNITS, ACTIONS = 16, 100, 8, 128, 4
KINDS = {"LSTM": (LSTMModule, ("h", "c")), "GRU": (GRUModule, ("h",))}


def _ppo(kind: str, layers: int):
    def make():
        module, states = KINDS[kind]
        keys = {"in_keys": ["observation", *states], "out_keys": ["features", *(("next", s) for s in states)]}
        recurrent = module(FEATURES, UNITS, num_layers=layers, **keys)
        head = TensorDictModule(nn.Linear(UNITS, ACTIONS), ["features"], ["logits"])
        policy = TensorDictSequential(recurrent, head)
        value = ValueOperator(nn.Linear(UNITS, 1), in_keys=["features"])
        both = nn.ModuleList([policy, value])

        def prepare() -> Step:
            sampled = {"distribution_class": OneHotCategorical, "return_log_prob": True}
            actor = ProbabilisticActor(policy, in_keys=["logits"], **sampled)
            losses = ClipPPOLoss(actor, TensorDictSequential(policy, value))
            batch = _batch()

            def loss() -> torch.Tensor:
                with set_recurrent_mode(True):
                    found = losses(batch.clone())
                return found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]

            return descent(losses, loss)

        return both, prepare

    return make


def _batch() -> TensorDict:
    shape = BATCH, STEPS
    action = torch.randint(ACTIONS, shape)
    return TensorDict(
        {
            "observation": torch.randn(*shape, FEATURES),
            "is_init": torch.rand(*shape, 1) < 1 / 25,
            "action": nn.functional.one_hot(action, ACTIONS),
            "action_log_prob": torch.full(shape, -1.4),
            "advantage": torch.randn(*shape, 1),
            "value_target": torch.randn(*shape, 1),
        },
        shape,
    )


CASES = [
    Case("PPO, LSTM(128)", _ppo("LSTM", 1), adapted=True),
    Case("PPO, GRU(128)", _ppo("GRU", 1), adapted=True),
    Case("PPO, LSTM(128), 2 layers", _ppo("LSTM", 2), adapted=True),
]
