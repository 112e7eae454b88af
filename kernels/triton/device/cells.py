"""The cells' kernels, one step forward and backward.

Made from seqcells/cells by `make cells`: edit nothing below these words, which alone are written by hand.

Elementwise, in float32 or float64, over tuples of tiles of one shape, in the order in which the cell names their parts:

    forward(x, r, s, p) -> n, saved
    backward(saved, s, n, p, d) -> dx, dr, ds, dp

* x: W_ih x_t + b_ih for each gate; r: W_hh h_(t-1) + b_hh for each recurrent gate;
* s: the states before the step; p: the rows of the per-unit parameters;
* n: the new states, before any projection; saved: what backward needs besides;
* d: the gradients of n, whatever they come from; dx, dr, ds, dp: those of x, r, s, p. ds lacks what comes through
  r, which is the engine's product; dp is of one element, to be summed over time and batch.

Besides these functions CELLS has, for each cell by its name:

* saved: the names of what is saved;
* same_dx: for each recurrent gate the gate whose dx is the same value as its dr, since `step` has only their
  sum, or -1;
* previous, next: which of s and n backward reads; the others may hold anything.
"""

from collections import namedtuple

import triton
import triton.language as tl

from .activations import exp, expm1, log_sigmoid, maximum, relu, sigmoid, tanh, where

Kernels = namedtuple("Kernels", "forward backward saved same_dx previous next")


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
    x_i, x_f, x_g, x_o = x[0], x[1], x[2], x[3]
    r_i, r_f, r_g, r_o = r[0], r[1], r[2], r[3]
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
    """Gradients of lstm_forward, which saved input, forget, candidate, output."""
    s_c = s[1]
    input, forget, candidate, output = saved[0], saved[1], saved[2], saved[3]
    cell = n[1]
    d_h, d_c = d[0], d[1]
    tanh_cell = tanh(cell)
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
    x_r, x_z, x_n = x[0], x[1], x[2]
    r_r, r_z, r_n = r[0], r[1], r[2]
    s_h = s[0]
    reset = sigmoid(x_r + r_r)
    update = sigmoid(x_z + r_z)
    new = tanh(x_n + reset * r_n)
    h = new + update * (s_h - new)
    return (h,), (r_n, reset, update, new)


@triton.jit
def gru_backward(saved, s, n, p, d):
    """Gradients of gru_forward, which saved r_n, reset, update, new."""
    s_h = s[0]
    r_n, reset, update, new = saved[0], saved[1], saved[2], saved[3]
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
    """Gradients of rnn_tanh_forward, which saved nothing."""
    h = n[0]
    d_h = d[0]
    dx_h = d_h * (1.0 - h * h)
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
    """Gradients of rnn_relu_forward, which saved nothing."""
    h = n[0]
    d_h = d[0]
    dx_h = where(h > 0.0, d_h, 0.0)
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
    x_i, x_f, x_g, x_o = x[0], x[1], x[2], x[3]
    r_i, r_f, r_g, r_o = r[0], r[1], r[2], r[3]
    s_c = s[1]
    p_i, p_f, p_o = p[0], p[1], p[2]
    input = sigmoid(x_i + r_i + p_i * s_c)
    forget = sigmoid(x_f + r_f + p_f * s_c)
    candidate = tanh(x_g + r_g)
    cell = forget * s_c + input * candidate
    output = sigmoid(x_o + r_o + p_o * cell)
    h = output * tanh(cell)
    return (h, cell), (input, forget, candidate, output)


@triton.jit
def peephole_lstm_backward(saved, s, n, p, d):
    """Gradients of peephole_lstm_forward, which saved input, forget, candidate, output."""
    s_c = s[1]
    p_i, p_f, p_o = p[0], p[1], p[2]
    input, forget, candidate, output = saved[0], saved[1], saved[2], saved[3]
    cell = n[1]
    d_h, d_c = d[0], d[1]
    tanh_cell = tanh(cell)
    d_output = d_h * tanh_cell
    dx_o = d_output * output * (1.0 - output)
    dp_o = dx_o * cell
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


