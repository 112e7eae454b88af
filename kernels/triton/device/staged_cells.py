"""The kernels of cells of several stages, forward and backward.

Made from seqcells/cells by `make cells`: edit nothing below these words, which alone are written by hand.

A step is a row of stages, one after each product. The function of a stage has whole rows: of each sequence of its tile
all units. What it is given as ``read`` and what it returns is in the table ``CELLS``, as `tables` explains. ``valid``
says which sequences have not ended, ``boundary`` which are reset before the step; `reduced` makes numbers of a row.
"""

import triton
import triton.language as tl

from seqcells.kernels.triton.device.activations import exp, expm1, log_sigmoid, maximum, rsqrt, sigmoid, tanh, where
from seqcells.kernels.triton.device.reductions import reduced
from seqcells.kernels.triton.device.staged_tables import Multiplied, Pass, Stage, Staged, Sum, Term


@triton.jit
def gru_reset_before_forward_0(read, valid, boundary, row):
    """The values of gru_reset_before_forward before the first product."""
    reset_state_h = read[0]
    carried_h = read[1]
    entering_h = where(boundary, reset_state_h, carried_h)
    return (entering_h, entering_h)


@triton.jit
def gru_reset_before_forward_1(read, valid, boundary, row):
    """The values of gru_reset_before_forward after the products with weight_hh."""
    hh_r, hh_z = read[0], read[1]
    bias_hh_r, bias_hh_z = read[2], read[3]
    x_r, x_z = read[4], read[5]
    entering_h = read[6]
    reset = sigmoid(x_r + (hh_r + bias_hh_r))
    update = sigmoid(x_z + (hh_z + bias_hh_z))
    t = reset * entering_h
    return (reset, update, update, t)


@triton.jit
def gru_reset_before_forward_2(read, valid, boundary, row):
    """The values of gru_reset_before_forward after the products with weight_candidate."""
    candidate_n = read[0]
    bias_candidate_n = read[1]
    x_n = read[2]
    entering_h, update = read[3], read[4]
    new = tanh(x_n + (candidate_n + bias_candidate_n))
    h = new + update * (entering_h - new)
    leaving_h = where(valid, h, entering_h)
    output = where(valid, h, 0.0)
    return (output, new, leaving_h)


@triton.jit
def gru_reset_before_forward(stage: tl.constexpr, read, valid, boundary, row):
    """GRU as first published (Cho et al. 2014, arXiv:1406.1078): the reset gate before the candidate's product.

    reset = sigmoid(x.r + r.r)
    update = sigmoid(x.z + r.z)
    new = tanh(x.n + p.candidate(reset * s.h))
    return new + update * (s.h - new)
    """
    if stage == 0:
        return gru_reset_before_forward_0(read, valid, boundary, row)
    if stage == 1:
        return gru_reset_before_forward_1(read, valid, boundary, row)
    if stage == 2:
        return gru_reset_before_forward_2(read, valid, boundary, row)


@triton.jit
def gru_reset_before_backward_0(read, valid, boundary, row):
    """The values of gru_reset_before_backward before the first product."""
    d_carried_h = read[0]
    d_output = read[1]
    reset_state_h = read[2]
    before_h = read[3]
    reset, update, new = read[4], read[5], read[6]
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    t = d_output + d_carried_h
    d_h = where(valid, t, 0.0)
    entering_h = where(boundary, reset_state_h, before_h)
    d_update = d_h * (entering_h - new)
    one_minus_update = 1.0 - update
    d_new = d_h * one_minus_update
    t_3 = d_new * (1.0 - new * new)
    d_x_n = where(valid, t_3, 0.0)
    valid_part = where(valid, reset * entering_h, 0.0)
    t_4 = d_update * update * one_minus_update
    d_x_z = where(valid, t_4, 0.0)
    return (d_x_z, d_x_n, valid_part, t, valid_d_carried_h, t_3, t_4)


@triton.jit
def gru_reset_before_backward_1(read, valid, boundary, row):
    """The values of gru_reset_before_backward after the products with weight_candidate."""
    reset_state_h = read[0]
    before_h = read[1]
    back_candidate = read[2]
    reset = read[3]
    entering_h = where(boundary, reset_state_h, before_h)
    d_reset = back_candidate * entering_h
    t_2 = back_candidate * reset
    t_5 = d_reset * reset * (1.0 - reset)
    d_x_r = where(valid, t_5, 0.0)
    return (d_x_r, t_2, t_5)


@triton.jit
def gru_reset_before_backward_2(read, valid, boundary, row):
    """The values of gru_reset_before_backward after the products with weight_hh."""
    t, valid_d_carried_h, t_2 = read[0], read[1], read[2]
    update = read[3]
    back_hh = read[4]
    d_h = where(valid, t, 0.0)
    t_6 = valid_d_carried_h + where(valid, d_h * update, 0.0) + where(valid, t_2, 0.0) + where(valid, back_hh, 0.0)
    d_reset_state_h = where(boundary, t_6, 0.0)
    d_before_h = where(boundary, 0.0, t_6)
    return (d_before_h, d_reset_state_h)


@triton.jit
def gru_reset_before_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of gru_reset_before_forward."""
    if stage == 0:
        return gru_reset_before_backward_0(read, valid, boundary, row)
    if stage == 1:
        return gru_reset_before_backward_1(read, valid, boundary, row)
    if stage == 2:
        return gru_reset_before_backward_2(read, valid, boundary, row)


@triton.jit
def mgu_forward_0(read, valid, boundary, row):
    """The values of mgu_forward before the first product."""
    reset_state_h = read[0]
    carried_h = read[1]
    entering_h = where(boundary, reset_state_h, carried_h)
    return (entering_h, entering_h)


@triton.jit
def mgu_forward_1(read, valid, boundary, row):
    """The values of mgu_forward after the products with weight_hh."""
    hh_f = read[0]
    bias_hh_f = read[1]
    x_f = read[2]
    entering_h = read[3]
    forget = sigmoid(x_f + (hh_f + bias_hh_f))
    t = forget * entering_h
    return (forget, forget, t)


@triton.jit
def mgu_forward_2(read, valid, boundary, row):
    """The values of mgu_forward after the products with weight_candidate."""
    candidate_h = read[0]
    bias_candidate_h = read[1]
    x_h = read[2]
    entering_h, forget = read[3], read[4]
    candidate = tanh(x_h + (candidate_h + bias_candidate_h))
    h = entering_h + forget * (candidate - entering_h)
    leaving_h = where(valid, h, entering_h)
    output = where(valid, h, 0.0)
    return (output, candidate, leaving_h)


@triton.jit
def mgu_forward(stage: tl.constexpr, read, valid, boundary, row):
    """Minimal gated unit (Zhou et al. 2016, arXiv:1603.09420): one gate that forgets and resets.

    forget = sigmoid(x.f + r.f)
    candidate = tanh(x.h + p.candidate(forget * s.h))
    return s.h + forget * (candidate - s.h)
    """
    if stage == 0:
        return mgu_forward_0(read, valid, boundary, row)
    if stage == 1:
        return mgu_forward_1(read, valid, boundary, row)
    if stage == 2:
        return mgu_forward_2(read, valid, boundary, row)


@triton.jit
def mgu_backward_0(read, valid, boundary, row):
    """The values of mgu_backward before the first product."""
    d_carried_h = read[0]
    d_output = read[1]
    reset_state_h = read[2]
    before_h = read[3]
    forget, candidate = read[4], read[5]
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    t = d_output + d_carried_h
    d_h = where(valid, t, 0.0)
    entering_h = where(boundary, reset_state_h, before_h)
    d_candidate = d_h * forget
    t_3 = d_candidate * (1.0 - candidate * candidate)
    d_x_h = where(valid, t_3, 0.0)
    valid_part = where(valid, forget * entering_h, 0.0)
    return (d_x_h, valid_part, t, valid_d_carried_h, t_3)


@triton.jit
def mgu_backward_1(read, valid, boundary, row):
    """The values of mgu_backward after the products with weight_candidate."""
    t, valid_d_carried_h = read[0], read[1]
    reset_state_h = read[2]
    before_h = read[3]
    forget, candidate = read[4], read[5]
    back_candidate = read[6]
    d_h = where(valid, t, 0.0)
    entering_h = where(boundary, reset_state_h, before_h)
    d_candidate = d_h * forget
    t_4 = valid_d_carried_h + where(valid, d_h, 0.0) + where(valid, -d_candidate, 0.0)
    d_forget = d_h * (candidate - entering_h) + back_candidate * entering_h
    t_2 = t_4 + where(valid, back_candidate * forget, 0.0)
    t_5 = d_forget * forget * (1.0 - forget)
    d_x_f = where(valid, t_5, 0.0)
    return (d_x_f, t_2, t_5)


@triton.jit
def mgu_backward_2(read, valid, boundary, row):
    """The values of mgu_backward after the products with weight_hh."""
    back_hh = read[0]
    t_2 = read[1]
    t_6 = t_2 + where(valid, back_hh, 0.0)
    d_reset_state_h = where(boundary, t_6, 0.0)
    d_before_h = where(boundary, 0.0, t_6)
    return (d_before_h, d_reset_state_h)


@triton.jit
def mgu_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of mgu_forward."""
    if stage == 0:
        return mgu_backward_0(read, valid, boundary, row)
    if stage == 1:
        return mgu_backward_1(read, valid, boundary, row)
    if stage == 2:
        return mgu_backward_2(read, valid, boundary, row)


@triton.jit
def multiplicative_lstm_forward_0(read, valid, boundary, row):
    """The values of multiplicative_lstm_forward before the first product."""
    reset_state_h = read[0]
    carried_h, carried_c = read[1], read[2]
    reset_state_c = read[3]
    x_m = read[4]
    entering_h = where(boundary, reset_state_h, carried_h)
    entering_c = where(boundary, reset_state_c, carried_c)
    return (x_m, entering_c, entering_h, entering_h)


@triton.jit
def multiplicative_lstm_forward_1(read, valid, boundary, row):
    """The values of multiplicative_lstm_forward after the products with weight_hh."""
    hh_m = read[0]
    bias_hh_m = read[1]
    x_m = read[2]
    hh_m_2 = hh_m + bias_hh_m
    t = x_m * hh_m_2
    return (hh_m_2, t)


@triton.jit
def multiplicative_lstm_forward_2(read, valid, boundary, row):
    """The values of multiplicative_lstm_forward after the products with weight_intermediate."""
    intermediate_i, intermediate_f, intermediate_g, intermediate_o = read[0], read[1], read[2], read[3]
    bias_intermediate_i, bias_intermediate_f, bias_intermediate_g = read[4], read[5], read[6]
    bias_intermediate_o = read[7]
    x_i, x_f, x_g, x_o = read[8], read[9], read[10], read[11]
    entering_c, entering_h = read[12], read[13]
    input = sigmoid(x_i + (intermediate_i + bias_intermediate_i))
    forget = sigmoid(x_f + (intermediate_f + bias_intermediate_f))
    candidate = tanh(x_g + (intermediate_g + bias_intermediate_g))
    output = sigmoid(x_o + (intermediate_o + bias_intermediate_o))
    cell = forget * entering_c + input * candidate
    h = output * tanh(cell)
    leaving_h = where(valid, h, entering_h)
    leaving_c = where(valid, cell, entering_c)
    output_2 = where(valid, h, 0.0)
    return (output_2, input, forget, candidate, output, leaving_c, leaving_h, leaving_c)


@triton.jit
def multiplicative_lstm_forward(stage: tl.constexpr, read, valid, boundary, row):
    """Multiplicative LSTM (Krause et al. 2016, arXiv:1609.07959): the gates see m, made of x and h, in place of h.

    m = p.intermediate(x.m * r.m)
    input = sigmoid(x.i + m.i)
    forget = sigmoid(x.f + m.f)
    candidate = tanh(x.g + m.g)
    output = sigmoid(x.o + m.o)
    cell = forget * s.c + input * candidate
    return output * tanh(cell), cell
    """
    if stage == 0:
        return multiplicative_lstm_forward_0(read, valid, boundary, row)
    if stage == 1:
        return multiplicative_lstm_forward_1(read, valid, boundary, row)
    if stage == 2:
        return multiplicative_lstm_forward_2(read, valid, boundary, row)


