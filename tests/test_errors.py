"""Bad input gets torch.nn's error, compared with the installed torch; our own arguments get a clear error."""

import linecache
import re
import traceback
import warnings

import numpy as np
import pytest
import torch
from bad_input import (
    CELL,
    CONSTRUCTOR,
    IN,
    INPUT,
    LSTM_MIXED,
    LSTM_ONLY,
    MIXED,
    PACKED,
    STATE,
    TAKEN,
    Case,
    H,
    Maker,
    N,
    T,
    packed,
    x,
)
from support import backends
from torch import nn

import seqcells
from seqcells import functional
from seqcells.backends import BACKENDS
from seqcells.call import operators

KINDS = ("LSTM", "GRU", "RNN")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_backend = pytest.mark.parametrize("backend", ["auto", "reference"])


def each_case(*tables: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(c, id=name) for t in tables for name, c in t.items()])


def error_of(case: Case, maker: Maker) -> Exception:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception) as caught:
            case(maker)
    return caught.value


def checked_in_python(error: Exception) -> bool:
    """Whether a `raise` in torch.nn's recurrent modules made the error."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    path = frame.f_code.co_filename
    return path == nn.modules.rnn.__file__ and linecache.getline(path, line).lstrip().startswith("raise ")


def compare(case: Case, ours: Maker, theirs: Maker) -> None:
    """The errors have the same type. They have the same message if torch.nn raised it in Python, or an operator that
    both call."""
    got, wanted = error_of(case, ours), error_of(case, theirs)
    assert type(got) is type(wanted), (got, wanted)
    same_operator = ours.chosen["backend"] == "auto" and type(wanted) is RuntimeError
    if checked_in_python(wanted) or same_operator:
        assert str(got) == str(wanted)


WORDED = [
    INPUT["no steps"],
    *(CELL[name] for name in ("features", "state of another batch", "state of another hidden size")),
]


@pytest.mark.parametrize("case", WORDED, ids=["no steps", "features", "batch", "hidden size"])
@each_kind
def test_the_reference_knows_the_operators_words(case, kind):
    got, wanted = error_of(case, Maker(kind, "reference")), error_of(case, Maker(kind))
    assert (type(got), str(got)) == (type(wanted), str(wanted))


@each_case(CONSTRUCTOR, INPUT, STATE, CELL)
@each_kind
@each_backend
def test_bad_input_gets_torchs_error(case, kind, backend):
    compare(case, Maker(kind, backend), Maker(kind))


@each_case(LSTM_ONLY)
@each_backend
def test_bad_states_of_an_lstm_get_torchs_error(case, backend):
    compare(case, Maker("LSTM", backend), Maker("LSTM"))


class CheckedLSTM(nn.LSTM):
    """nn.LSTM with all checks for a PackedSequence too, which nn.LSTM makes only for other inputs, but nn.GRU for
    both."""

    def forward(self, input, hx=None):
        self.check_input(input.data, input.batch_sizes)
        if hx is not None:
            self.check_forward_args(input.data, hx, input.batch_sizes)
        return super().forward(input, hx)


@each_case(PACKED)
@each_kind
@each_backend
def test_bad_packed_input_gets_torchs_error(case, kind, backend, monkeypatch):
    monkeypatch.setattr(nn, "LSTM", CheckedLSTM)
    compare(case, Maker(kind, backend), Maker(kind))


MIXED_FOR = [pytest.param(kind, case, id=f"{kind}-{name}") for kind in KINDS for name, case in MIXED.items()]
MIXED_FOR += [pytest.param("LSTM", case, id=f"LSTM-{name}") for name, case in LSTM_MIXED.items()]


@pytest.mark.parametrize(("kind", "case"), MIXED_FOR)
def test_mixed_dtypes_and_devices_get_torchs_error(kind, case):
    compare(case, Maker(kind, "torch"), Maker(kind))


@pytest.mark.parametrize("backend", [name for name in backends("lstm") if name != "torch"])
@pytest.mark.parametrize(("kind", "case"), MIXED_FOR)
def test_mixed_dtypes_and_devices_are_named(kind, case, backend):
    """The type is torch's. torch's message depends on the kernel that finds the mismatch; ours names the mismatch."""
    got, wanted = error_of(case, Maker(kind, backend)), error_of(case, Maker(kind))
    assert type(got) is type(wanted)
    words = r"Input and (hidden|parameter) tensors are not (at the same device|the same dtype), found input tensor "
    words += rf"|backend='{backend}' cannot run this call: its kernels (run on|take) "
    assert re.match(words, str(got))


def test_there_are_fifty_kinds():
    assert sum(map(len, (CONSTRUCTOR, INPUT, STATE, PACKED, LSTM_ONLY, CELL, MIXED))) >= 50


@each_case(TAKEN)
@each_kind
@each_backend
def test_what_torch_takes_is_taken(case, kind, backend):
    results = []
    for maker in (Maker(kind), Maker(kind, backend)):
        torch.manual_seed(0)
        results.append(case(maker))
    torch.testing.assert_close(*results)


@each_kind
@each_backend
def test_dropout_with_one_layer_warns_in_torchs_words(kind, backend):
    warned = []
    for maker in (Maker(kind), Maker(kind, backend)):
        with pytest.warns(UserWarning) as caught:
            maker.layer(dropout=0.25)
        warned.append([(w.category, str(w.message)) for w in caught])
        where = caught[0].filename
    assert warned[0] == warned[1]
    assert where.endswith("bad_input.py")  # the line that made the layer, not a line of the package


# Our own arguments.

LENGTHS = torch.tensor([T, 1])
FLAGS = torch.zeros(T, N, dtype=torch.bool)

OWN = {
    "lengths float": (TypeError, "lengths should be integers", {"lengths": LENGTHS.float()}),
    "lengths bool": (TypeError, "lengths should be integers", {"lengths": LENGTHS > 1}),
    "lengths of fewer bits": (
        TypeError,
        "integers, got: torch.uint1",
        {"lengths": torch.ones(2).byte().view(torch.uint1)},
    ),
    "lengths sparse": (TypeError, "a dense tensor, got a torch.sparse_coo one", {"lengths": LENGTHS.to_sparse()}),
    "lengths too large to be signed": (
        ValueError,
        r"steps 5, got: \[18446744073709551615, 1\]",
        {"lengths": torch.tensor([2**64 - 1, 1], dtype=torch.uint64)},
    ),
    "lengths of another batch": (RuntimeError, r"lengths of size \(2,\), got \[3\]", {"lengths": torch.ones(3).int()}),
    "lengths 2-D": (RuntimeError, r"lengths of size \(2,\), got \[1, 2\]", {"lengths": LENGTHS[None]}),
    "lengths negative": (ValueError, "between 0 and the number of steps 5", {"lengths": LENGTHS - 2}),
    "lengths above T": (ValueError, "between 0 and the number of steps 5", {"lengths": LENGTHS + 1}),
    "lengths that are none": (
        TypeError,
        r"lengths should be a tensor, an array or a list, got str",
        {"lengths": "5, 2"},
    ),
    "lengths without a value": (TypeError, "lengths should be a tensor.*got list", {"lengths": [5, None]}),
    "reset that is none": (TypeError, "reset should be a tensor, an array or a list, got object", {"reset": object()}),
    "reset ragged": (
        TypeError,
        "reset should be a tensor, an array or a list, got list",
        {"reset": [[True], [True, False]]},
    ),
    "reset of numbers": (
        TypeError,
        "reset should be of dtype torch.bool, got: torch.int64",
        {"reset": FLAGS.int().tolist()},
    ),
    "reset float": (TypeError, "reset should be of dtype torch.bool", {"reset": FLAGS.float()}),
    "reset integer": (TypeError, "reset should be of dtype torch.bool", {"reset": FLAGS.int()}),
    "reset transposed": (RuntimeError, r"reset of size \(5, 2\), got \[2, 5\]", {"reset": FLAGS.T}),
    "reset of other steps": (RuntimeError, r"reset of size \(5, 2\), got \[4, 2\]", {"reset": FLAGS[1:]}),
    "reset of one sequence": (RuntimeError, r"reset of size \(5, 2\), got \[5\]", {"reset": FLAGS[:, 0]}),
    "reset_state alone": (ValueError, "only be given with reset", {"reset_state": x(1, N, H)}),
}


@pytest.mark.parametrize(("error", "words", "options"), OWN.values(), ids=OWN)
@each_kind
@each_backend
def test_our_own_arguments(error, words, options, kind, backend):
    with pytest.raises(error, match=words):
        Maker(kind, backend).layer()(x(), **options)


INTEGERS = "uint64", "uint32", "uint16", "uint8", "int64", "int32", "int16", "int8"
FORMS = {
    **{f"torch.{name}": lambda name=name: torch.tensor([T, 1], dtype=getattr(torch, name)) for name in INTEGERS},
    **{f"numpy.{name}": lambda name=name: np.array([T, 1], name) for name in INTEGERS},
    "list": lambda: [T, 1],
    "tuple": lambda: (T, 1),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("backend", [name for name in backends("gru", options=("lengths",)) if name != "torch"])
def test_lengths_of_all_integers(form, backend):
    """By a layer and by functions; the output of a sequence of one step equals its output alone."""
    layer = Maker("GRU", backend).layer()
    cell, weights, input = layer.cell, layer._weights(), x()
    projected = nn.functional.linear(input, weights[0].ih, weights[0].bias_ih)
    alone, whole = layer(input[:1, 1])[0], layer(input[:, 0])[0]
    expected = torch.zeros(T, N, H)
    expected[:, 0], expected[:1, 1] = whole, alone
    for output, _ in (
        layer(input, lengths=form()),
        functional.layers(cell, input, [torch.zeros(1, N, H)], weights, lengths=form(), backend=backend),
        functional.recurrence(cell, projected, [torch.zeros(N, H)], weights[0], lengths=form(), backend=backend),
    ):
        torch.testing.assert_close(output, expected)
    args = [cell.name, operators.program(cell), [projected, torch.zeros(1, N, H), *weights[0].recurrent.present()]]
    args[2].append(torch.as_tensor(form()))
    names = "gates_x state_h weight_hh_0 bias_hh_0 lengths"
    torch.testing.assert_close(torch.ops.seqcells.recurrence(*args, names, False, backend)[0], expected)


@each_case(STATE)
@each_kind
def test_a_bad_reset_state_gets_the_error_of_a_bad_hx(case, kind):
    class Resetting(Maker):
        def layer(self, **settings):
            layer = super().layer(**settings)

            def call(input, state):
                flags = torch.zeros(input.shape[:-1], dtype=torch.bool)
                return layer(input, reset=flags, reset_state=state)

            return call

    got, wanted = error_of(case, Resetting(kind, "auto")), error_of(case, Maker(kind, "auto"))
    assert (type(got), str(got)) == (type(wanted), str(wanted))


@each_kind
def test_a_reset_state_of_another_dtype(kind):
    layer, flags = Maker(kind, "auto").layer(), torch.zeros(x().shape[:2], dtype=torch.bool)
    _, state = layer(x())
    state = tuple(s.double() for s in state) if isinstance(state, tuple) else state.double()
    with pytest.raises(RuntimeError, match="not the same dtype"):
        layer(x(), reset=flags, reset_state=state)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
@each_kind
def test_a_weight_of_another_size(kind, name, backend):
    """oneDNN's LSTM reads beyond a weight that is too small, and torch.nn's returns numbers."""
    layer = Maker(kind, backend).layer()
    setattr(layer, name, nn.Parameter(torch.zeros(2, 2)))
    with pytest.raises(RuntimeError, match=rf"Expected {name[:9]} of size \(.*\), got \[2, 2\]"):
        layer(x())


@each_kind
def test_lengths_with_a_packed_sequence(kind):
    with pytest.raises(ValueError, match="lengths should not be given with a PackedSequence"):
        Maker(kind, "auto").layer()(packed(), lengths=LENGTHS)


@pytest.mark.parametrize("name", ["cuda", "Triton", "", None])
@pytest.mark.parametrize("make", ["LSTM", "GRU", "RNN", "PeepholeLSTM", "LSTMCell", "GRUCell", "RNNCell"])
def test_an_unknown_backend_is_told_which_there_are(name, make):
    with pytest.raises(ValueError, match=r"unknown backend .*'auto', 'reference', 'torch', 'cpu', 'triton'"):
        getattr(seqcells, make)(IN, H, backend=name)


UNAVAILABLE = [name for name, backend in BACKENDS.items() if backend.why_not_available()]


@pytest.mark.parametrize("backend", UNAVAILABLE)
@each_kind
def test_a_backend_that_does_not_exist_here_says_why(backend, kind):
    maker = Maker(kind, backend)
    words = f"backend='{backend}' cannot run this call: " + re.escape(BACKENDS[backend].why_not_available())
    for call in (lambda: maker.layer()(x()), lambda: maker.layer().plan(x()), lambda: maker.cell()(x(N, IN))):
        with pytest.raises(RuntimeError, match=words):
            call()


@pytest.mark.parametrize("option", [{"lengths": LENGTHS}, {"reset": FLAGS}], ids=lambda option: next(iter(option)))
@each_kind
def test_torchs_operators_are_not_asked_for_what_they_lack(option, kind):
    words = f"backend='torch' cannot run this call: torch's operators have no {next(iter(option))}="
    with pytest.raises(RuntimeError, match=words):
        Maker(kind, "torch").layer()(x(), **option)


@pytest.mark.parametrize(
    "run",
    [
        lambda: seqcells.PeepholeLSTM(IN, H, backend="torch")(x()),
        lambda: seqcells.PeepholeLSTMCell(IN, H, backend="torch")(x(N, IN)),
    ],
    ids=["layer", "cell"],
)
def test_torch_has_no_peephole(run):
    with pytest.raises(RuntimeError, match=r"backend='torch' cannot run .* no operator for the peephole_lstm cell"):
        run()


@pytest.mark.parametrize("form", ["time first", "batch first", "packed"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_states_of_other_batches_are_refused_by_functions(backend, kind, form):
    """oneDNN's operator does not check: it read and wrote beyond states of fewer sequences."""
    layer = Maker(kind, "reference").layer()
    input, options = x(), {"backend": backend}
    if form == "packed":
        packed = nn.utils.rnn.pack_padded_sequence(input, torch.full((N,), T))
        input, options["batch_sizes"] = packed.data, packed.batch_sizes
    elif form == "batch first":
        input, options["batch_first"] = input.transpose(0, 1), True
    for size in ((1, N - 1, H), (1, N + 1, H), (2, N, H), (1, 1, H)):
        states = [torch.zeros(size)] * len(layer.cell.states)
        with pytest.raises(RuntimeError):
            functional.layers(layer.cell, input, states, layer._weights(), **options)