@triton.jit
def cifg_forward(x, r, s, p):
    """LSTM with coupled input and forget gates (Greff et al. 2015, arXiv:1503.04069): i = 1 - f.

    forget = sigmoid(x.f + r.f)
    candidate = tanh(x.g + r.g)
    output = sigmoid(x.o + r.o)
    cell = forget * s.c + (1 - forget) * candidate
    return output * tanh(cell), cell
    """
    x_f, x_g, x_o = x[0], x[1], x[2]
    r_f, r_g, r_o = r[0], r[1], r[2]
    s_c = s[1]
    forget = sigmoid(x_f + r_f)
    candidate = tanh(x_g + r_g)
    output = sigmoid(x_o + r_o)
    cell = forget * s_c + (1.0 - forget) * candidate
    h = output * tanh(cell)
    return (h, cell), (forget, candidate, output)


@triton.jit
def cifg_backward(saved, s, n, p, d):
    """Gradients of cifg_forward, which saved forget, candidate, output."""
    s_c = s[1]
    forget, candidate, output = saved[0], saved[1], saved[2]
    cell = n[1]
    d_h, d_c = d[0], d[1]
    one_minus_forget = 1.0 - forget
    tanh_cell = tanh(cell)
    d_output = d_h * tanh_cell
    d_cell = d_c + d_h * output * (1.0 - tanh_cell * tanh_cell)
    d_candidate = d_cell * one_minus_forget
    ds_c = d_cell * forget
    d_forget = d_cell * (s_c - candidate)
    dx_o = d_output * output * (1.0 - output)
    dx_g = d_candidate * (1.0 - candidate * candidate)
    dx_f = d_forget * forget * one_minus_forget
    zero = tl.zeros_like(d[0])
    return (dx_f, dx_g, dx_o), (dx_f, dx_g, dx_o), (zero, ds_c), ()


@triton.jit
def janet_forward(x, r, s, p):
    """LSTM with nothing but its forget gate (van der Westhuizen & Lasenby 2018, arXiv:1804.04849), β = 0.

    forget = sigmoid(x.f + r.f)
    candidate = tanh(x.g + r.g)
    return forget * s.h + (1 - forget) * candidate
    """
    x_f, x_g = x[0], x[1]
    r_f, r_g = r[0], r[1]
    s_h = s[0]
    forget = sigmoid(x_f + r_f)
    candidate = tanh(x_g + r_g)
    h = forget * s_h + (1.0 - forget) * candidate
    return (h,), (forget, candidate)


@triton.jit
def janet_backward(saved, s, n, p, d):
    """Gradients of janet_forward, which saved forget, candidate."""
    s_h = s[0]
    forget, candidate = saved[0], saved[1]
    d_h = d[0]
    one_minus_forget = 1.0 - forget
    d_candidate = d_h * one_minus_forget
    ds_h = d_h * forget
    d_forget = d_h * (s_h - candidate)
    dx_g = d_candidate * (1.0 - candidate * candidate)
    dx_f = d_forget * forget * one_minus_forget
    return (dx_f, dx_g), (dx_f, dx_g), (ds_h,), ()


@triton.jit
def ligru_forward(x, r, s, p):
    """Light GRU (Ravanelli et al. 2018, arXiv:1803.10225): no reset gate, a rectifier; without its batch norm.

    update = sigmoid(x.z + r.z)
    candidate = relu(x.h + r.h)
    return update * s.h + (1 - update) * candidate
    """
    x_z, x_h = x[0], x[1]
    r_z, r_h = r[0], r[1]
    s_h = s[0]
    update = sigmoid(x_z + r_z)
    candidate = relu(x_h + r_h)
    h = update * s_h + (1.0 - update) * candidate
    return (h,), (update, candidate)


@triton.jit
def ligru_backward(saved, s, n, p, d):
    """Gradients of ligru_forward, which saved update, candidate."""
    s_h = s[0]
    update, candidate = saved[0], saved[1]
    d_h = d[0]
    one_minus_update = 1.0 - update
    d_candidate = d_h * one_minus_update
    ds_h = d_h * update
    d_update = d_h * (s_h - candidate)
    dx_h = where(candidate > 0.0, d_candidate, 0.0)
    dx_z = d_update * update * one_minus_update
    return (dx_z, dx_h), (dx_z, dx_h), (ds_h,), ()


