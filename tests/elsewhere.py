"""A device type without our kernels, ``elsewhere``: its tensors are CPU tensors behind torch's key for private devices.
Like some private devices, it lacks the fused cells of torch's LSTM and GRU.

``python tests/elsewhere.py`` prints, as JSON, what layers and cells do on it. A process can register only one such
device, and for good, so tests run this file in another process.
"""

import json

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import seqcells
from seqcells import info
from seqcells.backends import BACKENDS

NAME = "elsewhere"
ran: list[str] = []
"""The operators that ran on the device."""
_kept: dict[int, tuple[torch.UntypedStorage, torch.Tensor]] = {}
"""The storage and the CPU tensor for each storage's address. The storage is kept, so that its address is not reused."""


def _inside(tensor):
    if tensor.device.type != NAME:
        return tensor
    kept = _kept[tensor.untyped_storage()._cdata][1]
    return kept.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _outside(tensor):
    made = torch._C._acc.create_empty_tensor(tensor.shape, tensor.dtype)
    storage = made.untyped_storage()
    _kept[storage._cdata] = storage, tensor.clone(memory_format=torch.contiguous_format)
    return made


def _run(operator, *args, **kwargs):
    ran.append(operator.name())
    given = {}

    def inside(value):
        if isinstance(value, torch.Tensor):
            own = _inside(value)
            given[id(own)] = value
            return own
        return torch.device("cpu") if isinstance(value, torch.device) else value

    args, kwargs = tree_map(inside, (args, kwargs))
    results = operator(*args, **kwargs)

    def outside(value):
        # A tensor that was written in place is returned as the same object.
        return given[id(value)] if id(value) in given else _outside(value)

    return tree_map(lambda value: outside(value) if isinstance(value, torch.Tensor) else value, results)


def _copy(source, target, non_blocking=False):
    _inside(target).copy_(_inside(source))
    return target


def _arange(end, **options):
    return _outside(torch.arange(end, dtype=options.get("dtype")))


def register():
    """Register the device with torch."""
    _setup_privateuseone_for_python_backend(NAME)
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(_run, "PrivateUse1")
    some.impl("_copy_from", _copy, "PrivateUse1")
    some.impl("arange", _arange, "PrivateUse1")
    return every, some


CASES = {
    "RNN": {},
    "RNNCell": {},
    "GRU": {},
    "GRUCell": {},
    "LSTM": {"num_layers": 2, "bidirectional": True},
    "LSTMCell": {},
}


def found(kind, settings, gradients, **options):
    """The plan of `auto` for a call on the device, the operators that ran, and the distance from torch.nn in
    float64."""
    torch.manual_seed(0)
    ours, theirs = (getattr(of, kind)(4, 5, dtype=torch.float64, **settings) for of in (seqcells, nn))
    theirs.load_state_dict(ours.state_dict())
    input = torch.randn(2, 4) if kind.endswith("Cell") else torch.randn(3, 2, 4)
    input, given = input.double(), {name: value.to(NAME) for name, value in options.items()}
    ours.to(NAME)
    with torch.set_grad_enabled(gradients):
        ran.clear()
        plan = ours.plan(input.to(NAME), **given)
        tried = sum("fused" in name for name in ran)
        ran.clear()
        results = [_first(ours(input.to(NAME), **given)), _first(theirs(input))]
        called = sum("fused" in name for name in ran)
    if gradients:
        each = [torch.autograd.grad(r.sum(), [*m.parameters()]) for r, m in zip(results, (ours, theirs), strict=True)]
        results = [torch.cat([t.cpu().flatten() for t in (r, *g)]) for r, g in zip(results, each, strict=True)]
    away = (results[0].cpu() - results[1]).abs().max().item()
    return {"backend": plan.backend, "reason": plan.reason, "tried": tried, "called": called, "away": away}


def _first(results):
    return results[0] if isinstance(results, tuple) else results


def by_name(backend):
    """The error message of a layer on the device that names a backend."""
    try:
        seqcells.RNN(4, 5, device=NAME, backend=backend)(torch.zeros(3, 2, 4, device=NAME))
    except RuntimeError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    kept = register()
    told = {"report": info.report(), "names": {name: by_name(name) for name in BACKENDS}, "calls": {}}
    for gradients in (True, False):
        for kind, settings in CASES.items():
            told["calls"][f"{kind}, {gradients}"] = found(kind, settings, gradients)
    told["lengths"] = found("RNN", {}, False, lengths=torch.tensor([3, 3]))
    print(json.dumps(told))