@triton.jit
def multiplicative_lstm_backward_0(read, valid, boundary, row):
    """The values of multiplicative_lstm_backward before the first product."""
    d_carried_h, d_carried_c = read[0], read[1]
    d_output = read[2]
    reset_state_c = read[3]
    before_c = read[4]
    x_m, hh_m, input, forget, candidate, output = read[5], read[6], read[7], read[8], read[9], read[10]
    after_c = read[11]
    valid_d_carried_c = where(valid, 0.0, d_carried_c)
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    d_h = where(valid, d_output + d_carried_h, 0.0)
    tanh_after_c = tanh(after_c)
    d_output_2 = d_h * tanh_after_c
    d_cell = where(valid, d_carried_c, 0.0) + d_h * output * (1.0 - tanh_after_c * tanh_after_c)
    d_input = d_cell * candidate
    d_candidate = d_cell * input
    d_forget = d_cell * where(boundary, reset_state_c, before_c)
    t = d_cell * forget
    t_2 = valid_d_carried_c + where(valid, t, 0.0)
    t_3 = d_output_2 * output * (1.0 - output)
    d_x_o = where(valid, t_3, 0.0)
    t_4 = d_candidate * (1.0 - candidate * candidate)
    d_x_g = where(valid, t_4, 0.0)
    t_5 = d_forget * forget * (1.0 - forget)
    d_x_f = where(valid, t_5, 0.0)
    t_6 = d_input * input * (1.0 - input)
    d_x_i = where(valid, t_6, 0.0)
    valid_part = where(valid, x_m * hh_m, 0.0)
    d_reset_state_c = where(boundary, t_2, 0.0)
    return (
        d_reset_state_c,
        d_x_i,
        d_x_f,
        d_x_g,
        d_x_o,
        valid_part,
        t,
        valid_d_carried_c,
        valid_d_carried_h,
        t_6,
        t_5,
        t_4,
        t_3,
    )


@triton.jit
def multiplicative_lstm_backward_1(read, valid, boundary, row):
    """The values of multiplicative_lstm_backward after the products with weight_intermediate."""
    back_intermediate = read[0]
    x_m, hh_m = read[1], read[2]
    t_7 = back_intermediate * x_m
    d_x_m = where(valid, back_intermediate * hh_m, 0.0)
    d_bias_hh_m = where(valid, t_7, 0.0)
    return (d_x_m, d_bias_hh_m, t_7)


@triton.jit
def multiplicative_lstm_backward_2(read, valid, boundary, row):
    """The values of multiplicative_lstm_backward after the products with weight_hh."""
    t, valid_d_carried_c, valid_d_carried_h = read[0], read[1], read[2]
    back_hh = read[3]
    t_2 = valid_d_carried_c + where(valid, t, 0.0)
    t_8 = valid_d_carried_h + where(valid, back_hh, 0.0)
    d_before_c = where(boundary, 0.0, t_2)
    d_reset_state_h = where(boundary, t_8, 0.0)
    d_before_h = where(boundary, 0.0, t_8)
    return (d_before_h, d_before_c, d_reset_state_h)


@triton.jit
def multiplicative_lstm_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of multiplicative_lstm_forward."""
    if stage == 0:
        return multiplicative_lstm_backward_0(read, valid, boundary, row)
    if stage == 1:
        return multiplicative_lstm_backward_1(read, valid, boundary, row)
    if stage == 2:
        return multiplicative_lstm_backward_2(read, valid, boundary, row)


@triton.jit
def recurrent_highway_forward_0(read, valid, boundary, row):
    """The values of recurrent_highway_forward before the first product."""
    reset_state_h = read[0]
    carried_h = read[1]
    entering_h = where(boundary, reset_state_h, carried_h)
    return (entering_h, entering_h)


@triton.jit
def recurrent_highway_forward_1(read, valid, boundary, row):
    """The values of recurrent_highway_forward after the products with weight_hh."""
    hh_h, hh_t = read[0], read[1]
    bias_hh_h, bias_hh_t = read[2], read[3]
    x_h, x_t = read[4], read[5]
    entering_h = read[6]
    sigmoid0 = sigmoid(x_t + (hh_t + bias_hh_t))
    tanh1 = tanh(x_h + (hh_h + bias_hh_h))
    t = entering_h + sigmoid0 * (tanh1 - entering_h)
    return (sigmoid0, tanh1, t, t)


@triton.jit
def recurrent_highway_forward_2(read, valid, boundary, row):
    """The values of recurrent_highway_forward after the products with weight_deeper1."""
    deeper1_h, deeper1_t = read[0], read[1]
    bias_deeper1_h, bias_deeper1_t = read[2], read[3]
    t = read[4]
    sigmoid2 = sigmoid(deeper1_t + bias_deeper1_t)
    tanh3 = tanh(deeper1_h + bias_deeper1_h)
    t_2 = t + sigmoid2 * (tanh3 - t)
    return (sigmoid2, tanh3, t_2, t_2)


@triton.jit
def recurrent_highway_forward_3(read, valid, boundary, row):
    """The values of recurrent_highway_forward after the products with weight_deeper2."""
    deeper2_h, deeper2_t = read[0], read[1]
    bias_deeper2_h, bias_deeper2_t = read[2], read[3]
    entering_h, t_2 = read[4], read[5]
    sigmoid4 = sigmoid(deeper2_t + bias_deeper2_t)
    tanh5 = tanh(deeper2_h + bias_deeper2_h)
    hidden = t_2 + sigmoid4 * (tanh5 - t_2)
    leaving_h = where(valid, hidden, entering_h)
    output = where(valid, hidden, 0.0)
    return (output, sigmoid4, tanh5, leaving_h)


@triton.jit
def recurrent_highway_forward(stage: tl.constexpr, read, valid, boundary, row):
    """Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474): ``depth`` layers in each step, carry 1 - t.

    hidden = s.h + sigmoid(x.t + r.t) * (tanh(x.h + r.h) - s.h)
    for product in p.deeper:
        layer = product(hidden)
        hidden = hidden + sigmoid(layer.t) * (tanh(layer.h) - hidden)
    return hidden
    """
    if stage == 0:
        return recurrent_highway_forward_0(read, valid, boundary, row)
    if stage == 1:
        return recurrent_highway_forward_1(read, valid, boundary, row)
    if stage == 2:
        return recurrent_highway_forward_2(read, valid, boundary, row)
    if stage == 3:
        return recurrent_highway_forward_3(read, valid, boundary, row)


@triton.jit
def recurrent_highway_backward_0(read, valid, boundary, row):
    """The values of recurrent_highway_backward before the first product."""
    d_carried_h = read[0]
    d_output = read[1]
    reset_state_h = read[2]
    before_h = read[3]
    sigmoid0, tanh1, sigmoid2, tanh3, sigmoid4, tanh5 = read[4], read[5], read[6], read[7], read[8], read[9]
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    t = d_output + d_carried_h
    d_hidden = where(valid, t, 0.0)
    entering_h = where(boundary, reset_state_h, before_h)
    t_6 = tanh1 - entering_h
    t_7 = entering_h + sigmoid0 * t_6
    t_2 = tanh3 - t_7
    t_8 = t_7 + sigmoid2 * t_2
    one_minus_sigmoid4 = 1.0 - sigmoid4
    t_9 = d_hidden * sigmoid4 * (1.0 - tanh5 * tanh5)
    t_10 = d_hidden * (tanh5 - t_8) * sigmoid4 * one_minus_sigmoid4
    d_bias_deeper2_t = where(valid, t_10, 0.0)
    d_bias_deeper2_h = where(valid, t_9, 0.0)
    valid_part = where(valid, t_8, 0.0)
    valid_part_2 = where(valid, t_7, 0.0)
    return (valid_part, valid_part_2, d_bias_deeper2_h, d_bias_deeper2_t, t, t_2, valid_d_carried_h, t_9, t_10)


@triton.jit
def recurrent_highway_backward_1(read, valid, boundary, row):
    """The values of recurrent_highway_backward after the products with weight_deeper2."""
    t, t_2 = read[0], read[1]
    sigmoid2, tanh3, sigmoid4 = read[2], read[3], read[4]
    back_deeper2 = read[5]
    d_hidden = where(valid, t, 0.0)
    one_minus_sigmoid4 = 1.0 - sigmoid4
    t_11 = d_hidden * one_minus_sigmoid4 + back_deeper2
    one_minus_sigmoid2 = 1.0 - sigmoid2
    t_3 = t_11 * one_minus_sigmoid2
    t_12 = t_11 * sigmoid2 * (1.0 - tanh3 * tanh3)
    t_13 = t_11 * t_2 * sigmoid2 * one_minus_sigmoid2
    d_bias_deeper1_t = where(valid, t_13, 0.0)
    d_bias_deeper1_h = where(valid, t_12, 0.0)
    return (d_bias_deeper1_h, d_bias_deeper1_t, t_3, t_12, t_13)


@triton.jit
def recurrent_highway_backward_2(read, valid, boundary, row):
    """The values of recurrent_highway_backward after the products with weight_deeper1."""
    reset_state_h = read[0]
    before_h = read[1]
    sigmoid0, tanh1 = read[2], read[3]
    t_3 = read[4]
    back_deeper1 = read[5]
    entering_h = where(boundary, reset_state_h, before_h)
    t_6 = tanh1 - entering_h
    t_4 = t_3 + back_deeper1
    t_14 = t_4 * sigmoid0
    t_5 = -t_14
    t_15 = t_14 * (1.0 - tanh1 * tanh1)
    d_x_h = where(valid, t_15, 0.0)
    t_16 = t_4 * t_6 * sigmoid0 * (1.0 - sigmoid0)
    d_x_t = where(valid, t_16, 0.0)
    return (d_x_h, d_x_t, t_4, t_5, t_15, t_16)


@triton.jit
def recurrent_highway_backward_3(read, valid, boundary, row):
    """The values of recurrent_highway_backward after the products with weight_hh."""
    t_4, valid_d_carried_h, t_5 = read[0], read[1], read[2]
    back_hh = read[3]
    t_17 = valid_d_carried_h + where(valid, t_4, 0.0) + where(valid, t_5, 0.0) + where(valid, back_hh, 0.0)
    d_reset_state_h = where(boundary, t_17, 0.0)
    d_before_h = where(boundary, 0.0, t_17)
    return (d_before_h, d_reset_state_h)


@triton.jit
def recurrent_highway_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of recurrent_highway_forward."""
    if stage == 0:
        return recurrent_highway_backward_0(read, valid, boundary, row)
    if stage == 1:
        return recurrent_highway_backward_1(read, valid, boundary, row)
    if stage == 2:
        return recurrent_highway_backward_2(read, valid, boundary, row)
    if stage == 3:
        return recurrent_highway_backward_3(read, valid, boundary, row)


@triton.jit
def layer_norm_lstm_forward_0(read, valid, boundary, row):
    """The values of layer_norm_lstm_forward before the first product."""
    reset_state_h = read[0]
    carried_h, carried_c = read[1], read[2]
    reset_state_c = read[3]
    x_i, x_f, x_g, x_o = read[4], read[5], read[6], read[7]
    entering_h = where(boundary, reset_state_h, carried_h)
    entering_c = where(boundary, reset_state_c, carried_c)
    numbers = reduced(
        0,
        ("mean", "mean", "mean", "mean", "variance", "variance", "variance", "variance"),
        (x_i, x_f, x_g, x_o, x_i, x_f, x_g, x_o),
        row,
    )
    mean8, mean9, mean10, mean11, variance_x_i = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    variance_x_f, variance_x_g, variance_x_o = numbers[5], numbers[6], numbers[7]
    v12 = (mean8 + mean9 + mean10 + mean11) / 4.0
    v13 = mean8 - v12
    v14 = mean9 - v12
    v15 = mean10 - v12
    v16 = mean11 - v12
    t = variance_x_i + v13 * v13 + (variance_x_f + v14 * v14) + (variance_x_g + v15 * v15) + (variance_x_o + v16 * v16)
    t_2 = t / 4.0
    t_3 = t_2 + 1e-05
    rsqrt17 = rsqrt(t_3)
    return (
        x_i,
        x_f,
        x_g,
        x_o,
        mean8,
        mean9,
        mean10,
        mean11,
        v12,
        v13,
        v14,
        v15,
        v16,
        rsqrt17,
        entering_c,
        entering_h,
        mean8,
        mean9,
        mean10,
        mean11,
        variance_x_i,
        variance_x_f,
        variance_x_g,
        variance_x_o,
        entering_h,
    )