@triton.jit
def indrnn_forward(x, r, s, p):
    """Independently recurrent network (Li et al. 2018, arXiv:1803.04831): each unit sees only its own past.

    return relu(x.h + p.u * s.h)
    """
    x_h = x[0]
    s_h = s[0]
    p_u = p[0]
    h = relu(x_h + p_u * s_h)
    return (h,), ()


@triton.jit
def indrnn_backward(saved, s, n, p, d):
    """Gradients of indrnn_forward, which saved nothing."""
    s_h = s[0]
    p_u = p[0]
    h = n[0]
    d_h = d[0]
    dx_h = where(h > 0.0, d_h, 0.0)
    dp_u = dx_h * s_h
    ds_h = dx_h * p_u
    return (dx_h,), (), (ds_h,), (dp_u,)


@triton.jit
def mingru_forward(x, r, s, p):
    """minGRU (Feng et al. 2024, arXiv:2410.01201), its sequential form: gates that see only the input.

    update = sigmoid(x.z)
    return (1 - update) * s.h + update * x.h
    """
    x_z, x_h = x[0], x[1]
    s_h = s[0]
    update = sigmoid(x_z)
    h = (1.0 - update) * s_h + update * x_h
    return (h,), (x_h, update)


@triton.jit
def mingru_backward(saved, s, n, p, d):
    """Gradients of mingru_forward, which saved x_h, update."""
    s_h = s[0]
    x_h, update = saved[0], saved[1]
    d_h = d[0]
    one_minus_update = 1.0 - update
    dx_h = d_h * update
    ds_h = d_h * one_minus_update
    d_update = d_h * (x_h - s_h)
    dx_z = d_update * update * one_minus_update
    return (dx_z, dx_h), (), (ds_h,), ()


@triton.jit
def jordan_forward(x, r, s, p):
    """Jordan's network (Jordan 1986): its output is fed back, a projection of the hidden units (``proj_size``).

    return tanh(x.h + r.h)
    """
    x_h = x[0]
    r_h = r[0]
    h = tanh(x_h + r_h)
    return (h,), (h,)


@triton.jit
def jordan_backward(saved, s, n, p, d):
    """Gradients of jordan_forward, which saved h."""
    h = saved[0]
    d_h = d[0]
    dx_h = d_h * (1.0 - h * h)
    zero = tl.zeros_like(d[0])
    return (dx_h,), (dx_h,), (zero,), ()


@triton.jit
def slstm_forward(x, r, s, p):
    """xLSTM's scalar LSTM (Beck et al. 2024, arXiv:2405.04517): exponential input gate, normaliser n, stabiliser m.

    log_input = x.i + r.i
    log_forget = log_sigmoid(x.f + r.f)
    carried = where(s.n > 0, log_forget + s.m, NOTHING)
    stabiliser = maximum(carried, log_input)
    input = exp(log_input - stabiliser)
    forget = exp(carried - stabiliser)
    candidate = tanh(x.z + r.z)
    output = sigmoid(x.o + r.o)
    cell = forget * s.c + input * candidate
    normaliser = forget * s.n + input
    return output * cell / normaliser, cell, normaliser, stabiliser
    """
    x_i, x_f, x_z, x_o = x[0], x[1], x[2], x[3]
    r_i, r_f, r_z, r_o = r[0], r[1], r[2], r[3]
    s_c, s_n, s_m = s[1], s[2], s[3]
    log_input = x_i + r_i
    log_forget = log_sigmoid(x_f + r_f)
    carried = where(s_n > 0.0, log_forget + s_m, -1e30)
    stabiliser = maximum(carried, log_input)
    input = exp(log_input - stabiliser)
    forget = exp(carried - stabiliser)
    candidate = tanh(x_z + r_z)
    output = sigmoid(x_o + r_o)
    cell = forget * s_c + input * candidate
    normaliser = forget * s_n + input
    h = output * cell / normaliser
    return (h, cell, normaliser, stabiliser), (log_input, log_forget, candidate, output)


