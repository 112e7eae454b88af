"""Which backend runs a call, and why.

A backend named by the caller runs or raises. ``"auto"`` takes a backend that can run the call, and says why. If torch's
operator and our kernels both can, estimated seconds decide (`seqcells.measured.estimates`). The only option is the
string ``backend``.
"""

import torch

from ..backends import BACKENDS, check_name, torch_ops, torch_trial, why_not_for
from ..measured import estimates
from ..measured.table import KERNELS
from ..request.call import Call, Choice
from ..request.context import in_transform
from ..request.recurrence import Recurrence
from ..system.settings import current_settings

WITHOUT_KERNELS = "torch's own operator if it runs the call, else the reference"
"""What ``"auto"`` takes on types of devices for which this package has no kernels."""
_WHERE_TORCHS_RUN = ("cuda", "meta")
"""Device types without a trial call: there torch's operator runs every call that `torch_ops.why_not` lets through."""


def choose(call: Call, backend: str = "auto") -> Choice:
    """The backend that runs ``call``.

    Raises:
        ValueError: no backend has the name ``backend``.
        RuntimeError: the named backend does not exist here or cannot do what the call asks.
    """
    check_name(backend)
    if "expanded" in call.options:
        return _expanded(call, backend)
    if backend == "auto":
        return _automatic(call)
    why_not = why_not_for(call, backend)
    if not why_not and BACKENDS[backend].engine and not torch.compiler.is_compiling() and in_transform():
        why_not = "kernels do not follow torch.func transforms and forward-mode AD"
    if why_not:
        raise RuntimeError(f"backend={backend!r} cannot run this call: {why_not}")
    return Choice(backend, "asked for by name")


def explain(call: Call, backend: str = "auto") -> Choice:
    """The result of `choose`, whose reason also names the backend's plan and the settings that are not the defaults.

    Raises:
        ValueError: as `choose`.
        RuntimeError: as `choose`.
    """
    choice = choose(call, backend)
    chosen, words = BACKENDS[choice.backend], " ".join(current_settings().words())
    how = chosen.planned(call) if chosen.planned else ""
    under = f"settings: {words}" if chosen.uses_settings and words else ""
    return Choice(choice.backend, "; ".join(filter(None, (choice.reason, how, under))))


def _expanded(call: Call, backend: str) -> Choice:
    """The choice for a call with expanded weights, which torch.nn.utils supports for torch's operator alone.

    Raises:
        RuntimeError: torch's operator cannot run the call, or another backend is asked for.
    """
    why_not = torch_ops.why_not(call)
    if call.form == "step":
        why_not = "torch has none for cells"
    elif backend not in ("auto", "torch"):
        why_not = f"there are none for backend={backend!r}"
    if why_not:
        instead = "take torch.func.vmap of torch.func.grad, which all of seqcells follows"
        raise RuntimeError(f"expanded weights cannot be used for this call: {why_not}; {instead}")
    return Choice(
        "torch", "expanded weights, as for gradients of samples: torch.nn.utils has them for torch's operator"
    )


def _automatic(call: Call) -> Choice:
    compiling = torch.compiler.is_compiling()
    if not compiling and in_transform():
        return Choice("reference", "inside a torch.func transform or forward-mode AD, which no kernels follow")
    best, why_no_kernels = _kernels_for(call)
    note = f"; no kernels of ours: {why_no_kernels}" if why_no_kernels else ""
    if compiling:
        return Choice(best, "torch.compile: one operator in the graph, torch's own would be unrolled over time" + note)
    why_not_torch = torch_ops.why_not(call)
    if why_not_torch:
        return Choice(best, f"not torch's own operator: {why_not_torch}{note}")
    if call.device.type not in _WHERE_TORCHS_RUN:
        why_not_torch = torch_trial.why_not_run(call)
        if why_not_torch:
            return Choice(best, f"torch's own operator fails here: {why_not_torch}{note}")
    if not why_no_kernels:
        if best == "cpu" and torch.is_autocast_enabled("cpu"):
            leader = Choice("torch", "under autocast it rounds where torch.nn does")
        else:
            leader = estimates.leader(call)
        if leader.backend == best:
            return leader
        note = f"; {leader.reason}"
    return Choice("torch", f"a plain call: torch's own operator{note}")


def _kernels_for(call: Call) -> tuple[str, str | None]:
    """Our engine for the call's device and None; or ``"reference"`` and the reason why no engine can run the call."""
    kernels = KERNELS.get(call.device.type)
    why_not = why_not_for(call, kernels) if kernels else f"there are none for {call.device.type}"
    return "reference" if why_not or not kernels else kernels, why_not


def backend_for(q: Recurrence, asked: str) -> str:
    """The backend of an operator in a graph: the one asked for, or with ``"auto"`` the engine for the tensors' device.

    With ``"auto"``, the reference runs a call that the engine cannot run.

    Raises:
        ValueError: no backend has the name ``asked``.
        RuntimeError: the named backend does not exist here, cannot run the call, or has no operator.
    """
    used = {"projection": q.weights[0].hr is not None, "keep": bool(q.kept)}
    options = tuple(name for name, uses in used.items() if uses)
    call = Call(q.cell, "recurrence", q.outside.device, q.outside.dtype, options, hidden=q.hidden)
    if asked == "auto":
        return _kernels_for(call)[0]
    why_not = why_not_for(call, check_name(asked))
    if why_not or (BACKENDS[asked].engine is None and asked != "reference"):
        raise RuntimeError(f"backend={asked!r} cannot run this call: {why_not or 'it has no operator'}")
    return asked