@triton.jit
def layer_norm_lstm_forward_1(read, valid, boundary, row):
    """The values of layer_norm_lstm_forward after the products with weight_hh."""
    hh_i, hh_f, hh_g, hh_o = read[0], read[1], read[2], read[3]
    bias_hh_i, bias_hh_f, bias_hh_g, bias_hh_o = read[4], read[5], read[6], read[7]
    mean8, mean9, mean10, mean11, variance_x_i = read[8], read[9], read[10], read[11], read[12]
    variance_x_f, variance_x_g, variance_x_o = read[13], read[14], read[15]
    x_i, x_f, x_g, x_o = read[16], read[17], read[18], read[19]
    p_xi, p_xf, p_xg, p_xo = read[20], read[21], read[22], read[23]
    p_hi, p_hf, p_hg, p_ho = read[24], read[25], read[26], read[27]
    p_bi, p_bf, p_bg, p_bo = read[28], read[29], read[30], read[31]
    entering_c, entering_h = read[32], read[33]
    p_gain, p_bias = read[34], read[35]
    hh_i_2 = hh_i + bias_hh_i
    hh_f_2 = hh_f + bias_hh_f
    hh_g_2 = hh_g + bias_hh_g
    hh_o_2 = hh_o + bias_hh_o
    v12 = (mean8 + mean9 + mean10 + mean11) / 4.0
    v13 = mean8 - v12
    v14 = mean9 - v12
    v15 = mean10 - v12
    v16 = mean11 - v12
    t = variance_x_i + v13 * v13 + (variance_x_f + v14 * v14) + (variance_x_g + v15 * v15) + (variance_x_o + v16 * v16)
    t_2 = t / 4.0
    t_3 = t_2 + 1e-05
    rsqrt17 = rsqrt(t_3)
    xi = (x_i - v12) * rsqrt17
    xf = (x_f - v12) * rsqrt17
    xg = (x_g - v12) * rsqrt17
    xo = (x_o - v12) * rsqrt17
    numbers = reduced(
        0,
        ("mean", "mean", "mean", "mean", "variance", "variance", "variance", "variance"),
        (hh_i_2, hh_f_2, hh_g_2, hh_o_2, hh_i_2, hh_f_2, hh_g_2, hh_o_2),
        row,
    )
    mean18, mean19, mean20, mean21, variance_hh_i = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    variance_hh_f, variance_hh_g, variance_hh_o = numbers[5], numbers[6], numbers[7]
    v22 = (mean18 + mean19 + mean20 + mean21) / 4.0
    v23 = mean18 - v22
    v24 = mean19 - v22
    v25 = mean20 - v22
    v26 = mean21 - v22
    t_4 = variance_hh_i + v23 * v23 + (variance_hh_f + v24 * v24) + (variance_hh_g + v25 * v25)
    t_5 = t_4 + (variance_hh_o + v26 * v26)
    t_6 = t_5 / 4.0
    t_7 = t_6 + 1e-05
    rsqrt27 = rsqrt(t_7)
    hi = (hh_i_2 - v22) * rsqrt27
    hf = (hh_f_2 - v22) * rsqrt27
    hg = (hh_g_2 - v22) * rsqrt27
    ho = (hh_o_2 - v22) * rsqrt27
    input = sigmoid(p_xi * xi + p_hi * hi + p_bi)
    forget = sigmoid(p_xf * xf + p_hf * hf + p_bf)
    candidate = tanh(p_xg * xg + p_hg * hg + p_bg)
    output = sigmoid(p_xo * xo + p_ho * ho + p_bo)
    cell = forget * entering_c + input * candidate
    leaving_c = where(valid, cell, entering_c)
    numbers = reduced(1, ("mean", "variance"), (cell, cell), row)
    mean28, variance_cell = numbers[0], numbers[1]
    rsqrt29 = rsqrt(variance_cell + 1e-05)
    h = output * tanh((cell - mean28) * rsqrt29 * p_gain + p_bias)
    leaving_h = where(valid, h, entering_h)
    output_2 = where(valid, h, 0.0)
    return (
        output_2,
        hh_i_2,
        hh_f_2,
        hh_g_2,
        hh_o_2,
        mean18,
        mean19,
        mean20,
        mean21,
        v22,
        v23,
        v24,
        v25,
        v26,
        rsqrt27,
        mean28,
        rsqrt29,
        leaving_c,
        leaving_h,
        leaving_c,
    )


@triton.jit
def layer_norm_lstm_forward(stage: tl.constexpr, read, valid, boundary, row):
    """LSTM with layer norm (Ba et al. 2016, arXiv:1607.06450) of both pre-activations, all gates together, and of c.

    xi, xf, xg, xo = units.normalised(*x)
    hi, hf, hg, ho = units.normalised(*r)
    input = sigmoid(p.xi * xi + p.hi * hi + p.bi)
    forget = sigmoid(p.xf * xf + p.hf * hf + p.bf)
    candidate = tanh(p.xg * xg + p.hg * hg + p.bg)
    output = sigmoid(p.xo * xo + p.ho * ho + p.bo)
    cell = forget * s.c + input * candidate
    return output * tanh(units.layer_norm(cell, p.gain, p.bias)), cell
    """
    if stage == 0:
        return layer_norm_lstm_forward_0(read, valid, boundary, row)
    if stage == 1:
        return layer_norm_lstm_forward_1(read, valid, boundary, row)


@triton.jit
def layer_norm_lstm_backward_0(read, valid, boundary, row):
    """The values of layer_norm_lstm_backward before the first product."""
    d_carried_h, d_carried_c = read[0], read[1]
    d_output = read[2]
    units = read[3]
    reset_state_c = read[4]
    before_c = read[5]
    x_i, x_f, x_g, x_o, hh_i, hh_f, hh_g = read[6], read[7], read[8], read[9], read[10], read[11], read[12]
    hh_o = read[13]
    mean8, mean9, mean10, mean11, v12, v13, v14 = read[14], read[15], read[16], read[17], read[18], read[19], read[20]
    v15, v16, rsqrt17, mean18, mean19, mean20 = read[21], read[22], read[23], read[24], read[25], read[26]
    mean21, v22, v23, v24, v25, v26, rsqrt27 = read[27], read[28], read[29], read[30], read[31], read[32], read[33]
    mean28, rsqrt29 = read[34], read[35]
    p_xi, p_xf, p_xg, p_xo = read[36], read[37], read[38], read[39]
    p_hi, p_hf, p_hg, p_ho = read[40], read[41], read[42], read[43]
    p_bi, p_bf, p_bg, p_bo = read[44], read[45], read[46], read[47]
    after_c = read[48]
    p_gain, p_bias = read[49], read[50]
    valid_d_carried_c = where(valid, 0.0, d_carried_c)
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    d_h = where(valid, d_output + d_carried_h, 0.0)
    t_2 = 2.0 / units
    t_3 = x_i - v12
    xi = t_3 * rsqrt17
    t_4 = x_f - v12
    xf = t_4 * rsqrt17
    t_5 = x_g - v12
    xg = t_5 * rsqrt17
    t_6 = x_o - v12
    xo = t_6 * rsqrt17
    t_7 = hh_i - v22
    hi = t_7 * rsqrt27
    t_8 = hh_f - v22
    hf = t_8 * rsqrt27
    t_9 = hh_g - v22
    hg = t_9 * rsqrt27
    t_10 = hh_o - v22
    ho = t_10 * rsqrt27
    input = sigmoid(p_xi * xi + p_hi * hi + p_bi)
    forget = sigmoid(p_xf * xf + p_hf * hf + p_bf)
    candidate = tanh(p_xg * xg + p_hg * hg + p_bg)
    output = sigmoid(p_xo * xo + p_ho * ho + p_bo)
    t_11 = after_c - mean28
    t_12 = t_11 * rsqrt29
    tanh_t = tanh(t_12 * p_gain + p_bias)
    d_output_2 = d_h * tanh_t
    t_13 = d_h * output * (1.0 - tanh_t * tanh_t)
    d_p_bias = where(valid, t_13, 0.0)
    t_14 = t_13 * p_gain
    d_p_gain = where(valid, t_13 * t_12, 0.0)
    t_15 = t_14 * rsqrt29
    t_16 = t_14 * t_11
    t_17 = -t_15
    t_20 = d_output_2 * output * (1.0 - output)
    d_p_bo = where(valid, t_20, 0.0)
    d_ho = t_20 * p_ho
    d_p_ho = where(valid, t_20 * ho, 0.0)
    d_xo = t_20 * p_xo
    d_p_xo = where(valid, t_20 * xo, 0.0)
    t_24 = d_ho * rsqrt27
    t_40 = d_xo * rsqrt17
    numbers = reduced(0, ("sum", "sum"), (t_16, t_17), row)
    sum_t, sum_t_2 = numbers[0], numbers[1]
    t_18 = where(valid, d_carried_c, 0.0) + -0.5 * sum_t * rsqrt29 * rsqrt29 * rsqrt29 * t_11 * t_2 + t_15
    d_cell = t_18 + sum_t_2 / units
    d_input = d_cell * candidate
    d_candidate = d_cell * input
    d_forget = d_cell * where(boundary, reset_state_c, before_c)
    t = d_cell * forget
    t_19 = valid_d_carried_c + where(valid, t, 0.0)
    t_21 = d_candidate * (1.0 - candidate * candidate)
    d_p_bg = where(valid, t_21, 0.0)
    d_hg = t_21 * p_hg
    d_p_hg = where(valid, t_21 * hg, 0.0)
    d_xg = t_21 * p_xg
    d_p_xg = where(valid, t_21 * xg, 0.0)
    t_22 = d_forget * forget * (1.0 - forget)
    d_p_bf = where(valid, t_22, 0.0)
    d_hf = t_22 * p_hf
    d_p_hf = where(valid, t_22 * hf, 0.0)
    d_xf = t_22 * p_xf
    d_p_xf = where(valid, t_22 * xf, 0.0)
    t_23 = d_input * input * (1.0 - input)
    d_p_bi = where(valid, t_23, 0.0)
    d_hi = t_23 * p_hi
    d_p_hi = where(valid, t_23 * hi, 0.0)
    d_xi = t_23 * p_xi
    d_p_xi = where(valid, t_23 * xi, 0.0)
    t_25 = d_hg * rsqrt27
    t_26 = d_hf * rsqrt27
    t_27 = d_hi * rsqrt27
    t_28 = d_ho * t_10 + d_hg * t_9 + d_hf * t_8 + d_hi * t_7
    t_29 = -t_25 - t_24 - t_26 - t_27
    t_41 = d_xg * rsqrt17
    t_42 = d_xf * rsqrt17
    t_43 = d_xi * rsqrt17
    t_44 = d_xo * t_6 + d_xg * t_5 + d_xf * t_4 + d_xi * t_3
    t_45 = -t_41 - t_40 - t_42 - t_43
    d_reset_state_c = where(boundary, t_19, 0.0)
    numbers = reduced(1, ("sum", "sum", "sum", "sum"), (t_28, t_29, t_44, t_45), row)
    sum_t_3, sum_t_4, sum_t_5, sum_t_6 = numbers[0], numbers[1], numbers[2], numbers[3]
    t_30 = -0.5 * sum_t_3 * rsqrt27 * rsqrt27 * rsqrt27 / 4.0
    t_31 = t_30 * (v26 + v26)
    t_32 = t_30 * (v25 + v25)
    t_33 = t_30 * (v24 + v24)
    t_34 = t_30 * (v23 + v23)
    t_35 = (sum_t_4 - t_31 - t_32 - t_33 - t_34) / 4.0
    t_36 = t_24 + t_30 * (hh_o - mean21) * t_2 + (t_31 + t_35) / units
    t_37 = t_25 + t_30 * (hh_g - mean20) * t_2 + (t_32 + t_35) / units
    t_38 = t_26 + t_30 * (hh_f - mean19) * t_2 + (t_33 + t_35) / units
    t_39 = t_27 + t_30 * (hh_i - mean18) * t_2 + (t_34 + t_35) / units
    t_46 = -0.5 * sum_t_5 * rsqrt17 * rsqrt17 * rsqrt17 / 4.0
    t_47 = t_46 * (v16 + v16)
    t_48 = t_46 * (v15 + v15)
    t_49 = t_46 * (v14 + v14)
    t_50 = t_46 * (v13 + v13)
    t_51 = (sum_t_6 - t_47 - t_48 - t_49 - t_50) / 4.0
    d_x_o = where(valid, t_40 + t_46 * (x_o - mean11) * t_2 + (t_47 + t_51) / units, 0.0)
    d_x_g = where(valid, t_41 + t_46 * (x_g - mean10) * t_2 + (t_48 + t_51) / units, 0.0)
    d_x_f = where(valid, t_42 + t_46 * (x_f - mean9) * t_2 + (t_49 + t_51) / units, 0.0)
    d_x_i = where(valid, t_43 + t_46 * (x_i - mean8) * t_2 + (t_50 + t_51) / units, 0.0)
    d_bias_hh_o = where(valid, t_36, 0.0)
    d_bias_hh_g = where(valid, t_37, 0.0)
    d_bias_hh_f = where(valid, t_38, 0.0)
    d_bias_hh_i = where(valid, t_39, 0.0)
    return (
        d_reset_state_c,
        d_x_i,
        d_x_f,
        d_x_g,
        d_x_o,
        d_bias_hh_i,
        d_bias_hh_f,
        d_bias_hh_g,
        d_bias_hh_o,
        d_p_xi,
        d_p_xf,
        d_p_xg,
        d_p_xo,
        d_p_hi,
        d_p_hf,
        d_p_hg,
        d_p_ho,
        d_p_bi,
        d_p_bf,
        d_p_bg,
        d_p_bo,
        d_p_gain,
        d_p_bias,
        t,
        valid_d_carried_c,
        valid_d_carried_h,
        t_39,
        t_38,
        t_37,
        t_36,
    )


