"""The class `Cell`: the names and equations of a cell, without anything about time, layers or devices."""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar

from .declared import Product, expanded, grouped, lettered, read, spelled

Multiply = Callable[[str, Any], Sequence[Any]]
"""A function (name of a product, operand) → the product's row blocks, with their biases."""

_OF_THE_CONSTRUCTOR = {
    *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"),
    *("device", "dtype", "backend", "recurrent_dropout", "zoneout", "learn_hx", "stateful", "initial"),
}


_OF_A_CALL = {"self", "hx", "lengths", "reset", "reset_state", "keep"}


class Cell:
    """A recurrent cell: the equations of one time step, for all hidden units of a sequence.

    A subclass declares names as class attributes, and the equations as a static method ``step``. ``name`` and
    ``states`` have to be declared, and ``gates`` too unless there are streams. All other attributes have defaults:

    * ``name``: the key in the registry, and in upper case the ``mode`` of the cell's modules;
    * ``gates``: the row blocks of ``weight_ih`` and ``bias_ih``, in order;
    * ``states``: the values that are carried from step to step. The first state is the hidden state: the recurrent
      product reads it, and it is the layer's output unless ``output`` names another value;
    * ``recurrent_gates``: the row blocks of ``weight_hh`` and ``bias_hh``. Default: ``gates``; ``()`` declares a cell
      without a recurrent product;
    * ``parameters``: parameters of each unit. ``{"peephole": ("i", "f", "o")}`` makes the module parameter
      ``weight_peephole_l{k}`` of shape (3, H);
    * ``products``: further products. ``{"candidate": ("n",)}`` makes ``weight_candidate_l{k}`` (H, H) and
      ``bias_candidate_l{k}`` (H). Several row blocks are stacked along the first axis. A `Product` declares other
      sizes, no bias or other heads. A `Times` declares several products, ``weight_deeper1_l{k}`` and so on;
    * ``scalars``: learnable numbers, ``("rate",)``, or with initial values ``{"rate": -3.0}``. They make
      ``weight_rate_l{k}`` of shape (1,);
    * ``options``: constants by name, with their defaults: numbers, bools or activations. They are keyword arguments of
      the module's constructor. The option ``heads`` is the number of diagonal blocks of each weight of axes HH, whose
      shape is then (row blocks · H, H / heads);
    * ``initial``: initial values of rows, ``{"gain": 1.0}``, and of biases, ``{"bias_ih.f": 1.0}``. All other rows and
      biases are drawn as torch.nn draws its own parameters;
    * ``sizes``: further letters of sizes, and the options that give the sizes, ``{"K": "rank"}``;
    * ``streams``: further inputs of `step`. ``{"mask": "BH"}`` makes ``x.mask``, and the keyword argument ``mask`` of a
      call. A stream named ``input`` is the layer's own input: "TBF" for use in products, "TBH" if it is as large as a
      state;
    * ``output``: the value that the layer returns for all steps. Default: the first state;
    * ``kept``: values that the layer returns besides if a call asks for them (``keep=``). `step` returns the output and
      the kept values after the states, in this order, unless they are states;
    * ``projection``: whether ``proj_size`` is allowed. It can be if only the recurrent product reads the hidden state,
      since the projected hidden state has another size. Default: False

    A letter is an axis (T for time steps, B for sequences) or a size: H for hidden units, F for the input's features, N
    for one number of each head. A value of size N counts as a vector whose units are equal within each head. A tuple of
    names means size H. A dict gives each name a letter, ``states = {"h": "H", "last": "F"}``. All rows of a parameter
    have the same size.

    ``step(x, r, s, p)`` returns the new states in the order of ``states``, not in a tuple if there is only one:

    * ``x.<gate>``: the gate's rows of W_ih x_t + b_ih; ``x.<stream>``: a stream;
    * ``r.<recurrent gate>``: the gate's rows of W_hh h_{t-1} + b_hh; `recurrent_operand` may replace h_{t-1};
    * ``s.<state>``: the states after step t-1;
    * ``p.<row>``, ``p.<scalar>``, ``p.<option>``: the parameters and constants;
    * ``p.<product>(v)``: W v + b for any vector v, as row blocks by name, or a single value if there is one row block.

    `step` may use arithmetic, the functions of `seqcells.cells.activations` and `seqcells.cells.units`, and ``if`` of
    options. The same lines run on tensors (the reference) and on symbols (to derive the kernels).
    """

    name: ClassVar[str]
    gates: ClassVar[tuple[str, ...]] = ()
    recurrent_gates: ClassVar[tuple[str, ...]]
    states: ClassVar[Any]
    parameters: ClassVar[Mapping[str, Any]] = {}
    products: ClassVar[Mapping[str, Any]] = {}
    scalars: ClassVar[Any] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    initial: ClassVar[Mapping[str, float]] = {}
    sizes: ClassVar[Mapping[str, str]] = {}
    streams: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = ""
    kept: ClassVar[tuple[str, ...]] = ()
    projection: ClassVar[bool] = False

    # These attributes are derived from the declarations. `states` becomes a tuple of all states' names, `state_sizes`
    # has their letters. `base` is the cell with its default options. `configurations` has the base and its configured
    # cells, by the words in their names. `transformations` has the cells that `seqcells.derive.transformed_cells` made
    # of it.
    base: ClassVar[type["Cell"]]
    words: ClassVar[str]
    configurations: ClassVar[dict[str, type["Cell"]]]
    transformations: ClassVar[dict[str, type["Cell"]]]
    state_sizes: ClassVar[dict[str, str]]
    row_sizes: ClassVar[dict[str, str]]
    every_product: ClassVar[dict[str, Product]]
    results: ClassVar[tuple[str, ...]]
    _states: ClassVar[dict[str, Any]]
    # The records that are the arguments of `step`.
    X: ClassVar[type]
    R: ClassVar[type]
    S: ClassVar[type]
    P: ClassVar[type]
    shared: ClassVar[tuple[str, ...]]
    """The names of the streams that all sequences of a step share."""
    returns_first: ClassVar[bool]
    """Whether the output is the first state."""
    direct: ClassVar[bool]
    """Whether engines take the cell directly; otherwise `derive.transformed_cells.for_engines` transforms it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if not isinstance(getattr(cls, "name", ""), str):
            raise TypeError(f"cell {cls.__name__} must state its name as a string, not {cls.name!r}")
        for attribute in ("name", "states"):
            if not getattr(cls, attribute, None):
                raise TypeError(f"cell {cls.__name__} must state its {attribute}")
        for attribute in ("gates", "recurrent_gates", "states", "scalars", "kept"):
            if isinstance(getattr(cls, attribute, ()), str):
                words = f"{attribute} as a tuple of names, ({getattr(cls, attribute)!r},)"
                raise TypeError(f"cell {cls.__name__} must state its {words}")
        if not isinstance(cls.parameters, Mapping) or any(isinstance(rows, str) for rows in cls.parameters.values()):
            words = 'its parameters as a dict of tuples of rows, {"leak": ("a",)}'
            raise TypeError(f"cell {cls.__name__} must state {words}")
        twice = {name for name in cls.states if [*cls.states].count(name) > 1}
        if twice:
            raise TypeError(f"cell {cls.__name__} names its state {min(twice)} twice")
        if not cls.gates and not cls.streams:
            raise TypeError(f"cell {cls.__name__} must state its gates")
        if cls.step is Cell.step:
            raise TypeError(f"cell {cls.__name__} must define step(x, r, s, p)")
        if ("gates" in own and "recurrent_gates" not in own) or not hasattr(cls, "recurrent_gates"):
            cls.recurrent_gates = cls.gates
        if "base" not in own:
            if "[" in cls.name or " with " in cls.name:
                words = "without brackets, in which options are named, and without ' with '"
                raise TypeError(f"cell {cls.__name__} must state a name {words}")
            cls.base, cls.words, cls.configurations = cls, "", {"": cls}
        cls.transformations = {}
        cls.shared = tuple(name for name, axes in cls.streams.items() if axes.startswith("T") and "B" not in axes)
        cls.direct = cls.weights is Cell.weights and not cls.shared
        cls.options = dict.fromkeys(cls.sizes.values()) | dict(cls.options)
        if "states" in own:
            cls._states = lettered(cls.states)
        cls.state_sizes = expanded(cls._states, cls.options)
        cls.states = tuple(cls.state_sizes)
        cls.returns_first = cls.output in ("", cls.states[0])
        cls.row_sizes = {row: size for rows in cls.parameters.values() for row, size in lettered(rows).items()}
        cls.every_product = cls._products()
        cls.results = tuple(dict.fromkeys([*cls.states, cls.output or cls.states[0], *cls.kept]))
        _check(cls)
        rows = [row for rows in cls.parameters.values() for row in rows]
        given = [*rows, *cls.scalars, *cls.options, *cls.products]
        of_x = [*cls.gates, *cls.streams]
        for field, names in (("X", of_x), ("R", cls.recurrent_gates), ("S", cls._states), ("P", given)):
            twice = {name for name in names if [*names].count(name) > 1}
            if twice:
                raise TypeError(f"cell {cls.__name__} has two things that step knows as {field.lower()}.{min(twice)}")
            setattr(cls, field, namedtuple(field, names))

    @staticmethod
    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        """The equations of one time step; see the class."""
        raise NotImplementedError

    @staticmethod
    def recurrent_operand(x: Any, s: Any) -> Any:
        """The operand of the recurrent product, from `step`'s arguments x and s. Default: the first state."""
        return s[0][0] if isinstance(s[0], tuple) else s[0]

    @staticmethod
    def weights(w: Any) -> Mapping[str, Any]:
        """Weights that replace learnt weights in `step`, computed from the learnt weights once for all time steps.

        Args:
            w: tensors ``w.hh`` and ``w.<product>`` of shape (row blocks · heads, units out, units in); both numbers of
                units are those of one head.

        Returns:
            The replaced weights by name, in the same shapes: ``{"hh": w.hh - w.hh.mT}``. Default: none
        """
        return {}

    @classmethod
    def advance(cls, x: Sequence[Any], r: Sequence[Any], s: Sequence[Any], p: Sequence[Any]) -> tuple[Any, ...]:
        """Call `step` with plain sequences, and return a flat tuple of all ``results``; `given` makes ``p``."""
        new = cls.step(cls.X(*x), cls.R(*r), cls._s(s), cls.P(*p))
        if not isinstance(new, tuple):
            return (new,)
        return tuple(each for value in new for each in (value if isinstance(value, tuple) else (value,)))

    @classmethod
    def fed_back(cls, x: Sequence[Any], s: Sequence[Any]) -> Any:
        """Call `recurrent_operand` with plain sequences."""
        return s[0] if cls.recurrent_operand is Cell.recurrent_operand else cls.recurrent_operand(cls.X(*x), cls._s(s))

    @classmethod
    def _s(cls, s: Sequence[Any]) -> Any:
        """The states in the form for `step`."""
        return cls.S(*s) if cls.S._fields == cls.states else cls.S(*grouped(cls._states, cls.options, s))

    @classmethod
    def rows(cls) -> tuple[str, ...]:
        """The names of all rows of ``parameters``, in order."""
        return tuple(cls.row_sizes)

    @classmethod
    def rows_of_products(cls) -> dict[str, tuple[str, ...]]:
        """The row blocks of each product besides the recurrent one, by the name of its weight."""
        return {name: product.rows for name, product in cls.every_product.items() if name != "hh"}

    @classmethod
    def rows_of(cls, role: str) -> tuple[str, ...]:
        """The keys of ``initial`` for the rows of a parameter; ``role`` is its name without layer, as ``bias_ih``."""
        kind, _, name = role.partition("_")
        if kind == "bias":
            rows = {"ih": cls.gates} | {each: product.rows for each, product in cls.every_product.items()}
            return tuple(f"{role}.{row}" for row in rows[name])
        return (name,) if name in cls.scalars else tuple(cls.parameters.get(name, ()))

    @classmethod
    def initial_values(cls) -> dict[str, float]:
        """``initial``, and the initial values of ``scalars``."""
        return {**(cls.scalars if isinstance(cls.scalars, Mapping) else {}), **cls.initial}

    @classmethod
    def _products(cls) -> dict[str, Product]:
        """All products by name, with their numbers of heads: the recurrent product ``hh``, then the expanded ones."""
        first = next(iter(cls.state_sizes.values()))
        found = {"hh": Product(tuple(cls.recurrent_gates), f"H{first}")} if cls.recurrent_gates else {}
        for name, what in expanded(cls.products, cls.options).items():
            found[name] = what if isinstance(what, Product) else Product(tuple(what))
        return {n: v._replace(heads=v.heads or (cls.heads() if v.axes == "HH" else 1)) for n, v in found.items()}

    @classmethod
    def given(cls, parameters: Sequence[Any], multiply: Multiply) -> tuple[Any, ...]:
        """The values of the record ``p``.

        Args:
            parameters: the values of all `rows`, then of the ``scalars``.
            multiply: a function that computes a product of `rows_of_products`.
        """

        def product(name: str, rows: tuple[str, ...]) -> Callable[[Any], Any]:
            record = namedtuple(name, rows)
            return lambda v: record(*multiply(name, v)) if len(rows) > 1 else multiply(name, v)[0]

        made = (product(name, rows) for name, rows in cls.rows_of_products().items())
        return (*parameters, *cls.options.values(), *grouped(cls.products, cls.options, made))

    @classmethod
    def heads(cls) -> int:
        """The number of diagonal blocks of weights of axes HH, which is also the size of the letter N."""
        return cls.options.get("heads", 1)

    @classmethod
    def own_names(cls) -> tuple[str, ...]:
        """The names of the parameters that torch.nn's cells do not have, in order."""
        names = [f"weight_{name}" for name in cls.parameters]
        for name, product in cls.every_product.items():
            if name != "hh":
                names += [f"weight_{name}", f"bias_{name}"][: 1 + product.bias]
        return *names, *(f"weight_{name}" for name in cls.scalars)

    @classmethod
    def sizes_by_letter(cls, hidden_size: int) -> dict[str, int]:
        """The sizes of the cell's letters, except F."""
        return {letter: cls.options[option] for letter, option in cls.sizes.items()} | {
            "H": hidden_size,
            "N": cls.heads(),
        }

    @classmethod
    def own_shapes(cls, hidden_size: int, input_size: int = 0) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters that `own_names` names, by name, in the same order."""
        sizes = cls.sizes_by_letter(hidden_size) | {"F": input_size}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, rows in cls.parameters.items():
            shapes[f"weight_{name}"] = len(rows), sizes[cls.row_sizes[next(iter(rows))]]
        for name, product in cls.every_product.items():
            rows = len(product.rows) * sizes[product.axes[0]]
            shapes[f"weight_{name}"] = rows, sizes[product.axes[1]] // product.heads
            shapes[f"bias_{name}"] = (rows,)
        shapes |= {f"weight_{name}": (1,) for name in cls.scalars}
        return {name: shapes[name] for name in cls.own_names()}

    @classmethod
    def configured(cls, **options: Any) -> type["Cell"]:
        """The cell with other options, which its name lists; the same options always give the same class.

        Raises:
            TypeError: the cell has no such option, or a value is of another kind than the default.
        """
        unknown = options.keys() - cls.options.keys()
        if unknown:
            raise TypeError(f"the {cls.base.name} cell got an unexpected option {min(unknown)!r}")
        defaults, words = cls.base.options, []
        for name, value in sorted({**cls.options, **options}.items()):
            if value is not defaults[name]:
                word, default = spelled(cls.base.name, name, defaults[name], value), defaults[name]
                if default is None or word != spelled(cls.base.name, name, default, default):
                    words.append(f"{name}={word}")
        return cls.base.with_words(",".join(words))

    @classmethod
    def with_words(cls, words: str) -> type["Cell"]:
        """The cell with the options that are listed in a configured cell's name; a ValueError for other words."""
        there = cls.base.configurations
        if words not in there:
            there.setdefault(words, _configured(cls.base, words))  # another thread may have made it meanwhile
        return there[words]

    @classmethod
    def projected(cls) -> type["Cell"]:
        """The cell whose first state is projected to size P by a product (for LSTM: Sak et al. 2014)."""
        first, *others = cls.state_sizes
        products = {**cls.products, "hr": Product((first,), "PH", bias=False)}

        @wraps(cls.step)
        def step(x: Any, r: Any, s: Any, p: Any) -> Any:
            new = cls.step(x, r, s, p)
            new = new if isinstance(new, tuple) else (new,)
            return p.hr(new[0]), *new[1:]

        own = {"name": f"projected_{cls.name}", "step": staticmethod(step), "products": products}
        own |= {"states": {first: "P"} | {name: cls.state_sizes[name] for name in others}, "projection": False}
        own |= {"sizes": {**cls.sizes, "P": "proj_size"}, "__module__": cls.__module__}
        return type(f"Projected{cls.__name__}", (cls,), own)


