"""Checks that several processes run together: ``torchrun --nproc-per-node 2 distributed_programs.py GROUP FOLDER``.

Each rank trains on its share of a batch's rows. The losses and weights should equal those of one process that trains on
all rows. The result of each check is a file in the folder, by the check's name: empty, or the error.
"""

import gc
import itertools
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from distributed_models import (
    COMPILED,
    FULL,
    LAYERS,
    STEPS,
    WRAPPERS,
    Batch,
    F,
    Model,
    N,
    Quiet,
    T,
    descent,
    here,
    loud,
    mean,
    model_of,
    quiet,
    sharded,
    train,
)
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as files
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import seqcells
from seqcells.call import fast_path
from seqcells.data import ContiguousWindows

OURS = "LSTM", "GRU", "PeepholeLSTM"
Check = tuple[str, Callable[[], None]]


def equal_one_process(
    name: str,
    wrap: Callable[[Model], nn.Module],
    kind: str = "plain",
    pieces: int = 1,
    accumulating: Quiet = loud,
    **options: object,
) -> None:
    """Losses and final weights equal those of one process."""
    one, model = model_of(name, **options), wrap(model_of(name, **options))
    expected = train(one, descent(one), kind)
    found = train(model, descent(model), kind, here(), pieces, accumulating)
    close(mean(found), torch.stack(expected))
    close(get_model_state_dict(model, options=FULL), one.state_dict())


def close(found: object, expected: object) -> None:
    assert_close(found, expected, rtol=0, atol=1e-9)


def quick_checks() -> Iterator[Check]:
    for wrapper in ("DDP", "FSDP2"):
        yield f"{wrapper}, LSTM", partial(equal_one_process, "LSTM", WRAPPERS[wrapper])
    yield "FSDP2, LSTM, frozen", partial(frozen_weights_are_new, "LSTM", sharded)


def training_checks(names: Sequence[str]) -> Iterator[Check]:
    for name, (wrapper, wrap), kind in itertools.product(names, WRAPPERS.items(), ("plain", "lengths", "reset")):
        yield f"{wrapper}, {name}, {kind}", partial(equal_one_process, name, wrap, kind)
    for name, wrapper, way in itertools.product(names, ("DDP", "FSDP2"), (loud, quiet)):
        check = partial(equal_one_process, name, WRAPPERS[wrapper], pieces=2, accumulating=way)
        yield f"{wrapper}, {name}, accumulating, {way.__name__}", check
    for name, wrapper, reentrant in itertools.product(names, ("DDP", "DDP static_graph", "FSDP2"), (True, False)):
        check = partial(equal_one_process, name, WRAPPERS[wrapper], reentrant=reentrant)
        yield f"{wrapper}, {name}, checkpoint, use_reentrant={reentrant}", check
    for name, wrapper in itertools.product(names, ("DDP", "FSDP2")):
        yield f"{wrapper}, {name}, stateful", partial(states_are_carried, name, WRAPPERS[wrapper])
        yield f"{wrapper}, {name}, frozen", partial(frozen_weights_are_new, name, WRAPPERS[wrapper])
    for name in (each for each in names if f"torch.nn.{each}" in LAYERS):
        yield f"FSDP2, {name}, bfloat16", partial(as_near_as_torch, name)
        yield f"FSDP2, {name}, the state dict is torch.nn's", partial(state_dict_is_torchs, name)
        yield f"DDP, {name}, swapped", partial(swapped, name)


def states_are_carried(name: str, wrap: Callable[[Model], nn.Module]) -> None:
    """The layer carries the states; each rank carries the states of its own rows."""
    sequence = torch.randn(N * 61, F, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"bidirectional": False, "stateful": True}
    one, model = model_of(name, **options), wrap(model_of(name, **options))

    def read(model: nn.Module, **place: int) -> list[Tensor]:
        optimizer, losses = descent(model), []
        for input, target in ContiguousWindows(sequence, N, T, **place):
            optimizer.zero_grad()
            losses.append((model(input) - target[..., :1]).square().mean())
            losses[-1].backward()
            optimizer.step()
        return [loss.detach() for loss in losses]

    expected, found = read(one, rank=0, world_size=1), read(model)
    assert len(found) == 10
    close(mean(found), torch.stack(expected))
    close(get_model_state_dict(model, options=FULL), one.state_dict())


def frozen_weights_are_new(name: str, wrap: Callable[[Model], nn.Module]) -> None:
    """A frozen layer sees each step of the optimizer, even if new weights have the address of old ones."""
    one, model = model_of(name), model_of(name)
    model.layer.freeze()
    model = wrap(model)
    optimizers = descent(one), descent(model)
    for step in range(STEPS):
        batch = Batch.of_step(step, "plain", torch.float64)
        own = batch.part(*here())
        for each, read, optimizer in zip((one, model), (batch, own), optimizers, strict=True):
            optimizer.zero_grad()
            read.loss(each).backward()
            optimizer.step()
        with torch.no_grad(), patch.object(fast_path, "versions", lambda tensors: [each._version for each in tensors]):
            for _ in range(4):  # more calls than a prepared call needs
                close(mean([own.loss(model)])[0], batch.loss(one))