@triton.jit
def layer_norm_lstm_backward_1(read, valid, boundary, row):
    """The values of layer_norm_lstm_backward after the products with weight_hh."""
    t, valid_d_carried_c, valid_d_carried_h = read[0], read[1], read[2]
    back_hh = read[3]
    t_19 = valid_d_carried_c + where(valid, t, 0.0)
    t_52 = valid_d_carried_h + where(valid, back_hh, 0.0)
    d_before_c = where(boundary, 0.0, t_19)
    d_reset_state_h = where(boundary, t_52, 0.0)
    d_before_h = where(boundary, 0.0, t_52)
    return (d_before_h, d_before_c, d_reset_state_h)


@triton.jit
def layer_norm_lstm_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of layer_norm_lstm_forward."""
    if stage == 0:
        return layer_norm_lstm_backward_0(read, valid, boundary, row)
    if stage == 1:
        return layer_norm_lstm_backward_1(read, valid, boundary, row)


@triton.jit
def layer_norm_gru_forward_0(read, valid, boundary, row):
    """The values of layer_norm_gru_forward before the first product."""
    reset_state_h = read[0]
    carried_h = read[1]
    x_r, x_z, x_n = read[2], read[3], read[4]
    p_xn = read[5]
    p_bn = read[6]
    entering_h = where(boundary, reset_state_h, carried_h)
    numbers = reduced(
        0,
        ("mean", "mean", "variance", "variance", "mean", "variance"),
        (x_r, x_z, x_r, x_z, x_n, x_n),
        row,
    )
    mean4, mean5, variance_x_r, variance_x_z, mean_x_n = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    variance_x_n = numbers[5]
    v6 = (mean4 + mean5) / 2.0
    v7 = mean4 - v6
    v8 = mean5 - v6
    rsqrt9 = rsqrt((variance_x_r + v7 * v7 + (variance_x_z + v8 * v8)) / 2.0 + 1e-05)
    v16 = x_n - mean_x_n
    rsqrt17 = rsqrt(variance_x_n + 1e-05)
    t = v16 * rsqrt17 * p_xn + p_bn
    return (
        x_r,
        x_z,
        v16,
        mean4,
        mean5,
        v6,
        v7,
        v8,
        rsqrt9,
        rsqrt17,
        t,
        entering_h,
        mean4,
        mean5,
        variance_x_r,
        variance_x_z,
        entering_h,
    )


@triton.jit
def layer_norm_gru_forward_1(read, valid, boundary, row):
    """The values of layer_norm_gru_forward after the products with weight_hh."""
    hh_r, hh_z, hh_n = read[0], read[1], read[2]
    bias_hh_r, bias_hh_z, bias_hh_n = read[3], read[4], read[5]
    mean4, mean5, variance_x_r, variance_x_z = read[6], read[7], read[8], read[9]
    x_r, x_z = read[10], read[11]
    p_xr, p_xz = read[12], read[13]
    p_hr, p_hz, p_hn = read[14], read[15], read[16]
    p_br, p_bz, p_cn = read[17], read[18], read[19]
    t, entering_h = read[20], read[21]
    hh_r_2 = hh_r + bias_hh_r
    hh_z_2 = hh_z + bias_hh_z
    t_2 = hh_n + bias_hh_n
    v6 = (mean4 + mean5) / 2.0
    v7 = mean4 - v6
    v8 = mean5 - v6
    rsqrt9 = rsqrt((variance_x_r + v7 * v7 + (variance_x_z + v8 * v8)) / 2.0 + 1e-05)
    xr = (x_r - v6) * rsqrt9
    xz = (x_z - v6) * rsqrt9
    numbers = reduced(
        0,
        ("mean", "mean", "variance", "variance", "mean", "variance"),
        (hh_r_2, hh_z_2, hh_r_2, hh_z_2, t_2, t_2),
        row,
    )
    mean10, mean11, variance_hh_r, variance_hh_z, mean_t = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    variance_t = numbers[5]
    v12 = (mean10 + mean11) / 2.0
    v13 = mean10 - v12
    v14 = mean11 - v12
    rsqrt15 = rsqrt((variance_hh_r + v13 * v13 + (variance_hh_z + v14 * v14)) / 2.0 + 1e-05)
    hr = (hh_r_2 - v12) * rsqrt15
    hz = (hh_z_2 - v12) * rsqrt15
    reset = sigmoid(p_xr * xr + p_hr * hr + p_br)
    update = sigmoid(p_xz * xz + p_hz * hz + p_bz)
    v18 = t_2 - mean_t
    rsqrt19 = rsqrt(variance_t + 1e-05)
    new = tanh(t + reset * (v18 * rsqrt19 * p_hn + p_cn))
    h = new + update * (entering_h - new)
    leaving_h = where(valid, h, entering_h)
    output = where(valid, h, 0.0)
    return (output, hh_r_2, hh_z_2, v18, mean10, mean11, v12, v13, v14, rsqrt15, rsqrt19, leaving_h)


@triton.jit
def layer_norm_gru_forward(stage: tl.constexpr, read, valid, boundary, row):
    """GRU with layer norm (Ba et al. 2016, arXiv:1607.06450): of r's and z's pre-activations together, and of n's.

    xr, xz = units.normalised(x.r, x.z)
    hr, hz = units.normalised(r.r, r.z)
    reset = sigmoid(p.xr * xr + p.hr * hr + p.br)
    update = sigmoid(p.xz * xz + p.hz * hz + p.bz)
    new = tanh(units.layer_norm(x.n, p.xn, p.bn) + reset * units.layer_norm(r.n, p.hn, p.cn))
    return new + update * (s.h - new)
    """
    if stage == 0:
        return layer_norm_gru_forward_0(read, valid, boundary, row)
    if stage == 1:
        return layer_norm_gru_forward_1(read, valid, boundary, row)


@triton.jit
def layer_norm_gru_backward_0(read, valid, boundary, row):
    """The values of layer_norm_gru_backward before the first product."""
    d_carried_h = read[0]
    d_output = read[1]
    units = read[2]
    reset_state_h = read[3]
    before_h = read[4]
    x_r, x_z, hh_r, hh_z, v16, v18 = read[5], read[6], read[7], read[8], read[9], read[10]
    mean4, mean5, v6, v7, v8, rsqrt9, mean10 = read[11], read[12], read[13], read[14], read[15], read[16], read[17]
    mean11, v12, v13, v14, rsqrt15, rsqrt17 = read[18], read[19], read[20], read[21], read[22], read[23]
    rsqrt19 = read[24]
    p_xr, p_xz, p_xn = read[25], read[26], read[27]
    p_hr, p_hz, p_hn = read[28], read[29], read[30]
    p_br, p_bz, p_bn, p_cn = read[31], read[32], read[33], read[34]
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    d_h = where(valid, d_output + d_carried_h, 0.0)
    t_2 = 2.0 / units
    t_3 = x_r - v6
    xr = t_3 * rsqrt9
    t_4 = x_z - v6
    xz = t_4 * rsqrt9
    t_5 = hh_r - v12
    hr = t_5 * rsqrt15
    t_6 = hh_z - v12
    hz = t_6 * rsqrt15
    reset = sigmoid(p_xr * xr + p_hr * hr + p_br)
    update = sigmoid(p_xz * xz + p_hz * hz + p_bz)
    t_7 = v16 * rsqrt17
    t_8 = v18 * rsqrt19
    t_9 = t_8 * p_hn + p_cn
    new = tanh(t_7 * p_xn + p_bn + reset * t_9)
    d_update = d_h * (where(boundary, reset_state_h, before_h) - new)
    t = d_h * update
    one_minus_update = 1.0 - update
    d_new = d_h * one_minus_update
    t_10 = d_new * (1.0 - new * new)
    d_reset = t_10 * t_9
    t_11 = t_10 * reset
    d_p_cn = where(valid, t_11, 0.0)
    t_12 = t_11 * p_hn
    d_p_hn = where(valid, t_11 * t_8, 0.0)
    t_13 = t_12 * rsqrt19
    t_14 = t_12 * v18
    t_15 = -t_13
    d_p_bn = where(valid, t_10, 0.0)
    t_17 = t_10 * p_xn
    d_p_xn = where(valid, t_10 * t_7, 0.0)
    t_18 = t_17 * rsqrt17
    t_19 = t_17 * v16
    t_20 = -t_18
    t_21 = d_update * update * one_minus_update
    d_p_bz = where(valid, t_21, 0.0)
    d_hz = t_21 * p_hz
    d_p_hz = where(valid, t_21 * hz, 0.0)
    d_xz = t_21 * p_xz
    d_p_xz = where(valid, t_21 * xz, 0.0)
    t_22 = d_reset * reset * (1.0 - reset)
    d_p_br = where(valid, t_22, 0.0)
    d_hr = t_22 * p_hr
    d_p_hr = where(valid, t_22 * hr, 0.0)
    d_xr = t_22 * p_xr
    d_p_xr = where(valid, t_22 * xr, 0.0)
    t_23 = d_hz * rsqrt15
    t_24 = d_hr * rsqrt15
    t_25 = d_hz * t_6 + d_hr * t_5
    t_26 = -t_24 - t_23
    t_33 = d_xz * rsqrt9
    t_34 = d_xr * rsqrt9
    t_35 = d_xz * t_4 + d_xr * t_3
    t_36 = -t_34 - t_33
    numbers = reduced(
        0,
        ("sum", "sum", "sum", "sum", "sum", "sum", "sum", "sum"),
        (t_14, t_15, t_19, t_20, t_25, t_26, t_35, t_36),
        row,
    )
    sum_t, sum_t_2, sum_t_3, sum_t_4, sum_t_5 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    sum_t_6, sum_t_7, sum_t_8 = numbers[5], numbers[6], numbers[7]
    t_16 = -0.5 * sum_t * rsqrt19 * rsqrt19 * rsqrt19 * v18 * t_2 + t_13 + sum_t_2 / units
    d_x_n = where(valid, -0.5 * sum_t_3 * rsqrt17 * rsqrt17 * rsqrt17 * v16 * t_2 + t_18 + sum_t_4 / units, 0.0)
    t_27 = -0.5 * sum_t_5 * rsqrt15 * rsqrt15 * rsqrt15 / 2.0
    t_28 = t_27 * (v14 + v14)
    t_29 = t_27 * (v13 + v13)
    t_30 = (sum_t_6 - t_28 - t_29) / 2.0
    t_31 = t_23 + t_27 * (hh_z - mean11) * t_2 + (t_28 + t_30) / units
    t_32 = t_24 + t_27 * (hh_r - mean10) * t_2 + (t_29 + t_30) / units
    t_37 = -0.5 * sum_t_7 * rsqrt9 * rsqrt9 * rsqrt9 / 2.0
    t_38 = t_37 * (v8 + v8)
    t_39 = t_37 * (v7 + v7)
    t_40 = (sum_t_8 - t_38 - t_39) / 2.0
    d_x_z = where(valid, t_33 + t_37 * (x_z - mean5) * t_2 + (t_38 + t_40) / units, 0.0)
    d_x_r = where(valid, t_34 + t_37 * (x_r - mean4) * t_2 + (t_39 + t_40) / units, 0.0)
    d_bias_hh_n = where(valid, t_16, 0.0)
    d_bias_hh_z = where(valid, t_31, 0.0)
    d_bias_hh_r = where(valid, t_32, 0.0)
    return (
        d_x_r,
        d_x_z,
        d_x_n,
        d_bias_hh_r,
        d_bias_hh_z,
        d_bias_hh_n,
        d_p_xr,
        d_p_xz,
        d_p_xn,
        d_p_hr,
        d_p_hz,
        d_p_hn,
        d_p_br,
        d_p_bz,
        d_p_bn,
        d_p_cn,
        t,
        valid_d_carried_h,
        t_32,
        t_31,
        t_16,
    )


@triton.jit
def layer_norm_gru_backward_1(read, valid, boundary, row):
    """The values of layer_norm_gru_backward after the products with weight_hh."""
    t, valid_d_carried_h = read[0], read[1]
    back_hh = read[2]
    t_41 = valid_d_carried_h + where(valid, t, 0.0) + where(valid, back_hh, 0.0)
    d_reset_state_h = where(boundary, t_41, 0.0)
    d_before_h = where(boundary, 0.0, t_41)
    return (d_before_h, d_reset_state_h)


@triton.jit
def layer_norm_gru_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of layer_norm_gru_forward."""
    if stage == 0:
        return layer_norm_gru_backward_0(read, valid, boundary, row)
    if stage == 1:
        return layer_norm_gru_backward_1(read, valid, boundary, row)


