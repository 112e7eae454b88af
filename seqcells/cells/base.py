"""What a cell is: its names and its equations, and nothing about time, layers or devices."""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

Multiply = Callable[[str, Any], Sequence[Any]]
"""The name of a product and the vector that it is applied to → its row blocks, with their biases."""


class Repeated(NamedTuple):
    """Row blocks of a product that a cell has several times, each time with a weight of its own.

    Args:
        rows: the names of the row blocks.
        times: how many products there are, from the cell's options by name.
    """

    rows: tuple[str, ...]
    times: Callable[[Any], int]


class Cell:
    """A recurrent cell: the equations of one step, for all hidden units of a sequence.

    A subclass states its names and one static method:

    * ``name``: the registry key, and in upper case the ``mode`` of its modules;
    * ``gates``: the row blocks of ``weight_ih`` (and of the biases), in order;
    * ``recurrent_gates``: the row blocks of ``weight_hh``; the same as ``gates`` unless given, ``()`` for a
      cell without a recurrent product;
    * ``states``: what is carried from step to step. The first is the hidden state: the layer's output, and
      what the recurrent product reads;
    * ``parameters``: per-unit parameters, ``{"peephole": ("i", "f", "o")}`` becoming the module parameter
      ``weight_peephole_l{k}`` of shape (3, H);
    * ``products``: further products, ``{"candidate": ("n",)}`` becoming ``weight_candidate_l{k}`` (H, H) and
      ``bias_candidate_l{k}`` (H); several row blocks lie one below the other. `Repeated` has one for each of several;
    * ``scalars``: learnable numbers, ``("rate",)`` becoming ``weight_rate_l{k}`` of shape (1,);
    * ``options``: constants by name, and their defaults, which are arguments of the module's constructor. The option
      ``heads`` divides every product's weight into so many diagonal blocks: (row blocks · H, H / heads);
    * ``initial``: initial values of rows, gates' biases and scalars that are not drawn as torch.nn's are;
    * ``projection``: whether ``proj_size`` applies. It does where ``step`` reads the hidden state only
      through the recurrent product, since the projected one has another size.

    ``step(x, r, s, p)`` returns the new states in the order of ``states`` (a bare value where there is one):

    * ``x.<gate>``: W_ih x_t + b_ih, that gate's part;
    * ``r.<recurrent gate>``: W_hh h_{t-1} + b_hh, that gate's part;
    * ``s.<state>``: the states after step t-1;
    * ``p.<row>``, ``p.<scalar>``, ``p.<option>``: the parameters and constants;
    * ``p.<product>(v)``: W v + b for any vector v of the units: its row blocks by name, a bare value where there is
      one. Of a `Repeated` product ``p.<product>`` is a tuple of such functions.

    Only arithmetic and the functions of `seqcells.cells.activations` and `seqcells.cells.units` may be used: the same
    lines are run on tensors (the reference) and on symbols (to derive the kernels).
    """

    name: ClassVar[str]
    gates: ClassVar[tuple[str, ...]]
    recurrent_gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]]
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {}
    products: ClassVar[Mapping[str, tuple[str, ...] | Repeated]] = {}
    scalars: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, float]] = {}
    initial: ClassVar[Mapping[str, float]] = {}
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
        names = [*cls.parameters, *cls.rows_of_products(), *cls.scalars]
        taken = {name for name in names if name in ("ih", "hh", "hr") or names.count(name) > 1}
        if taken:
            raise TypeError(f"cell {cls.__name__} cannot have a parameter {min(taken)}: its weight has that name")
        given = [*cls.rows(), *cls.scalars, *cls.options, *cls.products]
        for field, own in (("X", cls.gates), ("R", cls.recurrent_gates), ("S", cls.states), ("P", given)):
            setattr(cls, field, namedtuple(field, own))

    @staticmethod
    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        """The equations of one step; see the class."""
        raise NotImplementedError

    @classmethod
    def advance(cls, x: Sequence[Any], r: Sequence[Any], s: Sequence[Any], p: Sequence[Any]) -> tuple[Any, ...]:
        """`step` on plain sequences, always returning a tuple of the new states; ``p`` as `given` makes it."""
        new = cls.step(cls.X(*x), cls.R(*r), cls.S(*s), cls.P(*p))
        return tuple(new) if isinstance(new, tuple) else (new,)

    @classmethod
    def rows(cls) -> tuple[str, ...]:
        """The names of all rows of per-unit parameters, in order."""
        return tuple(row for names in cls.parameters.values() for row in names)

    @classmethod
    def rows_of_products(cls) -> dict[str, tuple[str, ...]]:
        """The row blocks of each product besides the recurrent one, by the name of its weight."""
        found: dict[str, tuple[str, ...]] = {}
        for name, rows in cls.products.items():
            found |= {each: _rows(rows) for each in cls._names(name)}
        return found

    @classmethod
    def _names(cls, product: str) -> tuple[str, ...]:
        """The weights of a product: of a repeated one its name is followed by a number, from 1."""
        rows = cls.products[product]
        if not isinstance(rows, Repeated):
            return (product,)
        options = namedtuple("Options", cls.options)(**cls.options)
        return tuple(f"{product}{k + 1}" for k in range(rows.times(options)))

    @classmethod
    def given(cls, parameters: Sequence[Any], multiply: Multiply) -> tuple[Any, ...]:
        """What ``p`` holds.

        Args:
            parameters: the values of all `rows`, then of the ``scalars``.
            multiply: makes a product, one of `rows_of_products`.
        """

        def product(name: str, rows: tuple[str, ...]) -> Callable[[Any], Any]:
            record = namedtuple(name, rows)
            return lambda v: record(*multiply(name, v)) if len(rows) > 1 else multiply(name, v)[0]

        made = []
        for name, rows in cls.products.items():
            own = tuple(product(each, _rows(rows)) for each in cls._names(name))
            made.append(own if isinstance(rows, Repeated) else own[0])
        return (*parameters, *cls.options.values(), *made)

    @classmethod
    def heads(cls) -> int:
        """Into how many diagonal blocks weights of products are divided."""
        return int(cls.options.get("heads", 1))

    @classmethod
    def own_shapes(cls, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the cell's own parameters, those that torch.nn's cells have not, by their names."""
        shapes: dict[str, tuple[int, ...]] = {f"weight_{k}": (len(v), hidden_size) for k, v in cls.parameters.items()}
        for name, rows in cls.rows_of_products().items():
            shapes[f"weight_{name}"] = len(rows) * hidden_size, hidden_size // cls.heads()
            shapes[f"bias_{name}"] = (len(rows) * hidden_size,)
        return shapes | {f"weight_{name}": (1,) for name in cls.scalars}

    @classmethod
    def configured(cls, **options: float) -> "type[Cell]":
        """The same cell with other options, whose name says which; always one class for one set of options.

        Raises:
            TypeError: the cell has no such option.
        """
        unknown = options.keys() - cls.options.keys()
        if unknown:
            raise TypeError(f"the {cls.name} cell got an unexpected option {min(unknown)!r}")
        others = {name: value for name, value in options.items() if value != cls.options[name]}
        return _configured(cls, tuple(sorted(others.items()))) if others else cls


def _rows(rows: tuple[str, ...] | Repeated) -> tuple[str, ...]:
    return rows.rows if isinstance(rows, Repeated) else rows


@cache
def _configured(cell: type[Cell], options: tuple[tuple[str, float], ...]) -> type[Cell]:
    words = ",".join(f"{name}={value:g}" for name, value in options)
    own = {"name": f"{cell.name}[{words}]", "options": {**cell.options, **dict(options)}, "__module__": cell.__module__}
    own |= {"step": staticmethod(cell.step), "recurrent_gates": cell.recurrent_gates, "__doc__": cell.__doc__}
    return type(cell.__name__, (cell,), own)
