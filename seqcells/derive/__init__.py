"""From a cell's equations to its kernels: trace → differentiate → plan → print; `__main__` writes the files."""

from .expressions import DerivationError
from .identity import identity
from .plan import Plan, plan
from .print import cpp, triton
from .print_stages import triton_stages

__all__ = ["DerivationError", "Plan", "cpp", "identity", "plan", "triton", "triton_stages"]