@triton.jit
def block_gru_forward_0(read, valid, boundary, row):
    """The values of block_gru_forward before the first product."""
    reset_state_h = read[0]
    carried_h = read[1]
    entering_h = where(boundary, reset_state_h, carried_h)
    return (entering_h, entering_h)


@triton.jit
def block_gru_forward_1(read, valid, boundary, row):
    """The values of block_gru_forward after the products with weight_hh."""
    hh_r, hh_n, hh_z = read[0], read[1], read[2]
    bias_hh_r, bias_hh_n, bias_hh_z = read[3], read[4], read[5]
    x_r, x_n, x_z = read[6], read[7], read[8]
    p_gr, p_gn, p_gz = read[9], read[10], read[11]
    p_br, p_bn, p_bz = read[12], read[13], read[14]
    entering_h = read[15]
    v0 = x_r + (hh_r + bias_hh_r)
    v1 = x_n + (hh_n + bias_hh_n)
    v2 = x_z + (hh_z + bias_hh_z)
    numbers = reduced(0, ("mean", "mean", "mean", "variance", "variance", "variance"), (v0, v1, v2, v0, v1, v2), row)
    mean3, mean4, mean5, variance_v0, variance_v1 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    variance_v2 = numbers[5]
    v6 = (mean3 + mean4 + mean5) / 3.0
    v7 = mean3 - v6
    v8 = mean4 - v6
    v9 = mean5 - v6
    rsqrt10 = rsqrt((variance_v0 + v7 * v7 + (variance_v1 + v8 * v8) + (variance_v2 + v9 * v9)) / 3.0 + 1e-05)
    gate_r = (v0 - v6) * rsqrt10
    gate_n = (v1 - v6) * rsqrt10
    gate_z = (v2 - v6) * rsqrt10
    reset = sigmoid(p_gr * gate_r + p_br)
    new = tanh(reset * (p_gn * gate_n + p_bn))
    update = sigmoid(p_gz * gate_z + p_bz - 1.0)
    h = entering_h + update * (new - entering_h)
    leaving_h = where(valid, h, entering_h)
    output = where(valid, h, 0.0)
    return (output, v0, v1, v2, mean3, mean4, mean5, v6, v7, v8, v9, rsqrt10, leaving_h)


@triton.jit
def block_gru_forward(stage: tl.constexpr, read, valid, boundary, row):
    """Layer-norm GRU of DreamerV2 (Hafner et al. 2021, arXiv:2010.02193), its recurrent weights of ``heads`` blocks.

    gate_r, gate_n, gate_z = units.normalised(x.r + r.r, x.n + r.n, x.z + r.z)
    reset = sigmoid(p.gr * gate_r + p.br)
    new = tanh(reset * (p.gn * gate_n + p.bn))
    update = sigmoid(p.gz * gate_z + p.bz - 1)
    return s.h + update * (new - s.h)
    """
    if stage == 0:
        return block_gru_forward_0(read, valid, boundary, row)
    if stage == 1:
        return block_gru_forward_1(read, valid, boundary, row)


@triton.jit
def block_gru_backward_0(read, valid, boundary, row):
    """The values of block_gru_backward before the first product."""
    d_carried_h = read[0]
    d_output = read[1]
    units = read[2]
    reset_state_h = read[3]
    before_h = read[4]
    v0, v1, v2 = read[5], read[6], read[7]
    mean3, mean4, mean5, v6, v7, v8, v9 = read[8], read[9], read[10], read[11], read[12], read[13], read[14]
    rsqrt10 = read[15]
    p_gr, p_gn, p_gz = read[16], read[17], read[18]
    p_br, p_bn, p_bz = read[19], read[20], read[21]
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    t = d_output + d_carried_h
    d_h = where(valid, t, 0.0)
    t_3 = 2.0 / units
    t_4 = v0 - v6
    gate_r = t_4 * rsqrt10
    t_5 = v1 - v6
    gate_n = t_5 * rsqrt10
    t_6 = v2 - v6
    gate_z = t_6 * rsqrt10
    reset = sigmoid(p_gr * gate_r + p_br)
    t_7 = p_gn * gate_n + p_bn
    new = tanh(reset * t_7)
    update = sigmoid(p_gz * gate_z + p_bz - 1.0)
    d_update = d_h * (new - where(boundary, reset_state_h, before_h))
    d_new = d_h * update
    t_2 = -d_new
    t_8 = d_update * update * (1.0 - update)
    d_p_bz = where(valid, t_8, 0.0)
    d_gate_z = t_8 * p_gz
    d_p_gz = where(valid, t_8 * gate_z, 0.0)
    t_9 = d_new * (1.0 - new * new)
    d_reset = t_9 * t_7
    t_10 = t_9 * reset
    d_p_bn = where(valid, t_10, 0.0)
    d_gate_n = t_10 * p_gn
    d_p_gn = where(valid, t_10 * gate_n, 0.0)
    t_11 = d_reset * reset * (1.0 - reset)
    d_p_br = where(valid, t_11, 0.0)
    d_gate_r = t_11 * p_gr
    d_p_gr = where(valid, t_11 * gate_r, 0.0)
    t_12 = d_gate_z * rsqrt10
    t_13 = d_gate_n * rsqrt10
    t_14 = d_gate_r * rsqrt10
    t_15 = d_gate_z * t_6 + d_gate_n * t_5 + d_gate_r * t_4
    t_16 = -t_13 - t_12 - t_14
    numbers = reduced(0, ("sum", "sum"), (t_15, t_16), row)
    sum_t, sum_t_2 = numbers[0], numbers[1]
    t_17 = -0.5 * sum_t * rsqrt10 * rsqrt10 * rsqrt10 / 3.0
    t_18 = t_17 * (v9 + v9)
    t_19 = t_17 * (v8 + v8)
    t_20 = t_17 * (v7 + v7)
    t_21 = (sum_t_2 - t_18 - t_19 - t_20) / 3.0
    t_22 = t_12 + t_17 * (v2 - mean5) * t_3 + (t_18 + t_21) / units
    t_23 = t_13 + t_17 * (v1 - mean4) * t_3 + (t_19 + t_21) / units
    t_24 = t_14 + t_17 * (v0 - mean3) * t_3 + (t_20 + t_21) / units
    d_x_z = where(valid, t_22, 0.0)
    d_x_n = where(valid, t_23, 0.0)
    d_x_r = where(valid, t_24, 0.0)
    return (
        d_x_r,
        d_x_n,
        d_x_z,
        d_p_gr,
        d_p_gn,
        d_p_gz,
        d_p_br,
        d_p_bn,
        d_p_bz,
        t,
        valid_d_carried_h,
        t_2,
        t_24,
        t_23,
        t_22,
    )


@triton.jit
def block_gru_backward_1(read, valid, boundary, row):
    """The values of block_gru_backward after the products with weight_hh."""
    t, valid_d_carried_h, t_2 = read[0], read[1], read[2]
    back_hh = read[3]
    d_h = where(valid, t, 0.0)
    t_25 = valid_d_carried_h + where(valid, d_h, 0.0) + where(valid, t_2, 0.0) + where(valid, back_hh, 0.0)
    d_reset_state_h = where(boundary, t_25, 0.0)
    d_before_h = where(boundary, 0.0, t_25)
    return (d_before_h, d_reset_state_h)


@triton.jit
def block_gru_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of block_gru_forward."""
    if stage == 0:
        return block_gru_backward_0(read, valid, boundary, row)
    if stage == 1:
        return block_gru_backward_1(read, valid, boundary, row)


@triton.jit
def multi_head_slstm_forward_0(read, valid, boundary, row):
    """The values of multi_head_slstm_forward before the first product."""
    reset_state_h = read[0]
    carried_h, carried_c, carried_n, carried_m = read[1], read[2], read[3], read[4]
    reset_state_c = read[5]
    reset_state_n = read[6]
    reset_state_m = read[7]
    entering_h = where(boundary, reset_state_h, carried_h)
    entering_c = where(boundary, reset_state_c, carried_c)
    entering_n = where(boundary, reset_state_n, carried_n)
    entering_m = where(boundary, reset_state_m, carried_m)
    return (entering_n, entering_m, entering_c, entering_h, entering_h)


@triton.jit
def multi_head_slstm_forward_1(read, valid, boundary, row):
    """The values of multi_head_slstm_forward after the products with weight_hh."""
    hh_i, hh_f, hh_z, hh_o = read[0], read[1], read[2], read[3]
    bias_hh_i, bias_hh_f, bias_hh_z, bias_hh_o = read[4], read[5], read[6], read[7]
    x_i, x_f, x_z, x_o = read[8], read[9], read[10], read[11]
    entering_n, entering_m, entering_c, entering_h = read[12], read[13], read[14], read[15]
    log_input = x_i + (hh_i + bias_hh_i)
    log_forget = log_sigmoid(x_f + (hh_f + bias_hh_f))
    carried = where(entering_n > 0.0, log_forget + entering_m, -1e30)
    stabiliser = maximum(carried, log_input)
    input = exp(log_input - stabiliser)
    forget = exp(carried - stabiliser)
    candidate = tanh(x_z + (hh_z + bias_hh_z))
    output = sigmoid(x_o + (hh_o + bias_hh_o))
    cell = forget * entering_c + input * candidate
    normaliser = forget * entering_n + input
    h = output * cell / normaliser
    leaving_h = where(valid, h, entering_h)
    leaving_c = where(valid, cell, entering_c)
    leaving_n = where(valid, normaliser, entering_n)
    leaving_m = where(valid, stabiliser, entering_m)
    output_2 = where(valid, h, 0.0)
    return (
        output_2,
        log_input,
        log_forget,
        candidate,
        output,
        leaving_c,
        leaving_n,
        leaving_m,
        leaving_h,
        leaving_c,
        leaving_n,
        leaving_m,
    )


@triton.jit
def multi_head_slstm_forward(stage: tl.constexpr, read, valid, boundary, row):
    """sLSTM with several heads (Beck et al. 2024, arXiv:2405.04517): weight_hh has a diagonal block for each.

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
    if stage == 0:
        return multi_head_slstm_forward_0(read, valid, boundary, row)
    if stage == 1:
        return multi_head_slstm_forward_1(read, valid, boundary, row)


