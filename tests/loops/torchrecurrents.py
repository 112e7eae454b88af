"""torchrecurrent's cells, one step each."""

import torchrecurrent
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from benchmarks.cells.torchrecurrent_cells import THEIRS

from .loop import Loop, keep


def step_of(each):
    def step(ours, x, states, **_):
        kind = getattr(torchrecurrent, f"{each.name}Cell")
        module = kind(x.shape[-1], states[0].shape[-1], **each.arguments).to(x.dtype)
        made = each.weights(dict(ours))
        unknown = made.keys() - {key for key, _ in (*module.named_parameters(), *module.named_buffers())}
        missing = {key for key, _ in module.named_parameters()} - made.keys()
        assert not unknown and not missing, (unknown, missing)

        def own(*given):
            return functional_call(module, made, given)

        found = each.call(own, x, *states) if each.call else own(x, states if len(states) > 1 else states[0])
        found = tree_leaves(found)
        return found[0], *found[-len(states) :]

    return step


for each in THEIRS:
    keep(Loop(each.cell, each.options, step_of(each), each.name, each.zeros), " of torchrecurrent")
