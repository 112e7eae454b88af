"""The training of several processes together: a small model, batches divided among ranks, and wrappers of the model."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import seqcells

T, N, F, H = 6, 8, 3, 5
STEPS = 7
LAYERS = {
    "torch.nn.LSTM": nn.LSTM,
    "torch.nn.GRU": nn.GRU,
    "LSTM": seqcells.LSTM,
    "GRU": seqcells.GRU,
    "PeepholeLSTM": seqcells.PeepholeLSTM,
}
FULL = StateDictOptions(full_state_dict=True)
"""Names and tensors are those of a model that is not wrapped."""


class Model(nn.Module):
    """Two bidirectional layers and a head. ``reentrant``: the way of checkpointing the layers; None: no
    checkpointing."""

    def __init__(self, name: str, reentrant: bool | None = None, **options: object) -> None:
        super().__init__()
        self.layer = LAYERS[name](F, H, **{"num_layers": 2, "bidirectional": True, **options})
        self.head = nn.Linear(H * (1 + self.layer.bidirectional), 1)
        self.reentrant = reentrant

    def forward(self, input: Tensor, **given: Tensor) -> Tensor:
        layer = partial(self.layer, **given)
        if self.reentrant is None:
            output, _ = layer(input)
        else:  # the reentrant way requires an input that is differentiated
            output, _ = checkpoint(layer, input.requires_grad_(), use_reentrant=self.reentrant)
        return self.head(output)


def model_of(name: str, dtype: torch.dtype = torch.float64, **options: object) -> Model:
    torch.manual_seed(0)
    return Model(name, **options).to(dtype)


@dataclass
class Batch:
    """Input and target (T, N, ·), and the layer's other arguments."""

    input: Tensor
    target: Tensor
    given: dict[str, Tensor]

    @staticmethod
    def of_step(step: int, kind: str, dtype: torch.dtype) -> "Batch":
        """The batch of all ranks together."""
        chance = torch.Generator().manual_seed(step)
        input, target = (torch.randn(T, N, size, dtype=torch.float64, generator=chance) for size in (F, 1))
        lengths = torch.randint(0, T + 1, (N,), generator=chance)
        reset = torch.rand(T, N, generator=chance) < 0.3
        input, target = input.to(dtype), target.to(dtype)
        return Batch(input, target, {"lengths": {"lengths": lengths}, "reset": {"reset": reset}}.get(kind, {}))

    def part(self, index: int, count: int) -> "Batch":
        """One of ``count`` equal shares of the rows."""

        def share(tensor: Tensor) -> Tensor:
            return tensor.chunk(count, -1 if tensor.dim() == 1 else 1)[index].contiguous()

        return Batch(share(self.input), share(self.target), {name: share(each) for name, each in self.given.items()})

    def loss(self, model: nn.Module) -> Tensor:
        return (model(self.input, **self.given).to(self.target.dtype) - self.target).square().mean()


Quiet = Callable[[nn.Module, bool], contextlib.AbstractContextManager]


@contextlib.contextmanager
def loud(model: nn.Module, last: bool) -> Iterator[None]:
    """Sum the gradients over the ranks at each piece of a step."""
    yield


@contextlib.contextmanager
def quiet(model: nn.Module, last: bool) -> Iterator[None]:
    """Sum the gradients over the ranks once, at the last piece."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    with contextlib.nullcontext() if last or isinstance(model, FSDPModule) else model.no_sync():
        yield


def here() -> tuple[int, int]:
    return distributed.get_rank(), distributed.get_world_size()


def mean(losses: list[Tensor]) -> Tensor:
    """The mean over the ranks."""
    total = torch.stack(losses)
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    kind: str = "plain",
    share: tuple[int, int] = (0, 1),
    pieces: int = 1,
    accumulating: Quiet = loud,
    dtype: torch.dtype = torch.float64,
    begin: int = 0,
) -> list[Tensor]:
    """The loss of each step, and of evaluations between steps."""
    losses = []
    for step in range(begin, begin + STEPS):
        batch = Batch.of_step(step, kind, dtype).part(*share)
        optimizer.zero_grad()
        found = torch.zeros((), dtype=dtype)
        for piece in range(pieces):
            with accumulating(model, piece == pieces - 1):
                loss = batch.part(piece, pieces).loss(model) / pieces
                loss.backward()
            found += loss.detach()
        optimizer.step()
        losses.append(found)
        if step % 3 == 2:
            model.eval()
            with torch.no_grad():
                losses.append(batch.loss(model))
            model.train()
    return losses


def descent(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


# Ways of wrapping a model.


def sharded(model: Model, **options: object) -> nn.Module:
    """Shard by FSDP2: first the layer, then the rest."""
    fully_shard(model.layer, **options)
    return fully_shard(model, **options)


def from_meta(model: Model) -> nn.Module:
    """Shard the model before it has memory."""
    made = sharded(copy.deepcopy(model).to("meta")).to_empty(device="cpu")
    set_model_state_dict(made, model.state_dict(), options=FULL)
    return made


WRAPPERS: dict[str, Callable[[Model], nn.Module]] = {
    "DDP": DistributedDataParallel,
    "DDP static_graph": partial(DistributedDataParallel, static_graph=True),
    "DDP find_unused_parameters": partial(DistributedDataParallel, find_unused_parameters=True),
    "DDP gradient_as_bucket_view": partial(DistributedDataParallel, gradient_as_bucket_view=True),
    "FSDP2": sharded,
    "FSDP2 reshard_after_forward=False": partial(sharded, reshard_after_forward=False),
    "FSDP2 of meta": from_meta,
}
COMPILED: dict[str, Callable[[Model], nn.Module]] = {
    "compile of DDP": lambda model: torch.compile(DistributedDataParallel(model)),
    "DDP of compile": lambda model: DistributedDataParallel(torch.compile(model)),
    "compile of FSDP2": lambda model: torch.compile(sharded(model)),
    "FSDP2 of compiled layers": lambda model: sharded(_compiled_inside(model)),
}


def _compiled_inside(model: Model) -> Model:
    model.layer.compile()
    return model
