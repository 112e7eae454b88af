"""The reference in half precision computes in float32 from the input to the results, which are rounded once."""

import pytest
import torch
from support import UNLIKE, layer, random_states, results

T, B, F, H = 24, 8, 16, 24


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("bidirectional", (False, True), ids=("one direction", "both"))
@pytest.mark.parametrize("name", UNLIKE)
def test_half_precision_is_rounded_once(name, bidirectional, dtype, device):
    """Each result and gradient equals float64's to one rounding, also the gradients of weights that every step uses."""
    module = layer(name, F, H, bidirectional=bidirectional, backend="reference", dtype=dtype, device=device)
    exact = layer(name, F, H, bidirectional=bidirectional, backend="reference", dtype=torch.float64, device=device)
    exact.load_state_dict(module.state_dict())
    like = {"device": device, "dtype": dtype}
    given = [torch.randn(T, B, F, **like), *random_states(name, 1 + bidirectional, B, H, **like)]
    seeds = [torch.randn_like(result) for result in results(module, given[0], given[1:])]
    found = []
    for each in (exact, module):
        input, *hx = (tensor.to(each.weight_ih_l0.dtype).requires_grad_() for tensor in given)
        outputs = results(each, input, hx)
        of_outputs = [seed.to(output.dtype) for seed, output in zip(seeds, outputs, strict=True)]
        found.append([*outputs, *torch.autograd.grad(outputs, [input, *hx, *each.parameters()], of_outputs)])
    for index, (truth, mine) in enumerate(zip(*found, strict=True)):
        assert mine.dtype == dtype
        assert torch.allclose(mine.double(), truth, rtol=0.5001 * torch.finfo(dtype).eps, atol=1e-4), index
