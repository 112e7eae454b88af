"""From a cell's equations to its kernels: trace → differentiate → plan → print; `__main__` writes the files."""

from .expressions import DerivationError
from .identity import identity
from .plan import Plan, plan
from .print import triton
from .print_loop import cpp_cells
from .print_stages import triton_stages

__all__ = ["DerivationError", "Plan", "cpp_cells", "identity", "plan", "triton", "triton_stages"]