def as_near_as_torch(name: str) -> None:
    """In bfloat16 the losses are as near to float64's as with torch.nn's layer."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    one, distances = model_of(f"torch.nn.{name}"), {}
    expected = torch.stack(train(one, descent(one)))
    for each in (name, f"torch.nn.{name}"):
        model = sharded(model_of(each, torch.float32), mp_policy=policy)
        found = mean(train(model, descent(model), share=here(), dtype=torch.float32))
        distances[each] = (found.double() - expected).norm().item()
    assert distances[name] <= 1.5 * distances[f"torch.nn.{name}"] < 0.1, distances


def state_dict_is_torchs(name: str) -> None:
    """The full state dict of sharded layers has torch.nn's names and numbers; torch.nn's state dict can be loaded."""
    theirs, model = model_of(f"torch.nn.{name}"), sharded(model_of(name))
    found = get_model_state_dict(model, options=FULL)
    assert [*found] == [*theirs.state_dict()]
    theirs.load_state_dict(found)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(0.5)
    set_model_state_dict(model, theirs.state_dict(), options=FULL)
    batch = Batch.of_step(0, "plain", torch.float64)
    close(batch.loss(model).detach(), batch.loss(theirs).detach())


def swapped(name: str) -> None:
    """`swap` replaces layers inside a model that is already wrapped."""
    one = model_of(f"torch.nn.{name}")
    model = DistributedDataParallel(model_of(f"torch.nn.{name}"))
    expected = train(one, descent(one))
    seqcells.swap(model)
    assert type(model.module.layer) is LAYERS[name]
    close(mean(train(model, descent(model), share=here())), torch.stack(expected))


def compiled_checks() -> Iterator[Check]:
    for wrapper, wrap in COMPILED.items():
        yield f"{wrapper}, LSTM", partial(equal_one_process, "LSTM", wrap)
    for name in OURS[1:]:
        yield f"compile of DDP, {name}", partial(equal_one_process, name, COMPILED["compile of DDP"])
    for reentrant in (True, False):
        check = partial(equal_one_process, "LSTM", COMPILED["compile of DDP"], reentrant=reentrant)
        yield f"compile of DDP, LSTM, checkpoint, use_reentrant={reentrant}", check
    check = partial(states_are_carried, "LSTM", COMPILED["compile of DDP"])
    yield "compile of DDP, LSTM, stateful", check


# Files: some ranks save, another number of ranks loads, and the training continues alike.


def chapter(name: str, folder: Path, number: int) -> None:
    """Train `STEPS` steps more, from the file of the chapter before, if there is one."""

    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-3)

    one = model_of(name)
    optimizer = adam(one)
    *_, expected = (train(one, optimizer, begin=k * STEPS) for k in range(number + 1))
    model = sharded(model_of(name) if number == 0 else Model(name).double())
    optimizer = adam(model)
    if number:
        found = parts(model, optimizer)
        files.load(found, checkpoint_id=folder / f"{name} {number - 1}")
        set_state_dict(model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
    close(mean(train(model, optimizer, share=here(), begin=number * STEPS)), torch.stack(expected))
    close(get_model_state_dict(model, options=FULL), one.state_dict())
    files.save(parts(model, optimizer), checkpoint_id=folder / f"{name} {number}")


def parts(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    return dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))


GROUPS: dict[str, Callable[[Path], Iterator[Check]]] = {
    "quick": lambda folder: quick_checks(),
    "training": lambda folder: training_checks(OURS),
    "training of LSTM": lambda folder: training_checks(OURS[:1]),
    "compiled": lambda folder: compiled_checks(),
    **{
        f"chapter {k}": lambda folder, k=k: ((name, partial(chapter, name, folder, k)) for name in OURS)
        for k in range(3)
    },
}


def run(group: str, folder: Path) -> None:
    """Run each check of a group in order, on all ranks."""
    rank, count = here()
    found: dict[str, str] = {}
    for name, check in GROUPS[group](folder):
        try:
            check()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
        torch._dynamo.reset()
    everybodys: list[dict[str, str]] = [{}] * count
    distributed.all_gather_object(everybodys, found)
    if rank == 0:
        told = {name: "\n".join(filter(None, (own[name] for own in everybodys))) for name in found}
        (folder / f"{group}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    run(sys.argv[1], Path(sys.argv[2]))
    gc.collect()  # a sharded model would keep gloo's threads, which crash the process once the interpreter is gone
    distributed.destroy_process_group()
