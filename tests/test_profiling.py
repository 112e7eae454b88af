"""Who records what runs sees each layer, in inference too."""

import pytest
import torch
from support import layer

from seqcells.kernels import cpu


@pytest.mark.parametrize("recorder", (torch.profiler.profile, torch.autograd.profiler.profile))
def test_a_layer_is_an_event(recorder):
    module, input = layer("lstm", 4, 5, backend="reference" if cpu.unavailable() else "cpu"), torch.randn(3, 1, 4)
    stream = module.stream()
    with torch.no_grad():
        for times in (1, 4):
            with recorder() as profile:
                for _ in range(times):
                    module(input)
            events = {event.key: event.count for event in profile.key_averages() if event.key.startswith("seqcells::")}
            assert events["seqcells::layer"] + events.get("seqcells::inference", 0) == times
        assert cpu.unavailable() or events["seqcells::inference"] == 3
        stream(input[0])
        with recorder() as profile:
            stream(input[1])
    assert any(event.key.startswith("seqcells::") for event in profile.key_averages())
