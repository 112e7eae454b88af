"""Support for torch.fx, which records a call of a module as one node, and an error message for torch.jit.script."""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import fx, nn
from torch.fx.proxy import Proxy, TraceError

from .freezing import Freezable, is_plain


class Tracer(fx.Tracer):
    """A torch.fx tracer for which each layer and cell module of this package is a leaf: one node of the graph.

    ``torch.fx.symbolic_trace`` records most modules as one node too. Use this tracer for subclasses with their own
    ``forward``, and for modules with forward hooks: ``graph = seqcells.tracing.Tracer().trace(model)``.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Freezable) or super().is_leaf_module(m, module_qualified_name)


def leaf(module: Freezable, *args: Any, streams: Mapping[str, Any] | Proxy, **kwargs: Any) -> Any:
    """The graph node of a call that torch.fx traces. None if no argument is a torch.fx proxy.

    Args:
        streams: further keyword arguments by name. It is a proxy if torch.fx traces the module itself.

    Raises:
        TraceError: the module has hooks or an overridden ``forward``, or torch.fx traces the module itself.
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
    """For ``__prepare_scriptable__``: raises a RuntimeError that names alternatives to torch.jit.script."""
    others = "torch.export or torch.jit.trace"
    if type(module).torch_class is not None:
        others += ", or the torch.nn module that its to_torch() returns, of the same parameters"
    raise RuntimeError(f"torch.jit.script cannot compile seqcells' {type(module).__name__}: use {others}")
