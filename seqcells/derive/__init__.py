"""From a cell's equations to its kernels: trace → differentiate → plan → print.

`plan` derives one cell; `triton` and `cpp` print plans as kernels/triton/cells.py and kernels/cpu/cells.h, which
``python -m seqcells.derive`` (``make cells``) writes for every registered cell.
"""

from .plan import Plan, plan
from .print import cpp, triton
from .trace import DerivationError

__all__ = ["DerivationError", "Plan", "cpp", "plan", "triton"]
