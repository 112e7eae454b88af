"""The cells' kernels, one step forward and backward. Made from seqcells/cells by `make cells`: do not edit.

Elementwise, in float32 or float64, over tuples of tiles of one shape:

    forward(x, r, s, p) -> n, saved
    backward(saved, s, n, p, d) -> dx, dr, ds, dp

in the order in which the cell names their parts. x: W_ih x_t + b_ih for each gate; r: W_hh h_(t-1) + b_hh for
each recurrent gate; s: the states before the step; p: the rows of the per-unit parameters; n: the new states,
before any projection; d: the gradients of n. ds lacks what comes through r; dp is to be summed over time and
batch.

Of each cell: saved, what forward keeps for backward; shared, for each recurrent gate the gate whose dx is the
same as its dr (`step` has only their sum), or -1; previous and next, which of s and n backward reads: the others
may hold anything.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .activations import relu, sigmoid, tanh, where


class Kernels(NamedTuple):
    """A cell's functions, and what an engine has to keep for them; see the top of this file."""

    forward: Any
    backward: Any
    saved: tuple[str, ...]
    shared: tuple[int, ...]
    previous: tuple[bool, ...]
    next: tuple[bool, ...]


@triton.jit
def lstm_forward(x, r, s, p):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn.

    input = sigmoid(x.i + r.i)
    forget = sigmoid(x.f + r.f)
    candidate = tanh(x.g + r.g)
    output = sigmoid(x.o + r.o)
    cell = forget * s.c + input * candidate
    return output * tanh(cell), cell
    """
    x_i, x_f, x_g, x_o = x
    r_i, r_f, r_g, r_o = r
    s_c = s[1]
    input = sigmoid(x_i + r_i)
    forget = sigmoid(x_f + r_f)
    candidate = tanh(x_g + r_g)
    output = sigmoid(x_o + r_o)
    cell = forget * s_c + input * candidate
    h = output * tanh(cell)
    return (h, cell), (input, forget, candidate, output)


@triton.jit
def lstm_backward(saved, s, n, p, d):
    """Gradients of lstm_forward, from what it saved: input, forget, candidate, output."""
    input, forget, candidate, output = saved
    s_c = s[1]
    n_c = n[1]
    d_h, d_c = d
    tanh_cell = tanh(n_c)
    d_output = d_h * tanh_cell
    d_cell = d_c + d_h * output * (1.0 - tanh_cell * tanh_cell)
    d_input = d_cell * candidate
    d_candidate = d_cell * input
    d_forget = d_cell * s_c
    ds_c = d_cell * forget
    dx_o = d_output * output * (1.0 - output)
    dx_g = d_candidate * (1.0 - candidate * candidate)
    dx_f = d_forget * forget * (1.0 - forget)
    dx_i = d_input * input * (1.0 - input)
    zero = tl.zeros_like(d[0])
    return (dx_i, dx_f, dx_g, dx_o), (dx_i, dx_f, dx_g, dx_o), (zero, ds_c), ()


@triton.jit
def gru_forward(x, r, s, p):
    """Gated recurrent unit (Cho et al. 2014), the reset gate applied after the recurrent product, as torch.nn.

    reset = sigmoid(x.r + r.r)
    update = sigmoid(x.z + r.z)
    new = tanh(x.n + reset * r.n)
    return new + update * (s.h - new)
    """
    x_r, x_z, x_n = x
    r_r, r_z, r_n = r
    s_h = s[0]
    reset = sigmoid(x_r + r_r)
    update = sigmoid(x_z + r_z)
    new = tanh(x_n + reset * r_n)
    h = new + update * (s_h - new)
    return (h,), (r_n, reset, update, new)


@triton.jit
def gru_backward(saved, s, n, p, d):
    """Gradients of gru_forward, from what it saved: r_n, reset, update, new."""
    r_n, reset, update, new = saved
    s_h = s[0]
    d_h = d[0]
    d_update = d_h * (s_h - new)
    ds_h = d_h * update
    one_minus_update = 1.0 - update
    d_new = d_h * one_minus_update
    dx_n = d_new * (1.0 - new * new)
    d_reset = dx_n * r_n
    dr_n = dx_n * reset
    dx_z = d_update * update * one_minus_update
    dx_r = d_reset * reset * (1.0 - reset)
    return (dx_r, dx_z, dx_n), (dx_r, dx_z, dr_n), (ds_h,), ()


@triton.jit
def rnn_tanh_forward(x, r, s, p):
    """Elman's simple recurrent network (Elman 1990) with tanh, as torch.nn.

    return tanh(x.h + r.h)
    """
    x_h = x[0]
    r_h = r[0]
    h = tanh(x_h + r_h)
    return (h,), ()


@triton.jit
def rnn_tanh_backward(saved, s, n, p, d):
    """Gradients of rnn_tanh_forward, from what it saved: nothing."""
    n_h = n[0]
    d_h = d[0]
    dx_h = d_h * (1.0 - n_h * n_h)
    zero = tl.zeros_like(d[0])
    return (dx_h,), (dx_h,), (zero,), ()


@triton.jit
def rnn_relu_forward(x, r, s, p):
    """Elman's simple recurrent network with a rectifier (Le et al. 2015), as torch.nn.

    return relu(x.h + r.h)
    """
    x_h = x[0]
    r_h = r[0]
    h = relu(x_h + r_h)
    return (h,), ()


@triton.jit
def rnn_relu_backward(saved, s, n, p, d):
    """Gradients of rnn_relu_forward, from what it saved: nothing."""
    n_h = n[0]
    d_h = d[0]
    dx_h = where(n_h > 0.0, d_h, 0.0)
    zero = tl.zeros_like(d[0])
    return (dx_h,), (dx_h,), (zero,), ()


@triton.jit
def peephole_lstm_forward(x, r, s, p):
    """LSTM whose gates see the cell state (Gers & Schmidhuber 2000): i and f see c_{t-1}, o sees c_t.

    input = sigmoid(x.i + r.i + p.i * s.c)
    forget = sigmoid(x.f + r.f + p.f * s.c)
    candidate = tanh(x.g + r.g)
    cell = forget * s.c + input * candidate
    output = sigmoid(x.o + r.o + p.o * cell)
    return output * tanh(cell), cell
    """
    x_i, x_f, x_g, x_o = x
    r_i, r_f, r_g, r_o = r
    s_c = s[1]
    p_i, p_f, p_o = p
    input = sigmoid(x_i + r_i + p_i * s_c)
    forget = sigmoid(x_f + r_f + p_f * s_c)
    candidate = tanh(x_g + r_g)
    cell = forget * s_c + input * candidate
    output = sigmoid(x_o + r_o + p_o * cell)
    h = output * tanh(cell)
    return (h, cell), (input, forget, candidate, output)


@triton.jit
def peephole_lstm_backward(saved, s, n, p, d):
    """Gradients of peephole_lstm_forward, from what it saved: input, forget, candidate, output."""
    input, forget, candidate, output = saved
    s_c = s[1]
    n_c = n[1]
    p_i, p_f, p_o = p
    d_h, d_c = d
    tanh_cell = tanh(n_c)
    d_output = d_h * tanh_cell
    dx_o = d_output * output * (1.0 - output)
    dp_o = dx_o * n_c
    d_cell = d_c + d_h * output * (1.0 - tanh_cell * tanh_cell) + dx_o * p_o
    d_input = d_cell * candidate
    d_candidate = d_cell * input
    d_forget = d_cell * s_c
    dx_g = d_candidate * (1.0 - candidate * candidate)
    dx_f = d_forget * forget * (1.0 - forget)
    dp_f = dx_f * s_c
    dx_i = d_input * input * (1.0 - input)
    dp_i = dx_i * s_c
    ds_c = d_cell * forget + dx_f * p_f + dx_i * p_i
    zero = tl.zeros_like(d[0])
    return (dx_i, dx_f, dx_g, dx_o), (dx_i, dx_f, dx_g, dx_o), (zero, ds_c), (dp_i, dp_f, dp_o)


CELLS = {
    "lstm": Kernels(
        forward=lstm_forward,
        backward=lstm_backward,
        saved=("input", "forget", "candidate", "output"),
        shared=(0, 1, 2, 3),
        previous=(False, True),
        next=(False, True),
    ),
    "gru": Kernels(
        forward=gru_forward,
        backward=gru_backward,
        saved=("r_n", "reset", "update", "new"),
        shared=(0, 1, -1),
        previous=(True,),
        next=(False,),
    ),
    "rnn_tanh": Kernels(
        forward=rnn_tanh_forward,
        backward=rnn_tanh_backward,
        saved=(),
        shared=(0,),
        previous=(False,),
        next=(True,),
    ),
    "rnn_relu": Kernels(
        forward=rnn_relu_forward,
        backward=rnn_relu_backward,
        saved=(),
        shared=(0,),
        previous=(False,),
        next=(True,),
    ),
    "peephole_lstm": Kernels(
        forward=peephole_lstm_forward,
        backward=peephole_lstm_backward,
        saved=("input", "forget", "candidate", "output"),
        shared=(0, 1, 2, 3),
        previous=(False, True),
        next=(False, True),
    ),
}