@triton.jit
def multi_head_slstm_backward_0(read, valid, boundary, row):
    """The values of multi_head_slstm_backward before the first product."""
    d_carried_h, d_carried_c, d_carried_n, d_carried_m = read[0], read[1], read[2], read[3]
    d_output = read[4]
    reset_state_c = read[5]
    before_c = read[6]
    reset_state_n = read[7]
    before_n = read[8]
    reset_state_m = read[9]
    before_m = read[10]
    log_input, log_forget, candidate, output = read[11], read[12], read[13], read[14]
    after_m = read[15]
    after_n = read[16]
    after_h = read[17]
    after_c = read[18]
    valid_d_carried_m = where(valid, 0.0, d_carried_m)
    valid_d_carried_n = where(valid, 0.0, d_carried_n)
    valid_d_carried_c = where(valid, 0.0, d_carried_c)
    valid_d_carried_h = where(valid, 0.0, d_carried_h)
    d_h = where(valid, d_output + d_carried_h, 0.0)
    entering_n = where(boundary, reset_state_n, before_n)
    t_3 = entering_n > 0.0
    carried = where(t_3, log_forget + where(boundary, reset_state_m, before_m), -1e30)
    input = exp(log_input - after_m)
    forget = exp(carried - after_m)
    t_4 = d_h / after_n
    d_normaliser = where(valid, d_carried_n, 0.0) - t_4 * after_h
    d_output_2 = t_4 * after_c
    d_cell = where(valid, d_carried_c, 0.0) + t_4 * output
    t = d_normaliser * forget
    t_5 = valid_d_carried_n + where(valid, t, 0.0)
    d_candidate = d_cell * input
    d_input = d_normaliser + d_cell * candidate
    t_2 = d_cell * forget
    d_forget = d_normaliser * entering_n + d_cell * where(boundary, reset_state_c, before_c)
    t_6 = valid_d_carried_c + where(valid, t_2, 0.0)
    t_7 = d_output_2 * output * (1.0 - output)
    d_x_o = where(valid, t_7, 0.0)
    t_8 = d_candidate * (1.0 - candidate * candidate)
    d_x_z = where(valid, t_8, 0.0)
    t_9 = d_forget * forget
    t_10 = d_input * input
    d_stabiliser = where(valid, d_carried_m, 0.0) - t_9 - t_10
    t_11 = carried > log_input
    t_12 = log_input > carried
    t_13 = d_stabiliser / 2.0
    d_carried = t_9 + where(t_11, d_stabiliser, where(t_12, 0.0, t_13))
    d_log_input = t_10 + where(t_12, d_stabiliser, where(t_11, 0.0, t_13))
    d_log_forget = where(t_3, d_carried, 0.0)
    t_14 = valid_d_carried_m + where(valid, d_log_forget, 0.0)
    t_15 = -(d_log_forget * expm1(log_forget))
    d_x_f = where(valid, t_15, 0.0)
    d_x_i = where(valid, d_log_input, 0.0)
    d_reset_state_m = where(boundary, t_14, 0.0)
    d_reset_state_n = where(boundary, t_5, 0.0)
    d_reset_state_c = where(boundary, t_6, 0.0)
    return (
        d_reset_state_c,
        d_reset_state_n,
        d_reset_state_m,
        d_x_i,
        d_x_f,
        d_x_z,
        d_x_o,
        t,
        valid_d_carried_n,
        t_2,
        valid_d_carried_c,
        d_log_forget,
        valid_d_carried_m,
        valid_d_carried_h,
        d_log_input,
        t_15,
        t_8,
        t_7,
    )


@triton.jit
def multi_head_slstm_backward_1(read, valid, boundary, row):
    """The values of multi_head_slstm_backward after the products with weight_hh."""
    t, valid_d_carried_n, t_2, valid_d_carried_c, d_log_forget = read[0], read[1], read[2], read[3], read[4]
    valid_d_carried_m, valid_d_carried_h = read[5], read[6]
    back_hh = read[7]
    t_5 = valid_d_carried_n + where(valid, t, 0.0)
    t_6 = valid_d_carried_c + where(valid, t_2, 0.0)
    t_14 = valid_d_carried_m + where(valid, d_log_forget, 0.0)
    t_16 = valid_d_carried_h + where(valid, back_hh, 0.0)
    d_before_m = where(boundary, 0.0, t_14)
    d_before_n = where(boundary, 0.0, t_5)
    d_before_c = where(boundary, 0.0, t_6)
    d_reset_state_h = where(boundary, t_16, 0.0)
    d_before_h = where(boundary, 0.0, t_16)
    return (d_before_h, d_before_c, d_before_n, d_before_m, d_reset_state_h)


@triton.jit
def multi_head_slstm_backward(stage: tl.constexpr, read, valid, boundary, row):
    """Gradients of multi_head_slstm_forward."""
    if stage == 0:
        return multi_head_slstm_backward_0(read, valid, boundary, row)
    if stage == 1:
        return multi_head_slstm_backward_1(read, valid, boundary, row)