def _configured(cell: type[Cell], words: str) -> type[Cell]:
    pairs = [word.split("=", 1) for word in words.split(",")]
    if any(len(pair) < 2 or pair[0] not in cell.options for pair in pairs):
        raise ValueError(f"the {cell.name} cell has no options {words!r}")
    options = {**cell.options, **{name: read(cell.options[name], word) for name, word in pairs}}
    own = {"name": f"{cell.name}[{words}]", "options": options, "base": cell, "words": words}
    return type(cell.__name__, (cell,), {**own, "__module__": cell.__module__, "__doc__": cell.__doc__})


def _check(cell: type[Cell]) -> None:
    """Raise a TypeError if declarations contradict each other."""

    def error(words: str) -> TypeError:
        return TypeError(f"cell {cell.__name__} {words}")

    names = [*cell.parameters, *expanded(cell.products, cell.options), *cell.scalars]
    kept_for_others = {"ih", "hh"} | ({"hr"} if cell.state_sizes[cell.states[0]] != "P" else set())
    taken = {name for name in names if name in kept_for_others or names.count(name) > 1}
    if taken:
        raise error(f"cannot have a parameter {min(taken)}: its weight has that name")
    reached = _OF_A_CALL & cell.streams.keys()
    if reached:
        raise error(f"cannot have a stream {min(reached)}: its modules have an argument of that name")
    reached = _OF_THE_CONSTRUCTOR & cell.options.keys()
    if reached:
        raise error(f"cannot have an option {min(reached)}: its modules have an argument of that name")
    reserved = [letter for letter in cell.sizes if len(letter) != 1 or letter in "HFNTB"]
    if reserved:
        raise error(f"cannot have a size {reserved[0]!r}: it takes one letter, and none of H, F, N, T and B")
    if cell.streams.get("input", "TBH") not in ("TBH", "TBF"):
        raise error(f"cannot read its input as {cell.streams['input']!r}: choose 'TBH' or 'TBF'")
    for name, rows in cell.parameters.items():
        if not rows:
            raise error(f"must state the rows of its parameter {name}")
    for name, axes in cell.streams.items():
        if "T" in axes[1:] or "B" in axes[1:].removeprefix("B" if axes.startswith("T") else ""):
            raise error(f"has a stream {name} of axes {axes!r}: T comes first, then B, then units")
    known = {"H", "F", *cell.sizes, *("N" if "heads" in cell.options else "")}
    axes = [*cell.state_sizes.values(), *cell.row_sizes.values()]
    axes += ["".join(product.axes) for product in cell.every_product.values()]
    axes += [axes.removeprefix("T").removeprefix("B") for axes in cell.streams.values()]
    unknown = {letter for letter in "".join(axes) if letter not in known}
    if unknown:
        raise error(f"has no size {min(unknown)}: it is to be named in sizes")
    for name, rows in cell.parameters.items():
        letters = sorted({cell.row_sizes[row] for row in rows})
        if len(letters) > 1:
            raise error(f"has rows of different sizes in {name}: {' and '.join(letters)}")
    roles = ["bias_ih", *(f"bias_{name}" for name, product in cell.every_product.items() if product.bias)]
    roles += [f"weight_{name}" for name in (*cell.parameters, *cell.scalars)]
    strange = cell.initial_values().keys() - {row for role in roles for row in cell.rows_of(role)}
    if strange:
        raise error(f"has an initial value for {min(strange)}, which is no row, scalar or bias of it")