@triton.jit
def slstm_backward(saved, s, n, p, d):
    """Gradients of slstm_forward, which saved log_input, log_forget, candidate, output."""
    s_c, s_n, s_m = s[1], s[2], s[3]
    log_input, log_forget, candidate, output = saved[0], saved[1], saved[2], saved[3]
    cell, normaliser, stabiliser = n[1], n[2], n[3]
    d_h, d_c, d_n, d_m = d[0], d[1], d[2], d[3]
    t1 = s_n > 0.0
    carried = where(t1, log_forget + s_m, -1e30)
    input = exp(log_input - stabiliser)
    forget = exp(carried - stabiliser)
    h = output * cell / normaliser
    t2 = d_h / normaliser
    d_normaliser = d_n - t2 * h
    d_output = t2 * cell
    d_cell = d_c + t2 * output
    ds_n = d_normaliser * forget
    d_candidate = d_cell * input
    d_input = d_normaliser + d_cell * candidate
    ds_c = d_cell * forget
    d_forget = d_normaliser * s_n + d_cell * s_c
    dx_o = d_output * output * (1.0 - output)
    dx_z = d_candidate * (1.0 - candidate * candidate)
    t3 = d_forget * forget
    t4 = d_input * input
    d_stabiliser = d_m - t3 - t4
    t5 = carried > log_input
    t6 = log_input > carried
    t7 = d_stabiliser / 2.0
    d_carried = t3 + where(t5, d_stabiliser, where(t6, 0.0, t7))
    d_log_input = t4 + where(t6, d_stabiliser, where(t5, 0.0, t7))
    d_log_forget = where(t1, d_carried, 0.0)
    dx_f = -(d_log_forget * expm1(log_forget))
    zero = tl.zeros_like(d[0])
    return (d_log_input, dx_f, dx_z, dx_o), (d_log_input, dx_f, dx_z, dx_o), (zero, ds_c, ds_n, d_log_forget), ()


CELLS = {
    "lstm": Kernels(
        forward=lstm_forward,
        backward=lstm_backward,
        saved=("input", "forget", "candidate", "output"),
        same_dx=(0, 1, 2, 3),
        previous=(False, True),
        next=(False, True),
    ),
    "gru": Kernels(
        forward=gru_forward,
        backward=gru_backward,
        saved=("r_n", "reset", "update", "new"),
        same_dx=(0, 1, -1),
        previous=(True,),
        next=(False,),
    ),
    "rnn_tanh": Kernels(
        forward=rnn_tanh_forward,
        backward=rnn_tanh_backward,
        saved=(),
        same_dx=(0,),
        previous=(False,),
        next=(True,),
    ),
    "rnn_relu": Kernels(
        forward=rnn_relu_forward,
        backward=rnn_relu_backward,
        saved=(),
        same_dx=(0,),
        previous=(False,),
        next=(True,),
    ),
    "peephole_lstm": Kernels(
        forward=peephole_lstm_forward,
        backward=peephole_lstm_backward,
        saved=("input", "forget", "candidate", "output"),
        same_dx=(0, 1, 2, 3),
        previous=(False, True),
        next=(False, True),
    ),
    "cifg": Kernels(
        forward=cifg_forward,
        backward=cifg_backward,
        saved=("forget", "candidate", "output"),
        same_dx=(0, 1, 2),
        previous=(False, True),
        next=(False, True),
    ),
    "janet": Kernels(
        forward=janet_forward,
        backward=janet_backward,
        saved=("forget", "candidate"),
        same_dx=(0, 1),
        previous=(True,),
        next=(False,),
    ),
    "ligru": Kernels(
        forward=ligru_forward,
        backward=ligru_backward,
        saved=("update", "candidate"),
        same_dx=(0, 1),
        previous=(True,),
        next=(False,),
    ),
    "indrnn": Kernels(
        forward=indrnn_forward,
        backward=indrnn_backward,
        saved=(),
        same_dx=(),
        previous=(True,),
        next=(True,),
    ),
    "mingru": Kernels(
        forward=mingru_forward,
        backward=mingru_backward,
        saved=("x_h", "update"),
        same_dx=(),
        previous=(True,),
        next=(False,),
    ),
    "jordan": Kernels(
        forward=jordan_forward,
        backward=jordan_backward,
        saved=("h",),
        same_dx=(0,),
        previous=(False,),
        next=(False,),
    ),
    "slstm": Kernels(
        forward=slstm_forward,
        backward=slstm_backward,
        saved=("log_input", "log_forget", "candidate", "output"),
        same_dx=(0, 1, 2, 3),
        previous=(False, True, True, True),
        next=(False, True, True, True),
    ),
}
