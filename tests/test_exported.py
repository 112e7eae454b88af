"""Saved programs of torch.export in a process of their own: with the package to the same bits, and without it."""

import pytest
import torch
from exported_layers import SIZES, F, H, Wrapped, inputs, keep, program_of, run_elsewhere
from support import plain_if

import seqcells
from seqcells.cells import AHEAD_OF_TIME
from seqcells.io.decompose import decompose
from seqcells.kernels import cpu

pytestmark = pytest.mark.usefixtures("own_registry")
ENGINE = "reference" if cpu.why_not_available() else "cpu"
LAYERS = {
    "lstm": lambda **options: seqcells.LSTM(F, H, **options),
    "gru": lambda **options: seqcells.GRU(F, H, **options),
    "rnn_tanh": lambda **options: seqcells.RNN(F, H, **options),
    "rnn_relu": lambda **options: seqcells.RNN(F, H, nonlinearity="relu", **options),
    "peephole_lstm": lambda **options: seqcells.PeepholeLSTM(F, H, **options),
}
FORMS = {
    "plain": (None, {}),
    "two layers both ways": (None, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lengths": ("lengths", {"bidirectional": True}),
    "reset": ("reset", {"bidirectional": True}),
    "packed": ("packed", {"num_layers": 2, "bidirectional": True}),
}


def test_every_cell_of_the_engine_is_here():
    assert {cell.name for cell in AHEAD_OF_TIME} == {*LAYERS}


@plain_if(lambda form: form == "lengths")
@pytest.mark.parametrize("form", FORMS)
def test_a_saved_program_gives_the_same_bits_in_a_fresh_process(form, tmp_path):
    """For any number of time steps and sequences."""
    name, options = FORMS[form]
    for kind, make in LAYERS.items():
        torch.manual_seed(0)
        layer = make(**options, backend=ENGINE)  # "auto" may choose another backend for another number of threads
        module = Wrapped(layer, name)
        first = options.get("batch_first", False)
        calls = [inputs(name, *size, seed, first) for seed, size in enumerate(SIZES)]
        keep(tmp_path, kind, program_of(module, name, first), module, calls)
    for kind, found, expected in run_elsewhere(tmp_path, "seqcells"):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, msg=f"{kind}: {form}")


DECOMPOSED = {
    **{f"{kind}, {form}": (LAYERS[kind], *FORMS[form]) for kind in ("lstm", "gru") for form in FORMS},
    "projection": (LAYERS["lstm"], "lengths", {"proj_size": 2, "bidirectional": True}),
    "layer norm": (lambda: seqcells.define(seqcells.cells.LayerNormLSTM)[0](F, H), None, {}),
    "heads": (lambda: seqcells.define(seqcells.cells.MultiHeadSLSTM)[0](F, H, heads=2), "reset", {}),
    "a stream": (lambda: seqcells.define(seqcells.cells.ContinuousTimeRNN)[0](F, H), "elapsed", {}),
}


@pytest.mark.heavy
def test_a_decomposed_program_runs_without_the_package(tmp_path):
    for label, (make, name, options) in DECOMPOSED.items():
        torch.manual_seed(0)
        module, first = Wrapped(make(**options), name), options.get("batch_first", False)
        program = decompose(program_of(module, name, first))
        assert "seqcells" not in str(program.graph)
        keep(tmp_path, label, program, module, [inputs(name, *size, 3, first) for size in SIZES])
    for label, found, expected in run_elsewhere(tmp_path, "nothing"):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=label)


def test_kept_values_and_one_layer_decomposed():
    torch.manual_seed(0)
    module = Wrapped(seqcells.LSTM(F, H, 2), None, keep=("c", "c_l0"))
    program = decompose(program_of(module, None))
    for size in SIZES:
        given = inputs(None, *size)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(*given), module(*given), rtol=1e-5, atol=1e-6)


class Sorted(torch.nn.Module):
    """A layer with a packed input whose sequences have another order than the states."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, data, batch_sizes, sorted_indices, unsorted_indices, reset, h):
        packed = torch.nn.utils.rnn.PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)
        output, final, kept = self.layer(packed, h, reset=reset, keep=("h_l0",))
        return output.data, final, kept["h_l0"].data


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_inputs_in_any_order(batch_first):
    torch.manual_seed(0)
    module = Sorted(LAYERS["gru"](num_layers=2, batch_first=batch_first, backend="reference")).eval()
    steps, rows, batch = (torch.export.Dim(name, min=2) for name in ("steps", "rows", "batch"))
    axes = {0: batch, 1: steps} if batch_first else {0: steps, 1: batch}
    dynamic = {0: rows}, {0: steps}, {0: batch}, {0: batch}, axes, {1: batch}

    def given(*lengths):
        x = torch.randn(max(lengths), len(lengths), F)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        reset = torch.rand(*(x.shape[1::-1] if batch_first else x.shape[:2])) < 0.3
        return *packed, reset, torch.randn(2, len(lengths), H)

    with torch.no_grad():
        program = torch.export.export(module, given(3, 5, 4), dynamic_shapes=dynamic, strict=False)
        for lengths in ((3, 5, 4), (1, 2, 9, 4), (6, 6)):
            again = given(*lengths)
            torch.testing.assert_close(program.module()(*again), module(*again), rtol=1e-5, atol=1e-6)


def test_a_packing_inside_of_a_program_is_refused_by_name():
    """In a program, the result of torch's own pack_padded_sequence has no batch sizes."""

    class Packing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = seqcells.GRU(F, H)

        def forward(self, input, lengths):
            return self.layer(torch.nn.utils.rnn.pack_padded_sequence(input, lengths))[1]

    given = torch.zeros(5, 2, F), torch.tensor([5, 2])
    with pytest.raises(RuntimeError, match="give the layer the padded input and lengths="):
        torch.export.export(Packing(), given, strict=False)
    with pytest.raises(ValueError, match="lengths should not be given with a PackedSequence"):
        torch.export.export(Both(), inputs("packed", 5, 2), strict=False)


class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = seqcells.GRU(F, H)

    def forward(self, input, sizes):
        return self.layer(torch.nn.utils.rnn.PackedSequence(input, sizes), lengths=[5, 2])[1]


class Rounded(torch.nn.Module):
    """A layer under autocast."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input):
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(input)[0]


@pytest.mark.parametrize("make", [LAYERS["lstm"], LAYERS["gru"], torch.nn.LSTM])
def test_dtypes_under_autocast(make):
    layer = make(F, H) if make is torch.nn.LSTM else make()
    module, x = Rounded(layer).eval(), torch.randn(5, 2, F)
    with torch.no_grad():
        program = torch.export.export(module, (x,), strict=False)
        assert program.module()(x).dtype == module(x).dtype


def test_only_programs_are_decomposed():
    with pytest.raises(TypeError, match=r"should be a torch\.export\.ExportedProgram, got: GRU"):
        decompose(seqcells.GRU(F, H))