CELLS = {
    "gru_reset_before": Staged(
        forward=Pass(
            function=gru_reset_before_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 1),
                "product.0": ("BH", 2),
                "bias_hh": ("H", 2),
                "gates_x": ("TBH", 3),
                "kept": ("BH", 2),
                "product.1": ("BH", 1),
                "bias_candidate": ("H", 1),
                "operand.0": ("BH", 1),
                "saved": ("TBH", 3),
                "operand.1": ("BH", 1),
                "output": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0,)},
                    writes={"kept": (0,), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.0": (0, 1), "bias_hh": (0, 1), "gates_x": (0, 1), "kept": (0,)},
                    writes={"saved": (0, 1), "kept": (1,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.1": (0,), "bias_candidate": (0,), "gates_x": (2,), "kept": (0, 1)},
                    writes={"output": (0,), "saved": (2,), "carried": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1), transposed=False),
                Multiplied(stage=2, weight="weight_candidate", operand=1, blocks=(0,), transposed=False),
            ),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=gru_reset_before_backward,
            arrays={
                "carried": ("BH", 1),
                "grad_output": ("TBH", 1),
                "reset_state.h": ("BH", 1),
                "previous": ("TBH", 1),
                "saved": ("TBH", 3),
                "product.0": ("BH", 1),
                "kept": ("BH", 3),
                "product.1": ("BH", 1),
                "grad_gates_x": ("TBH", 3),
                "multiplied": ("TBH", 1),
                "operand.0": ("BH", 1),
                "operand.1": ("BH", 2),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0,),
                        "grad_output": (0,),
                        "reset_state.h": (0,),
                        "previous": (0,),
                        "saved": (0, 1, 2),
                    },
                    writes={
                        "grad_gates_x": (1, 2),
                        "multiplied": (0,),
                        "kept": (0, 1),
                        "operand.0": (0,),
                        "operand.1": (1,),
                    },
                    reduced=(),
                ),
                Stage(
                    reads={"reset_state.h": (0,), "previous": (0,), "product.0": (0,), "saved": (0,)},
                    writes={"grad_gates_x": (0,), "kept": (2,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (0, 1, 2), "saved": (1,), "product.1": (0,)},
                    writes={"carried": (0,), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_candidate", operand=0, blocks=(0,), transposed=True),
                Multiplied(stage=2, weight="weight_hh", operand=1, blocks=(0, 1), transposed=True),
            ),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"), ("grad_bias_hh", 0, "H"))),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_hh", 1, "H"))),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"), ("grad_bias_candidate", 0, "H"))),
            ),
            terms=(
                Term("weight_candidate", 0, d=("grad_gates_x", 2), operand=("multiplied", 0)),
                Term("weight_hh", 0, d=("grad_gates_x", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_gates_x", 1), operand=("previous", 0)),
            ),
        ),
    ),
    "mgu": Staged(
        forward=Pass(
            function=mgu_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 1),
                "product.0": ("BH", 1),
                "bias_hh": ("H", 1),
                "gates_x": ("TBH", 2),
                "kept": ("BH", 2),
                "product.1": ("BH", 1),
                "bias_candidate": ("H", 1),
                "operand.0": ("BH", 1),
                "saved": ("TBH", 2),
                "operand.1": ("BH", 1),
                "output": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0,)},
                    writes={"kept": (0,), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.0": (0,), "bias_hh": (0,), "gates_x": (0,), "kept": (0,)},
                    writes={"saved": (0,), "kept": (1,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.1": (0,), "bias_candidate": (0,), "gates_x": (1,), "kept": (0, 1)},
                    writes={"output": (0,), "saved": (1,), "carried": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0,), transposed=False),
                Multiplied(stage=2, weight="weight_candidate", operand=1, blocks=(0,), transposed=False),
            ),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=mgu_backward,
            arrays={
                "carried": ("BH", 1),
                "grad_output": ("TBH", 1),
                "reset_state.h": ("BH", 1),
                "previous": ("TBH", 1),
                "saved": ("TBH", 2),
                "kept": ("BH", 3),
                "product.0": ("BH", 1),
                "product.1": ("BH", 1),
                "grad_gates_x": ("TBH", 2),
                "multiplied": ("TBH", 1),
                "operand.0": ("BH", 1),
                "operand.1": ("BH", 1),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0,),
                        "grad_output": (0,),
                        "reset_state.h": (0,),
                        "previous": (0,),
                        "saved": (0, 1),
                    },
                    writes={"grad_gates_x": (1,), "multiplied": (0,), "kept": (0, 1), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (0, 1), "reset_state.h": (0,), "previous": (0,), "saved": (0, 1), "product.0": (0,)},
                    writes={"grad_gates_x": (0,), "kept": (2,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.1": (0,), "kept": (2,)},
                    writes={"carried": (0,), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_candidate", operand=0, blocks=(0,), transposed=True),
                Multiplied(stage=2, weight="weight_hh", operand=1, blocks=(0,), transposed=True),
            ),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"), ("grad_bias_hh", 0, "H"))),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_candidate", 0, "H"))),
            ),
            terms=(
                Term("weight_candidate", 0, d=("grad_gates_x", 1), operand=("multiplied", 0)),
                Term("weight_hh", 0, d=("grad_gates_x", 0), operand=("previous", 0)),
            ),
        ),
    ),
    "multiplicative_lstm": Staged(
        forward=Pass(
            function=multiplicative_lstm_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 2),
                "reset_state.c": ("BH", 1),
                "gates_x": ("TBH", 5),
                "product.0": ("BH", 1),
                "bias_hh": ("H", 1),
                "product.1": ("BH", 4),
                "bias_intermediate": ("H", 4),
                "kept": ("BH", 2),
                "saved": ("TBH", 6),
                "operand.0": ("BH", 1),
                "operand.1": ("BH", 1),
                "output": ("TBH", 1),
                "after.c": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0, 1), "reset_state.c": (0,), "gates_x": (0,)},
                    writes={"saved": (0,), "kept": (0, 1), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.0": (0,), "bias_hh": (0,), "gates_x": (0,)},
                    writes={"saved": (1,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={
                        "product.1": (0, 1, 2, 3),
                        "bias_intermediate": (0, 1, 2, 3),
                        "gates_x": (1, 2, 3, 4),
                        "kept": (0, 1),
                    },
                    writes={"output": (0,), "saved": (2, 3, 4, 5), "after.c": (0,), "carried": (0, 1)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0,), transposed=False),
                Multiplied(stage=2, weight="weight_intermediate", operand=1, blocks=(0, 1, 2, 3), transposed=False),
            ),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=multiplicative_lstm_backward,
            arrays={
                "carried": ("BH", 2),
                "grad_output": ("TBH", 1),
                "reset_state.c": ("BH", 1),
                "before.c": ("TBH", 1),
                "saved": ("TBH", 6),
                "after.c": ("TBH", 1),
                "product.0": ("BH", 1),
                "kept": ("BH", 3),
                "product.1": ("BH", 1),
                "grad_reset_state.c": ("BH", 1),
                "grad_gates_x": ("TBH", 5),
                "multiplied": ("TBH", 1),
                "operand.0": ("BH", 4),
                "grad_products": ("TBH", 1),
                "operand.1": ("BH", 1),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0, 1),
                        "grad_output": (0,),
                        "reset_state.c": (0,),
                        "before.c": (0,),
                        "saved": (0, 1, 2, 3, 4, 5),
                        "after.c": (0,),
                    },
                    writes={
                        "grad_reset_state.c": (0,),
                        "grad_gates_x": (1, 2, 3, 4),
                        "multiplied": (0,),
                        "kept": (0, 1, 2),
                        "operand.0": (0, 1, 2, 3),
                    },
                    reduced=(),
                ),
                Stage(
                    reads={"product.0": (0,), "saved": (0, 1)},
                    writes={"grad_gates_x": (0,), "grad_products": (0,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (0, 1, 2), "product.1": (0,)},
                    writes={"carried": (0, 1), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_intermediate", operand=0, blocks=(0, 1, 2, 3), transposed=True),
                Multiplied(stage=2, weight="weight_hh", operand=1, blocks=(0,), transposed=True),
            ),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"),)),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_intermediate", 0, "H"))),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"), ("grad_bias_intermediate", 1, "H"))),
                Sum("grad_gates_x", 3, (("grad_bias_ih", 3, "H"), ("grad_bias_intermediate", 2, "H"))),
                Sum("grad_gates_x", 4, (("grad_bias_ih", 4, "H"), ("grad_bias_intermediate", 3, "H"))),
                Sum("grad_products", 0, (("grad_bias_hh", 0, "H"),)),
            ),
            terms=(
                Term("weight_intermediate", 0, d=("grad_gates_x", 1), operand=("multiplied", 0)),
                Term("weight_intermediate", 1, d=("grad_gates_x", 2), operand=("multiplied", 0)),
                Term("weight_intermediate", 2, d=("grad_gates_x", 3), operand=("multiplied", 0)),
                Term("weight_intermediate", 3, d=("grad_gates_x", 4), operand=("multiplied", 0)),
                Term("weight_hh", 0, d=("grad_products", 0), operand=("previous", 0)),
            ),
        ),
    ),
    "recurrent_highway": Staged(
        forward=Pass(
            function=recurrent_highway_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 1),
                "product.0": ("BH", 2),
                "bias_hh": ("H", 2),
                "gates_x": ("TBH", 2),
                "kept": ("BH", 3),
                "product.1": ("BH", 2),
                "bias_deeper1": ("H", 2),
                "product.2": ("BH", 2),
                "bias_deeper2": ("H", 2),
                "operand.0": ("BH", 1),
                "saved": ("TBH", 6),
                "operand.1": ("BH", 1),
                "operand.2": ("BH", 1),
                "output": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0,)},
                    writes={"kept": (0,), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.0": (0, 1), "bias_hh": (0, 1), "gates_x": (0, 1), "kept": (0,)},
                    writes={"saved": (0, 1), "kept": (1,), "operand.1": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.1": (0, 1), "bias_deeper1": (0, 1), "kept": (1,)},
                    writes={"saved": (2, 3), "kept": (2,), "operand.2": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={"product.2": (0, 1), "bias_deeper2": (0, 1), "kept": (0, 2)},
                    writes={"output": (0,), "saved": (4, 5), "carried": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1), transposed=False),
                Multiplied(stage=2, weight="weight_deeper1", operand=1, blocks=(0, 1), transposed=False),
                Multiplied(stage=3, weight="weight_deeper2", operand=2, blocks=(0, 1), transposed=False),
            ),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=recurrent_highway_backward,
            arrays={
                "carried": ("BH", 1),
                "grad_output": ("TBH", 1),
                "reset_state.h": ("BH", 1),
                "previous": ("TBH", 1),
                "saved": ("TBH", 6),
                "kept": ("BH", 6),
                "product.0": ("BH", 1),
                "product.1": ("BH", 1),
                "product.2": ("BH", 1),
                "multiplied": ("TBH", 2),
                "grad_products": ("TBH", 4),
                "operand.0": ("BH", 2),
                "operand.1": ("BH", 2),
                "grad_gates_x": ("TBH", 2),
                "operand.2": ("BH", 2),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0,),
                        "grad_output": (0,),
                        "reset_state.h": (0,),
                        "previous": (0,),
                        "saved": (0, 1, 2, 3, 4, 5),
                    },
                    writes={"multiplied": (0, 1), "grad_products": (0, 1), "kept": (0, 1, 4), "operand.0": (0, 1)},
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (0, 1), "saved": (2, 3, 4), "product.0": (0,)},
                    writes={"grad_products": (2, 3), "kept": (2,), "operand.1": (0, 1)},
                    reduced=(),
                ),
                Stage(
                    reads={"reset_state.h": (0,), "previous": (0,), "saved": (0, 1), "kept": (2,), "product.1": (0,)},
                    writes={"grad_gates_x": (0, 1), "kept": (3, 5), "operand.2": (0, 1)},
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (3, 4, 5), "product.2": (0,)},
                    writes={"carried": (0,), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(
                Multiplied(stage=1, weight="weight_deeper2", operand=0, blocks=(0, 1), transposed=True),
                Multiplied(stage=2, weight="weight_deeper1", operand=1, blocks=(0, 1), transposed=True),
                Multiplied(stage=3, weight="weight_hh", operand=2, blocks=(0, 1), transposed=True),
            ),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"), ("grad_bias_hh", 0, "H"))),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_hh", 1, "H"))),
                Sum("grad_products", 2, (("grad_bias_deeper1", 0, "H"),)),
                Sum("grad_products", 3, (("grad_bias_deeper1", 1, "H"),)),
                Sum("grad_products", 0, (("grad_bias_deeper2", 0, "H"),)),
                Sum("grad_products", 1, (("grad_bias_deeper2", 1, "H"),)),
            ),
            terms=(
                Term("weight_deeper2", 0, d=("grad_products", 0), operand=("multiplied", 0)),
                Term("weight_deeper2", 1, d=("grad_products", 1), operand=("multiplied", 0)),
                Term("weight_deeper1", 0, d=("grad_products", 2), operand=("multiplied", 1)),
                Term("weight_deeper1", 1, d=("grad_products", 3), operand=("multiplied", 1)),
                Term("weight_hh", 0, d=("grad_gates_x", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_gates_x", 1), operand=("previous", 0)),
            ),
        ),
    ),
    "layer_norm_lstm": Staged(
        forward=Pass(
            function=layer_norm_lstm_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 2),
                "reset_state.c": ("BH", 1),
                "gates_x": ("TBH", 4),
                "product.0": ("BH", 4),
                "bias_hh": ("H", 4),
                "kept_numbers": ("B", 8),
                "weight_norm_x": ("H", 4),
                "weight_norm_h": ("H", 4),
                "weight_norm_bias": ("H", 4),
                "kept": ("BH", 2),
                "weight_norm_c": ("H", 2),
                "saved": ("TBH", 8),
                "numbers": ("TB", 22),
                "operand.0": ("BH", 1),
                "output": ("TBH", 1),
                "after.c": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0, 1), "reset_state.c": (0,), "gates_x": (0, 1, 2, 3)},
                    writes={
                        "saved": (0, 1, 2, 3),
                        "numbers": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
                        "kept": (0, 1),
                        "kept_numbers": (0, 1, 2, 3, 4, 5, 6, 7),
                        "operand.0": (0,),
                    },
                    reduced=(8,),
                ),
                Stage(
                    reads={
                        "product.0": (0, 1, 2, 3),
                        "bias_hh": (0, 1, 2, 3),
                        "kept_numbers": (0, 1, 2, 3, 4, 5, 6, 7),
                        "gates_x": (0, 1, 2, 3),
                        "weight_norm_x": (0, 1, 2, 3),
                        "weight_norm_h": (0, 1, 2, 3),
                        "weight_norm_bias": (0, 1, 2, 3),
                        "kept": (0, 1),
                        "weight_norm_c": (0, 1),
                    },
                    writes={
                        "output": (0,),
                        "saved": (4, 5, 6, 7),
                        "numbers": (10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21),
                        "after.c": (0,),
                        "carried": (0, 1),
                    },
                    reduced=(8, 2),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2, 3), transposed=False),),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=layer_norm_lstm_backward,
            arrays={
                "carried": ("BH", 2),
                "grad_output": ("TBH", 1),
                "units": ("", 1),
                "reset_state.c": ("BH", 1),
                "before.c": ("TBH", 1),
                "saved": ("TBH", 8),
                "numbers": ("TB", 22),
                "weight_norm_x": ("H", 4),
                "weight_norm_h": ("H", 4),
                "weight_norm_bias": ("H", 4),
                "after.c": ("TBH", 1),
                "weight_norm_c": ("H", 2),
                "kept": ("BH", 3),
                "product.0": ("BH", 1),
                "grad_reset_state.c": ("BH", 1),
                "grad_gates_x": ("TBH", 4),
                "grad_products": ("TBH", 4),
                "sums": ("BH", 14),
                "operand.0": ("BH", 4),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0, 1),
                        "grad_output": (0,),
                        "units": (0,),
                        "reset_state.c": (0,),
                        "before.c": (0,),
                        "saved": (0, 1, 2, 3, 4, 5, 6, 7),
                        "numbers": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21),
                        "weight_norm_x": (0, 1, 2, 3),
                        "weight_norm_h": (0, 1, 2, 3),
                        "weight_norm_bias": (0, 1, 2, 3),
                        "after.c": (0,),
                        "weight_norm_c": (0, 1),
                    },
                    writes={
                        "grad_reset_state.c": (0,),
                        "grad_gates_x": (0, 1, 2, 3),
                        "grad_products": (0, 1, 2, 3),
                        "sums": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13),
                        "kept": (0, 1, 2),
                        "operand.0": (0, 1, 2, 3),
                    },
                    reduced=(2, 4),
                ),
                Stage(
                    reads={"kept": (0, 1, 2), "product.0": (0,)},
                    writes={"carried": (0, 1), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2, 3), transposed=True),),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"),)),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"),)),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"),)),
                Sum("grad_gates_x", 3, (("grad_bias_ih", 3, "H"),)),
                Sum("grad_products", 0, (("grad_bias_hh", 0, "H"),)),
                Sum("grad_products", 1, (("grad_bias_hh", 1, "H"),)),
                Sum("grad_products", 2, (("grad_bias_hh", 2, "H"),)),
                Sum("grad_products", 3, (("grad_bias_hh", 3, "H"),)),
                Sum("sums", 0, (("grad_weight_norm_x", 0, "H"),)),
                Sum("sums", 1, (("grad_weight_norm_x", 1, "H"),)),
                Sum("sums", 2, (("grad_weight_norm_x", 2, "H"),)),
                Sum("sums", 3, (("grad_weight_norm_x", 3, "H"),)),
                Sum("sums", 4, (("grad_weight_norm_h", 0, "H"),)),
                Sum("sums", 5, (("grad_weight_norm_h", 1, "H"),)),
                Sum("sums", 6, (("grad_weight_norm_h", 2, "H"),)),
                Sum("sums", 7, (("grad_weight_norm_h", 3, "H"),)),
                Sum("sums", 8, (("grad_weight_norm_bias", 0, "H"),)),
                Sum("sums", 9, (("grad_weight_norm_bias", 1, "H"),)),
                Sum("sums", 10, (("grad_weight_norm_bias", 2, "H"),)),
                Sum("sums", 11, (("grad_weight_norm_bias", 3, "H"),)),
                Sum("sums", 12, (("grad_weight_norm_c", 0, "H"),)),
                Sum("sums", 13, (("grad_weight_norm_c", 1, "H"),)),
            ),
            terms=(
                Term("weight_hh", 0, d=("grad_products", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_products", 1), operand=("previous", 0)),
                Term("weight_hh", 2, d=("grad_products", 2), operand=("previous", 0)),
                Term("weight_hh", 3, d=("grad_products", 3), operand=("previous", 0)),
            ),
        ),
    ),
    "layer_norm_gru": Staged(
        forward=Pass(
            function=layer_norm_gru_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 1),
                "gates_x": ("TBH", 3),
                "weight_norm_x": ("H", 3),
                "weight_norm_bias": ("H", 4),
                "product.0": ("BH", 3),
                "bias_hh": ("H", 3),
                "kept_numbers": ("B", 4),
                "weight_norm_h": ("H", 3),
                "kept": ("BH", 2),
                "saved": ("TBH", 6),
                "numbers": ("TB", 14),
                "operand.0": ("BH", 1),
                "output": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "reset_state.h": (0,),
                        "carried": (0,),
                        "gates_x": (0, 1, 2),
                        "weight_norm_x": (2,),
                        "weight_norm_bias": (2,),
                    },
                    writes={
                        "saved": (0, 1, 4),
                        "numbers": (0, 1, 2, 3, 4, 5, 12),
                        "kept": (0, 1),
                        "kept_numbers": (0, 1, 2, 3),
                        "operand.0": (0,),
                    },
                    reduced=(6,),
                ),
                Stage(
                    reads={
                        "product.0": (0, 1, 2),
                        "bias_hh": (0, 1, 2),
                        "kept_numbers": (0, 1, 2, 3),
                        "gates_x": (0, 1),
                        "weight_norm_x": (0, 1),
                        "weight_norm_h": (0, 1, 2),
                        "weight_norm_bias": (0, 1, 3),
                        "kept": (0, 1),
                    },
                    writes={"output": (0,), "saved": (2, 3, 5), "numbers": (6, 7, 8, 9, 10, 11, 13), "carried": (0,)},
                    reduced=(6,),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2), transposed=False),),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=layer_norm_gru_backward,
            arrays={
                "carried": ("BH", 1),
                "grad_output": ("TBH", 1),
                "units": ("", 1),
                "reset_state.h": ("BH", 1),
                "previous": ("TBH", 1),
                "saved": ("TBH", 6),
                "numbers": ("TB", 14),
                "weight_norm_x": ("H", 3),
                "weight_norm_h": ("H", 3),
                "weight_norm_bias": ("H", 4),
                "kept": ("BH", 2),
                "product.0": ("BH", 1),
                "grad_gates_x": ("TBH", 3),
                "grad_products": ("TBH", 3),
                "sums": ("BH", 10),
                "operand.0": ("BH", 3),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0,),
                        "grad_output": (0,),
                        "units": (0,),
                        "reset_state.h": (0,),
                        "previous": (0,),
                        "saved": (0, 1, 2, 3, 4, 5),
                        "numbers": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13),
                        "weight_norm_x": (0, 1, 2),
                        "weight_norm_h": (0, 1, 2),
                        "weight_norm_bias": (0, 1, 2, 3),
                    },
                    writes={
                        "grad_gates_x": (0, 1, 2),
                        "grad_products": (0, 1, 2),
                        "sums": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
                        "kept": (0, 1),
                        "operand.0": (0, 1, 2),
                    },
                    reduced=(8,),
                ),
                Stage(
                    reads={"kept": (0, 1), "product.0": (0,)},
                    writes={"carried": (0,), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2), transposed=True),),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"),)),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"),)),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"),)),
                Sum("grad_products", 0, (("grad_bias_hh", 0, "H"),)),
                Sum("grad_products", 1, (("grad_bias_hh", 1, "H"),)),
                Sum("grad_products", 2, (("grad_bias_hh", 2, "H"),)),
                Sum("sums", 0, (("grad_weight_norm_x", 0, "H"),)),
                Sum("sums", 1, (("grad_weight_norm_x", 1, "H"),)),
                Sum("sums", 2, (("grad_weight_norm_x", 2, "H"),)),
                Sum("sums", 3, (("grad_weight_norm_h", 0, "H"),)),
                Sum("sums", 4, (("grad_weight_norm_h", 1, "H"),)),
                Sum("sums", 5, (("grad_weight_norm_h", 2, "H"),)),
                Sum("sums", 6, (("grad_weight_norm_bias", 0, "H"),)),
                Sum("sums", 7, (("grad_weight_norm_bias", 1, "H"),)),
                Sum("sums", 8, (("grad_weight_norm_bias", 2, "H"),)),
                Sum("sums", 9, (("grad_weight_norm_bias", 3, "H"),)),
            ),
            terms=(
                Term("weight_hh", 0, d=("grad_products", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_products", 1), operand=("previous", 0)),
                Term("weight_hh", 2, d=("grad_products", 2), operand=("previous", 0)),
            ),
        ),
    ),
    "block_gru": Staged(
        forward=Pass(
            function=block_gru_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 1),
                "product.0": ("BH", 3),
                "bias_hh": ("H", 3),
                "gates_x": ("TBH", 3),
                "weight_norm": ("H", 3),
                "weight_norm_bias": ("H", 3),
                "kept": ("BH", 1),
                "operand.0": ("BH", 1),
                "output": ("TBH", 1),
                "saved": ("TBH", 3),
                "numbers": ("TB", 8),
            },
            stages=(
                Stage(
                    reads={"reset_state.h": (0,), "carried": (0,)},
                    writes={"kept": (0,), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={
                        "product.0": (0, 1, 2),
                        "bias_hh": (0, 1, 2),
                        "gates_x": (0, 1, 2),
                        "weight_norm": (0, 1, 2),
                        "weight_norm_bias": (0, 1, 2),
                        "kept": (0,),
                    },
                    writes={"output": (0,), "saved": (0, 1, 2), "numbers": (0, 1, 2, 3, 4, 5, 6, 7), "carried": (0,)},
                    reduced=(6,),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2), transposed=False),),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=block_gru_backward,
            arrays={
                "carried": ("BH", 1),
                "grad_output": ("TBH", 1),
                "units": ("", 1),
                "reset_state.h": ("BH", 1),
                "previous": ("TBH", 1),
                "saved": ("TBH", 3),
                "numbers": ("TB", 8),
                "weight_norm": ("H", 3),
                "weight_norm_bias": ("H", 3),
                "kept": ("BH", 3),
                "product.0": ("BH", 1),
                "grad_gates_x": ("TBH", 3),
                "sums": ("BH", 6),
                "operand.0": ("BH", 3),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0,),
                        "grad_output": (0,),
                        "units": (0,),
                        "reset_state.h": (0,),
                        "previous": (0,),
                        "saved": (0, 1, 2),
                        "numbers": (0, 1, 2, 3, 4, 5, 6, 7),
                        "weight_norm": (0, 1, 2),
                        "weight_norm_bias": (0, 1, 2),
                    },
                    writes={
                        "grad_gates_x": (0, 1, 2),
                        "sums": (0, 1, 2, 3, 4, 5),
                        "kept": (0, 1, 2),
                        "operand.0": (0, 1, 2),
                    },
                    reduced=(2,),
                ),
                Stage(
                    reads={"kept": (0, 1, 2), "product.0": (0,)},
                    writes={"carried": (0,), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2), transposed=True),),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"), ("grad_bias_hh", 0, "H"))),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_hh", 1, "H"))),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"), ("grad_bias_hh", 2, "H"))),
                Sum("sums", 0, (("grad_weight_norm", 0, "H"),)),
                Sum("sums", 1, (("grad_weight_norm", 1, "H"),)),
                Sum("sums", 2, (("grad_weight_norm", 2, "H"),)),
                Sum("sums", 3, (("grad_weight_norm_bias", 0, "H"),)),
                Sum("sums", 4, (("grad_weight_norm_bias", 1, "H"),)),
                Sum("sums", 5, (("grad_weight_norm_bias", 2, "H"),)),
            ),
            terms=(
                Term("weight_hh", 0, d=("grad_gates_x", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_gates_x", 1), operand=("previous", 0)),
                Term("weight_hh", 2, d=("grad_gates_x", 2), operand=("previous", 0)),
            ),
        ),
    ),
    "multi_head_slstm": Staged(
        forward=Pass(
            function=multi_head_slstm_forward,
            arrays={
                "reset_state.h": ("BH", 1),
                "carried": ("BH", 4),
                "reset_state.c": ("BH", 1),
                "reset_state.n": ("BH", 1),
                "reset_state.m": ("BH", 1),
                "product.0": ("BH", 4),
                "bias_hh": ("H", 4),
                "gates_x": ("TBH", 4),
                "kept": ("BH", 4),
                "operand.0": ("BH", 1),
                "output": ("TBH", 1),
                "saved": ("TBH", 4),
                "after.c": ("TBH", 1),
                "after.n": ("TBH", 1),
                "after.m": ("TBH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "reset_state.h": (0,),
                        "carried": (0, 1, 2, 3),
                        "reset_state.c": (0,),
                        "reset_state.n": (0,),
                        "reset_state.m": (0,),
                    },
                    writes={"kept": (0, 1, 2, 3), "operand.0": (0,)},
                    reduced=(),
                ),
                Stage(
                    reads={
                        "product.0": (0, 1, 2, 3),
                        "bias_hh": (0, 1, 2, 3),
                        "gates_x": (0, 1, 2, 3),
                        "kept": (0, 1, 2, 3),
                    },
                    writes={
                        "output": (0,),
                        "saved": (0, 1, 2, 3),
                        "after.c": (0,),
                        "after.n": (0,),
                        "after.m": (0,),
                        "carried": (0, 1, 2, 3),
                    },
                    reduced=(),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2, 3), transposed=False),),
            sums=(),
            terms=(),
        ),
        backward=Pass(
            function=multi_head_slstm_backward,
            arrays={
                "carried": ("BH", 4),
                "grad_output": ("TBH", 1),
                "reset_state.c": ("BH", 1),
                "before.c": ("TBH", 1),
                "reset_state.n": ("BH", 1),
                "before.n": ("TBH", 1),
                "reset_state.m": ("BH", 1),
                "before.m": ("TBH", 1),
                "saved": ("TBH", 4),
                "after.m": ("TBH", 1),
                "after.n": ("TBH", 1),
                "output": ("TBH", 1),
                "after.c": ("TBH", 1),
                "kept": ("BH", 7),
                "product.0": ("BH", 1),
                "grad_reset_state.c": ("BH", 1),
                "grad_reset_state.n": ("BH", 1),
                "grad_reset_state.m": ("BH", 1),
                "grad_gates_x": ("TBH", 4),
                "operand.0": ("BH", 4),
                "grad_reset_state.h": ("BH", 1),
            },
            stages=(
                Stage(
                    reads={
                        "carried": (0, 1, 2, 3),
                        "grad_output": (0,),
                        "reset_state.c": (0,),
                        "before.c": (0,),
                        "reset_state.n": (0,),
                        "before.n": (0,),
                        "reset_state.m": (0,),
                        "before.m": (0,),
                        "saved": (0, 1, 2, 3),
                        "after.m": (0,),
                        "after.n": (0,),
                        "output": (0,),
                        "after.c": (0,),
                    },
                    writes={
                        "grad_reset_state.c": (0,),
                        "grad_reset_state.n": (0,),
                        "grad_reset_state.m": (0,),
                        "grad_gates_x": (0, 1, 2, 3),
                        "kept": (0, 1, 2, 3, 4, 5, 6),
                        "operand.0": (0, 1, 2, 3),
                    },
                    reduced=(),
                ),
                Stage(
                    reads={"kept": (0, 1, 2, 3, 4, 5, 6), "product.0": (0,)},
                    writes={"carried": (0, 1, 2, 3), "grad_reset_state.h": (0,)},
                    reduced=(),
                ),
            ),
            products=(Multiplied(stage=1, weight="weight_hh", operand=0, blocks=(0, 1, 2, 3), transposed=True),),
            sums=(
                Sum("grad_gates_x", 0, (("grad_bias_ih", 0, "H"), ("grad_bias_hh", 0, "H"))),
                Sum("grad_gates_x", 1, (("grad_bias_ih", 1, "H"), ("grad_bias_hh", 1, "H"))),
                Sum("grad_gates_x", 2, (("grad_bias_ih", 2, "H"), ("grad_bias_hh", 2, "H"))),
                Sum("grad_gates_x", 3, (("grad_bias_ih", 3, "H"), ("grad_bias_hh", 3, "H"))),
            ),
            terms=(
                Term("weight_hh", 0, d=("grad_gates_x", 0), operand=("previous", 0)),
                Term("weight_hh", 1, d=("grad_gates_x", 1), operand=("previous", 0)),
                Term("weight_hh", 2, d=("grad_gates_x", 2), operand=("previous", 0)),
                Term("weight_hh", 3, d=("grad_gates_x", 3), operand=("previous", 0)),
            ),
        ),
    ),
}
