"""Backward that recomputes the cells' values gives the same gradients as with kept values, and keeps less."""

import pytest
import torch
from support import as_tuple, assert_equal_to, backends, gradients, layer, like_module, random_states

import seqcells
from seqcells.cells import REGISTRY

T, B, H = 4, 3, 6
KINDS = [(name, size) for name, cell in REGISTRY.items() for size in ((0, 2) if cell.projection else (0,))]
ENGINES = [name for name in backends("lstm", form="recurrence") if name.startswith("triton-")]
CASES = [(engine, *kind) for engine in ENGINES for kind in KINDS if engine != "triton-persistent" or not kind[1]]


def run(module, x, states, options):
    """All results of a training step, outputs and then gradients, and the number of elements kept for backward."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output, final = module(x, like_module(states), **options)
        outputs = [output, *as_tuple(final)]
    return [*outputs, *gradients(outputs, [x, *states, *module.parameters()])], sum(kept.values())


@pytest.mark.parametrize("window", (1, 3), ids=lambda steps: f"{steps}-at-a-time")
@pytest.mark.parametrize("boundaries", (False, True), ids=("plain", "boundaries"))
@pytest.mark.parametrize(("backend", "name", "proj_size"), CASES)
def test_gradients_and_memory(backend, name, proj_size, boundaries, window, device, monkeypatch):
    from seqcells.kernels.triton.device.cells import CELLS
    from seqcells.kernels.triton.host import recompute_window

    like = {"dtype": torch.float64, "device": device}
    module = layer(name, 4, H, backend=backend, bidirectional=True, **({"proj_size": proj_size} if proj_size else {}))
    module = module.to(**like)
    x = torch.randn(T, B, 4, **like, requires_grad=True)
    states = random_states(name, 2, B, H, proj_size=proj_size, **like, requires_grad=True)
    options = {}
    if boundaries:
        options["lengths"] = torch.tensor([3, 0, T], device=device)
        options["reset"] = (torch.arange(T * B, device=device).view(T, B) % 4 == 1).bool()
    monkeypatch.setattr(recompute_window, "steps_at_once", lambda q, values: window)

    saved, kept = run(module, x, states, options)
    with seqcells.settings(recompute=True):
        again, kept_again = run(module, x, states, options)
    assert_equal_to(again, saved)
    values = 2 * T * B * H * len(CELLS[name].saved)
    more = 2 * T * B * H * len(REGISTRY[name].states[1:])
    assert kept_again < kept if values > more else kept_again <= kept, (kept, kept_again)
