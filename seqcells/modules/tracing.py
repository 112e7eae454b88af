"""What is told to those who would read this package's code, torch.fx and TorchScript: its modules are to be called."""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import fx, nn
from torch.fx.proxy import Proxy, TraceError

from .freezing import Freezable, is_plain


class Tracer(fx.Tracer):
    """torch.fx's tracer, for which each layer and cell of this package is a leaf: one node of the graph.

    ``torch.fx.symbolic_trace`` finds that too, but of subclasses with a ``forward`` of their own, and of modules with
    forward hooks: ``graph = seqcells.tracing.Tracer().trace(model)``.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Freezable) or super().is_leaf_module(m, module_qualified_name)


def leaf(module: Freezable, *args: Any, streams: Mapping[str, Any] | Proxy, **kwargs: Any) -> Any:
    """The node of a call whose arguments are torch.fx's, as a leaf has it; None where they are not.

    Args:
        streams: further keyword arguments by name, where torch.fx does not trace the module itself.

    Raises:
        TraceError: the node would not stand for the whole call, or there is no place in the graph that it could name.
    """
    states = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    among = *states, *kwargs.values(), *([streams] if isinstance(streams, Proxy) else streams.values())
    proxy = next((each for each in (args[0], *among) if isinstance(each, Proxy)), None)
    if proxy is None:
        return None
    name = type(module).__name__
    if not is_plain(module, nn.Module.__call__):
        raise TraceError(
            f"torch.fx cannot trace what this {name} does, which has hooks or a forward of its own: "
            "make it a leaf, as seqcells.tracing.Tracer does in place of torch.fx.Tracer"
        )
    tracer = proxy.tracer
    path = tracer.path_of_module(module) if isinstance(tracer, fx.Tracer) else ""
    if not path or isinstance(streams, Proxy):
        raise TraceError(f"torch.fx cannot trace a {name} itself: trace a module that contains it")
    given = {k: v for k, v in {**kwargs, **streams}.items() if not (v is None or (isinstance(v, tuple) and not v))}
    return tracer.create_proxy("call_module", path, args, given)


def refuse_script(module: Freezable) -> NoReturn:
    """As ``__prepare_scriptable__``: raises RuntimeError, naming what there is in the place of torch.jit.script."""
    others = "torch.export or torch.jit.trace"
    if type(module).torch_class is not None:
        others += ", or the torch.nn module that its to_torch() returns, of the same parameters"
    raise RuntimeError(f"torch.jit.script cannot compile seqcells' {type(module).__name__}: use {others}")
