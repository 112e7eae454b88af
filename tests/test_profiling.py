"""Profilers and counters see each layer, in inference too."""

import pytest
import torch
from support import layer

from seqcells.kernels import cpu


@pytest.mark.parametrize("recorder", (torch.profiler.profile, torch.autograd.profiler.profile))
def test_a_layer_is_an_event(recorder):
    module, input = layer("lstm", 4, 5, backend="reference" if cpu.why_not_available() else "cpu"), torch.randn(3, 1, 4)
    stream = module.stream()
    with torch.no_grad():
        for times in (1, 4):
            with recorder() as profile:
                for _ in range(times):
                    module(input)
            events = {event.key: event.count for event in profile.key_averages() if event.key.startswith("seqcells::")}
            assert events["seqcells::layer"] + events.get("seqcells::inference", 0) == times
        assert cpu.why_not_available() or events["seqcells::inference"] == 3
        stream(input[0])
        with recorder() as profile:
            stream(input[1])
    assert any(event.key.startswith("seqcells::") for event in profile.key_averages())


@pytest.mark.parametrize("exported", (False, True))
def test_products_inside_the_loop_are_counted(exported):
    """By hand: T·B rows times the weights of input, recurrence and projection, and twice more for backward."""
    from torch.utils.flop_counter import FlopCounterMode

    steps, batch, features, hidden, projected = 7, 3, 4, 6, 2
    for name, gates, width, options in (("gru", 3, hidden, {}), ("lstm", 4, projected, {"proj_size": projected})):
        module = layer(name, features, hidden, backend="cpu", **options)
        input = torch.randn(steps, batch, features, requires_grad=True)
        run = torch.export.export(module, (input,)).module() if exported else module
        with FlopCounterMode(display=False) as counter:
            output, _ = run(input)
            forward = counter.get_total_flops()
            output.sum().backward()
        weights = gates * hidden * (features + width) + (width * hidden if options else 0)
        assert forward == 2 * steps * batch * weights
        assert counter.get_total_flops() == 3 * forward
