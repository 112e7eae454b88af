"""From a cell's equations to its kernels: trace → differentiate → plan → print; `__main__` writes the files."""

from .identity import identity
from .plan import Plan, plan
from .print import cpp, triton
from .trace import DerivationError

__all__ = ["DerivationError", "Plan", "cpp", "identity", "plan", "triton"]
