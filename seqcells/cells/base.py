"""What a cell is: its names and its equations, and nothing about time, layers or devices."""

from collections import namedtuple
from typing import Any, ClassVar


class Cell:
    """A recurrent cell: one step's equations, elementwise over hidden units.

    A subclass states its names and one static method:

    * ``name``: the registry key, and in upper case the ``mode`` of its modules;
    * ``gates``: the row blocks of ``weight_ih`` (and of the biases), in order;
    * ``recurrent_gates``: the row blocks of ``weight_hh``; the same as ``gates`` unless given, ``()`` for a
      cell without a recurrent product;
    * ``states``: what is carried from step to step. The first is the hidden state: the layer's output, and
      what the recurrent product reads;
    * ``parameters``: per-unit parameters, ``{"peephole": ("i", "f", "o")}`` becoming the module parameter
      ``weight_peephole_l{k}`` of shape (3, H);
    * ``projection``: whether ``proj_size`` applies. It does where ``step`` reads the hidden state only
      through the recurrent product, since the projected one has another size.

    ``step(x, r, s, p)`` returns the new states in the order of ``states`` (a bare value where there is one):

    * ``x.<gate>``: W_ih x_t + b_ih, that gate's part;
    * ``r.<recurrent gate>``: W_hh h_{t-1} + b_hh, that gate's part;
    * ``s.<state>``: the states after step t-1;
    * ``p.<row>``: the rows of the per-unit parameters.

    Only arithmetic and the functions of `seqcells.cells.activations` may be used: the same lines are run on
    tensors (the reference) and on symbols (to derive the kernels).
    """

    name: ClassVar[str]
    gates: ClassVar[tuple[str, ...]]
    recurrent_gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]]
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {}
    projection: ClassVar[bool] = False

    # The records `step` is given, made from the names above.
    X: ClassVar[type]
    R: ClassVar[type]
    S: ClassVar[type]
    P: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for attribute in ("name", "gates", "states"):
            if not getattr(cls, attribute, None):
                raise TypeError(f"cell {cls.__name__} must state its {attribute}")
        if "step" not in cls.__dict__:
            raise TypeError(f"cell {cls.__name__} must define step(x, r, s, p)")
        if "recurrent_gates" not in cls.__dict__:
            cls.recurrent_gates = cls.gates
        taken = {*cls.parameters} & {"ih", "hh", "hr"}
        if taken:
            raise TypeError(f"cell {cls.__name__} cannot have a parameter {min(taken)}: its weight has that name")
        rows = [row for names in cls.parameters.values() for row in names]
        for field, names in (("X", cls.gates), ("R", cls.recurrent_gates), ("S", cls.states), ("P", rows)):
            setattr(cls, field, namedtuple(field, names))

    @staticmethod
    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        """The equations of one step; see the class."""
        raise NotImplementedError

    @classmethod
    def advance(cls, x: tuple, r: tuple, s: tuple, p: tuple) -> tuple:
        """`step` on plain tuples, always returning a tuple of the new states."""
        new = cls.step(cls.X(*x), cls.R(*r), cls.S(*s), cls.P(*p))
        return tuple(new) if isinstance(new, tuple) else (new,)
