// The cells' kernels, one step forward and backward.
//
// Made from seqcells/cells by `make cells`: edit nothing below these words, which alone are written by hand.
//
// Elementwise, in float32 or float64, over arrays of vectors V, in the order in which the cell names their parts; results
// may be written over arguments:
//
//     forward(x, r, s, p, n, saved)                  computes n, saved
//     backward(saved, s, n, p, d, dx, dr, ds, dp)    computes dx, dr, ds, dp
//
// * x: W_ih x_t + b_ih for each gate; r: W_hh h_(t-1) + b_hh for each recurrent gate;
// * s: the states before the step; p: the rows of the per-unit parameters;
// * n: the new states, before any projection; saved: what backward needs besides;
// * d: the gradients of n, whatever they come from; dx, dr, ds, dp: those of x, r, s, p. ds lacks what comes through
//   r, which is the engine's product; dp is of one element, to be summed over time and batch.
//
// Besides these functions each struct has:
//
// * gates, recurrent_gates, states, parameters, saves: the lengths of x, r, s and n and d, p, saved;
// * shared: for each recurrent gate the gate whose dx is the same value as its dr, since `step` has only their
//   sum, or -1;
// * previous, next: which of s and n backward reads; the others may hold anything.

#pragma once

#include <array>

#include "activations.h"

namespace seqcells {
namespace {

struct LSTM {
    static constexpr const char* name = "lstm";
    static constexpr int gates = 4, recurrent_gates = 4, states = 2, parameters = 0, saves = 4;
    static constexpr std::array<int, 4> shared{0, 1, 2, 3};
    static constexpr std::array<bool, 2> previous{false, true};
    static constexpr std::array<bool, 2> next{false, true};

    // Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn.
    //
    // input = sigmoid(x.i + r.i)
    // forget = sigmoid(x.f + r.f)
    // candidate = tanh(x.g + r.g)
    // output = sigmoid(x.o + r.o)
    // cell = forget * s.c + input * candidate
    // return output * tanh(cell), cell
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_i = x[0], x_f = x[1], x_g = x[2], x_o = x[3];
        const V r_i = r[0], r_f = r[1], r_g = r[2], r_o = r[3];
        const V s_c = s[1];
        const auto input = sigmoid(x_i + r_i);
        const auto forget = sigmoid(x_f + r_f);
        const auto candidate = tanh(x_g + r_g);
        const auto output = sigmoid(x_o + r_o);
        const auto cell = forget * s_c + input * candidate;
        const auto h = output * tanh(cell);
        n[0] = h; n[1] = cell;
        saved[0] = input; saved[1] = forget; saved[2] = candidate; saved[3] = output;
    }

    // Gradients of lstm_forward, which saved input, forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_c = s[1];
        const V input = saved[0], forget = saved[1], candidate = saved[2], output = saved[3];
        const V cell = n[1];
        const V d_h = d[0], d_c = d[1];
        const auto tanh_cell = tanh(cell);
        const auto d_output = d_h * tanh_cell;
        const auto d_cell = d_c + d_h * output * (T(1.0) - tanh_cell * tanh_cell);
        const auto d_input = d_cell * candidate;
        const auto d_candidate = d_cell * input;
        const auto d_forget = d_cell * s_c;
        const auto ds_c = d_cell * forget;
        const auto dx_o = d_output * output * (T(1.0) - output);
        const auto dx_g = d_candidate * (T(1.0) - candidate * candidate);
        const auto dx_f = d_forget * forget * (T(1.0) - forget);
        const auto dx_i = d_input * input * (T(1.0) - input);
        dx[0] = dx_i; dx[1] = dx_f; dx[2] = dx_g; dx[3] = dx_o;
        dr[0] = dx_i; dr[1] = dx_f; dr[2] = dx_g; dr[3] = dx_o;
        ds[0] = V{}; ds[1] = ds_c;
    }
};

struct GRU {
    static constexpr const char* name = "gru";
    static constexpr int gates = 3, recurrent_gates = 3, states = 1, parameters = 0, saves = 4;
    static constexpr std::array<int, 3> shared{0, 1, -1};
    static constexpr std::array<bool, 1> previous{true};
    static constexpr std::array<bool, 1> next{false};

    // Gated recurrent unit (Cho et al. 2014), the reset gate applied after the recurrent product, as torch.nn.
    //
    // reset = sigmoid(x.r + r.r)
    // update = sigmoid(x.z + r.z)
    // new = tanh(x.n + reset * r.n)
    // return new + update * (s.h - new)
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_r = x[0], x_z = x[1], x_n = x[2];
        const V r_r = r[0], r_z = r[1], r_n = r[2];
        const V s_h = s[0];
        const auto reset = sigmoid(x_r + r_r);
        const auto update = sigmoid(x_z + r_z);
        const auto new_ = tanh(x_n + reset * r_n);
        const auto h = new_ + update * (s_h - new_);
        n[0] = h;
        saved[0] = r_n; saved[1] = reset; saved[2] = update; saved[3] = new_;
    }

    // Gradients of gru_forward, which saved r_n, reset, update, new.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_h = s[0];
        const V r_n = saved[0], reset = saved[1], update = saved[2], new_ = saved[3];
        const V d_h = d[0];
        const auto d_update = d_h * (s_h - new_);
        const auto ds_h = d_h * update;
        const auto one_minus_update = T(1.0) - update;
        const auto d_new = d_h * one_minus_update;
        const auto dx_n = d_new * (T(1.0) - new_ * new_);
        const auto d_reset = dx_n * r_n;
        const auto dr_n = dx_n * reset;
        const auto dx_z = d_update * update * one_minus_update;
        const auto dx_r = d_reset * reset * (T(1.0) - reset);
        dx[0] = dx_r; dx[1] = dx_z; dx[2] = dx_n;
        dr[0] = dx_r; dr[1] = dx_z; dr[2] = dr_n;
        ds[0] = ds_h;
    }
};

struct RNNTanh {
    static constexpr const char* name = "rnn_tanh";
    static constexpr int gates = 1, recurrent_gates = 1, states = 1, parameters = 0, saves = 0;
    static constexpr std::array<int, 1> shared{0};
    static constexpr std::array<bool, 1> previous{false};
    static constexpr std::array<bool, 1> next{true};

    // Elman's simple recurrent network (Elman 1990) with tanh, as torch.nn.
    //
    // return tanh(x.h + r.h)
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_h = x[0];
        const V r_h = r[0];
        const auto h = tanh(x_h + r_h);
        n[0] = h;
    }

    // Gradients of rnn_tanh_forward, which saved nothing.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V h = n[0];
        const V d_h = d[0];
        const auto dx_h = d_h * (T(1.0) - h * h);
        dx[0] = dx_h;
        dr[0] = dx_h;
        ds[0] = V{};
    }
};

struct RNNReLU {
    static constexpr const char* name = "rnn_relu";
    static constexpr int gates = 1, recurrent_gates = 1, states = 1, parameters = 0, saves = 0;
    static constexpr std::array<int, 1> shared{0};
    static constexpr std::array<bool, 1> previous{false};
    static constexpr std::array<bool, 1> next{true};

    // Elman's simple recurrent network with a rectifier (Le et al. 2015), as torch.nn.
    //
    // return relu(x.h + r.h)
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_h = x[0];
        const V r_h = r[0];
        const auto h = relu(x_h + r_h);
        n[0] = h;
    }

    // Gradients of rnn_relu_forward, which saved nothing.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V h = n[0];
        const V d_h = d[0];
        const auto dx_h = where(h > T(0.0), d_h, T(0.0));
        dx[0] = dx_h;
        dr[0] = dx_h;
        ds[0] = V{};
    }
};

struct PeepholeLSTM {
    static constexpr const char* name = "peephole_lstm";
    static constexpr int gates = 4, recurrent_gates = 4, states = 2, parameters = 3, saves = 4;
    static constexpr std::array<int, 4> shared{0, 1, 2, 3};
    static constexpr std::array<bool, 2> previous{false, true};
    static constexpr std::array<bool, 2> next{false, true};

    // LSTM whose gates see the cell state (Gers & Schmidhuber 2000): i and f see c_{t-1}, o sees c_t.
    //
    // input = sigmoid(x.i + r.i + p.i * s.c)
    // forget = sigmoid(x.f + r.f + p.f * s.c)
    // candidate = tanh(x.g + r.g)
    // cell = forget * s.c + input * candidate
    // output = sigmoid(x.o + r.o + p.o * cell)
    // return output * tanh(cell), cell
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_i = x[0], x_f = x[1], x_g = x[2], x_o = x[3];
        const V r_i = r[0], r_f = r[1], r_g = r[2], r_o = r[3];
        const V s_c = s[1];
        const V p_i = p[0], p_f = p[1], p_o = p[2];
        const auto input = sigmoid(x_i + r_i + p_i * s_c);
        const auto forget = sigmoid(x_f + r_f + p_f * s_c);
        const auto candidate = tanh(x_g + r_g);
        const auto cell = forget * s_c + input * candidate;
        const auto output = sigmoid(x_o + r_o + p_o * cell);
        const auto h = output * tanh(cell);
        n[0] = h; n[1] = cell;
        saved[0] = input; saved[1] = forget; saved[2] = candidate; saved[3] = output;
    }

    // Gradients of peephole_lstm_forward, which saved input, forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_c = s[1];
        const V p_i = p[0], p_f = p[1], p_o = p[2];
        const V input = saved[0], forget = saved[1], candidate = saved[2], output = saved[3];
        const V cell = n[1];
        const V d_h = d[0], d_c = d[1];
        const auto tanh_cell = tanh(cell);
        const auto d_output = d_h * tanh_cell;
        const auto dx_o = d_output * output * (T(1.0) - output);
        const auto dp_o = dx_o * cell;
        const auto d_cell = d_c + d_h * output * (T(1.0) - tanh_cell * tanh_cell) + dx_o * p_o;
        const auto d_input = d_cell * candidate;
        const auto d_candidate = d_cell * input;
        const auto d_forget = d_cell * s_c;
        const auto dx_g = d_candidate * (T(1.0) - candidate * candidate);
        const auto dx_f = d_forget * forget * (T(1.0) - forget);
        const auto dp_f = dx_f * s_c;
        const auto dx_i = d_input * input * (T(1.0) - input);
        const auto dp_i = dx_i * s_c;
        const auto ds_c = d_cell * forget + dx_f * p_f + dx_i * p_i;
        dx[0] = dx_i; dx[1] = dx_f; dx[2] = dx_g; dx[3] = dx_o;
        dr[0] = dx_i; dr[1] = dx_f; dr[2] = dx_g; dr[3] = dx_o;
        ds[0] = V{}; ds[1] = ds_c;
        dp[0] = dp_i; dp[1] = dp_f; dp[2] = dp_o;
    }
};

struct CIFG {
    static constexpr const char* name = "cifg";
    static constexpr int gates = 3, recurrent_gates = 3, states = 2, parameters = 0, saves = 3;
    static constexpr std::array<int, 3> shared{0, 1, 2};
    static constexpr std::array<bool, 2> previous{false, true};
    static constexpr std::array<bool, 2> next{false, true};

    // LSTM with coupled input and forget gates (Greff et al. 2015, arXiv:1503.04069): i = 1 - f.
    //
    // forget = sigmoid(x.f + r.f)
    // candidate = tanh(x.g + r.g)
    // output = sigmoid(x.o + r.o)
    // cell = forget * s.c + (1 - forget) * candidate
    // return output * tanh(cell), cell
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        using T = scalar<V>;
        const V x_f = x[0], x_g = x[1], x_o = x[2];
        const V r_f = r[0], r_g = r[1], r_o = r[2];
        const V s_c = s[1];
        const auto forget = sigmoid(x_f + r_f);
        const auto candidate = tanh(x_g + r_g);
        const auto output = sigmoid(x_o + r_o);
        const auto cell = forget * s_c + (T(1.0) - forget) * candidate;
        const auto h = output * tanh(cell);
        n[0] = h; n[1] = cell;
        saved[0] = forget; saved[1] = candidate; saved[2] = output;
    }

    // Gradients of cifg_forward, which saved forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_c = s[1];
        const V forget = saved[0], candidate = saved[1], output = saved[2];
        const V cell = n[1];
        const V d_h = d[0], d_c = d[1];
        const auto one_minus_forget = T(1.0) - forget;
        const auto tanh_cell = tanh(cell);
        const auto d_output = d_h * tanh_cell;
        const auto d_cell = d_c + d_h * output * (T(1.0) - tanh_cell * tanh_cell);
        const auto d_candidate = d_cell * one_minus_forget;
        const auto ds_c = d_cell * forget;
        const auto d_forget = d_cell * (s_c - candidate);
        const auto dx_o = d_output * output * (T(1.0) - output);
        const auto dx_g = d_candidate * (T(1.0) - candidate * candidate);
        const auto dx_f = d_forget * forget * one_minus_forget;
        dx[0] = dx_f; dx[1] = dx_g; dx[2] = dx_o;
        dr[0] = dx_f; dr[1] = dx_g; dr[2] = dx_o;
        ds[0] = V{}; ds[1] = ds_c;
    }
};

struct JANET {
    static constexpr const char* name = "janet";
    static constexpr int gates = 2, recurrent_gates = 2, states = 1, parameters = 0, saves = 2;
    static constexpr std::array<int, 2> shared{0, 1};
    static constexpr std::array<bool, 1> previous{true};
    static constexpr std::array<bool, 1> next{false};

    // LSTM with nothing but its forget gate (van der Westhuizen & Lasenby 2018, arXiv:1804.04849), β = 0.
    //
    // forget = sigmoid(x.f + r.f)
    // candidate = tanh(x.g + r.g)
    // return forget * s.h + (1 - forget) * candidate
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        using T = scalar<V>;
        const V x_f = x[0], x_g = x[1];
        const V r_f = r[0], r_g = r[1];
        const V s_h = s[0];
        const auto forget = sigmoid(x_f + r_f);
        const auto candidate = tanh(x_g + r_g);
        const auto h = forget * s_h + (T(1.0) - forget) * candidate;
        n[0] = h;
        saved[0] = forget; saved[1] = candidate;
    }

    // Gradients of janet_forward, which saved forget, candidate.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_h = s[0];
        const V forget = saved[0], candidate = saved[1];
        const V d_h = d[0];
        const auto one_minus_forget = T(1.0) - forget;
        const auto d_candidate = d_h * one_minus_forget;
        const auto ds_h = d_h * forget;
        const auto d_forget = d_h * (s_h - candidate);
        const auto dx_g = d_candidate * (T(1.0) - candidate * candidate);
        const auto dx_f = d_forget * forget * one_minus_forget;
        dx[0] = dx_f; dx[1] = dx_g;
        dr[0] = dx_f; dr[1] = dx_g;
        ds[0] = ds_h;
    }
};

struct LiGRU {
    static constexpr const char* name = "ligru";
    static constexpr int gates = 2, recurrent_gates = 2, states = 1, parameters = 0, saves = 2;
    static constexpr std::array<int, 2> shared{0, 1};
    static constexpr std::array<bool, 1> previous{true};
    static constexpr std::array<bool, 1> next{false};

    // Light GRU (Ravanelli et al. 2018, arXiv:1803.10225): no reset gate, a rectifier; without its batch norm.
    //
    // update = sigmoid(x.z + r.z)
    // candidate = relu(x.h + r.h)
    // return update * s.h + (1 - update) * candidate
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        using T = scalar<V>;
        const V x_z = x[0], x_h = x[1];
        const V r_z = r[0], r_h = r[1];
        const V s_h = s[0];
        const auto update = sigmoid(x_z + r_z);
        const auto candidate = relu(x_h + r_h);
        const auto h = update * s_h + (T(1.0) - update) * candidate;
        n[0] = h;
        saved[0] = update; saved[1] = candidate;
    }

    // Gradients of ligru_forward, which saved update, candidate.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_h = s[0];
        const V update = saved[0], candidate = saved[1];
        const V d_h = d[0];
        const auto one_minus_update = T(1.0) - update;
        const auto d_candidate = d_h * one_minus_update;
        const auto ds_h = d_h * update;
        const auto d_update = d_h * (s_h - candidate);
        const auto dx_h = where(candidate > T(0.0), d_candidate, T(0.0));
        const auto dx_z = d_update * update * one_minus_update;
        dx[0] = dx_z; dx[1] = dx_h;
        dr[0] = dx_z; dr[1] = dx_h;
        ds[0] = ds_h;
    }
};

struct IndRNN {
    static constexpr const char* name = "indrnn";
    static constexpr int gates = 1, recurrent_gates = 0, states = 1, parameters = 1, saves = 0;
    static constexpr std::array<int, 0> shared{};
    static constexpr std::array<bool, 1> previous{true};
    static constexpr std::array<bool, 1> next{true};

    // Independently recurrent network (Li et al. 2018, arXiv:1803.04831): each unit sees only its own past.
    //
    // return relu(x.h + p.u * s.h)
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_h = x[0];
        const V s_h = s[0];
        const V p_u = p[0];
        const auto h = relu(x_h + p_u * s_h);
        n[0] = h;
    }

    // Gradients of indrnn_forward, which saved nothing.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_h = s[0];
        const V p_u = p[0];
        const V h = n[0];
        const V d_h = d[0];
        const auto dx_h = where(h > T(0.0), d_h, T(0.0));
        const auto dp_u = dx_h * s_h;
        const auto ds_h = dx_h * p_u;
        dx[0] = dx_h;
        ds[0] = ds_h;
        dp[0] = dp_u;
    }
};

struct MinGRU {
    static constexpr const char* name = "mingru";
    static constexpr int gates = 2, recurrent_gates = 0, states = 1, parameters = 0, saves = 2;
    static constexpr std::array<int, 0> shared{};
    static constexpr std::array<bool, 1> previous{true};
    static constexpr std::array<bool, 1> next{false};

    // minGRU (Feng et al. 2024, arXiv:2410.01201), its sequential form: gates that see only the input.
    //
    // update = sigmoid(x.z)
    // return (1 - update) * s.h + update * x.h
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        using T = scalar<V>;
        const V x_z = x[0], x_h = x[1];
        const V s_h = s[0];
        const auto update = sigmoid(x_z);
        const auto h = (T(1.0) - update) * s_h + update * x_h;
        n[0] = h;
        saved[0] = x_h; saved[1] = update;
    }

    // Gradients of mingru_forward, which saved x_h, update.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_h = s[0];
        const V x_h = saved[0], update = saved[1];
        const V d_h = d[0];
        const auto one_minus_update = T(1.0) - update;
        const auto dx_h = d_h * update;
        const auto ds_h = d_h * one_minus_update;
        const auto d_update = d_h * (x_h - s_h);
        const auto dx_z = d_update * update * one_minus_update;
        dx[0] = dx_z; dx[1] = dx_h;
        ds[0] = ds_h;
    }
};

struct Jordan {
    static constexpr const char* name = "jordan";
    static constexpr int gates = 1, recurrent_gates = 1, states = 1, parameters = 0, saves = 1;
    static constexpr std::array<int, 1> shared{0};
    static constexpr std::array<bool, 1> previous{false};
    static constexpr std::array<bool, 1> next{false};

    // Jordan's network (Jordan 1986): its output is fed back, a projection of the hidden units (``proj_size``).
    //
    // return tanh(x.h + r.h)
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        const V x_h = x[0];
        const V r_h = r[0];
        const auto h = tanh(x_h + r_h);
        n[0] = h;
        saved[0] = h;
    }

    // Gradients of jordan_forward, which saved h.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V h = saved[0];
        const V d_h = d[0];
        const auto dx_h = d_h * (T(1.0) - h * h);
        dx[0] = dx_h;
        dr[0] = dx_h;
        ds[0] = V{};
    }
};

struct SLSTM {
    static constexpr const char* name = "slstm";
    static constexpr int gates = 4, recurrent_gates = 4, states = 4, parameters = 0, saves = 4;
    static constexpr std::array<int, 4> shared{0, 1, 2, 3};
    static constexpr std::array<bool, 4> previous{false, true, true, true};
    static constexpr std::array<bool, 4> next{false, true, true, true};

    // xLSTM's scalar LSTM (Beck et al. 2024, arXiv:2405.04517): exponential input gate, normaliser n, stabiliser m.
    //
    // log_input = x.i + r.i
    // log_forget = log_sigmoid(x.f + r.f)
    // carried = where(s.n > 0, log_forget + s.m, NOTHING)
    // stabiliser = maximum(carried, log_input)
    // input = exp(log_input - stabiliser)
    // forget = exp(carried - stabiliser)
    // candidate = tanh(x.z + r.z)
    // output = sigmoid(x.o + r.o)
    // cell = forget * s.c + input * candidate
    // normaliser = forget * s.n + input
    // return output * cell / normaliser, cell, normaliser, stabiliser
    template <class V>
    SEQCELLS_INLINE static void forward(const V* x, const V* r, const V* s, const V* p, V* n, V* saved) {
        using T = scalar<V>;
        const V x_i = x[0], x_f = x[1], x_z = x[2], x_o = x[3];
        const V r_i = r[0], r_f = r[1], r_z = r[2], r_o = r[3];
        const V s_c = s[1], s_n = s[2], s_m = s[3];
        const auto log_input = x_i + r_i;
        const auto log_forget = log_sigmoid(x_f + r_f);
        const auto carried = where(s_n > T(0.0), log_forget + s_m, T(-1e30));
        const auto stabiliser = maximum(carried, log_input);
        const auto input = exp(log_input - stabiliser);
        const auto forget = exp(carried - stabiliser);
        const auto candidate = tanh(x_z + r_z);
        const auto output = sigmoid(x_o + r_o);
        const auto cell = forget * s_c + input * candidate;
        const auto normaliser = forget * s_n + input;
        const auto h = output * cell / normaliser;
        n[0] = h; n[1] = cell; n[2] = normaliser; n[3] = stabiliser;
        saved[0] = log_input; saved[1] = log_forget; saved[2] = candidate; saved[3] = output;
    }

    // Gradients of slstm_forward, which saved log_input, log_forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V s_c = s[1], s_n = s[2], s_m = s[3];
        const V log_input = saved[0], log_forget = saved[1], candidate = saved[2], output = saved[3];
        const V cell = n[1], normaliser = n[2], stabiliser = n[3];
        const V d_h = d[0], d_c = d[1], d_n = d[2], d_m = d[3];
        const auto t1 = s_n > T(0.0);
        const auto carried = where(t1, log_forget + s_m, T(-1e30));
        const auto input = exp(log_input - stabiliser);
        const auto forget = exp(carried - stabiliser);
        const auto h = output * cell / normaliser;
        const auto t2 = d_h / normaliser;
        const auto d_normaliser = d_n - t2 * h;
        const auto d_output = t2 * cell;
        const auto d_cell = d_c + t2 * output;
        const auto ds_n = d_normaliser * forget;
        const auto d_candidate = d_cell * input;
        const auto d_input = d_normaliser + d_cell * candidate;
        const auto ds_c = d_cell * forget;
        const auto d_forget = d_normaliser * s_n + d_cell * s_c;
        const auto dx_o = d_output * output * (T(1.0) - output);
        const auto dx_z = d_candidate * (T(1.0) - candidate * candidate);
        const auto t3 = d_forget * forget;
        const auto t4 = d_input * input;
        const auto d_stabiliser = d_m - t3 - t4;
        const auto t5 = carried > log_input;
        const auto t6 = log_input > carried;
        const auto t7 = d_stabiliser / T(2.0);
        const auto d_carried = t3 + where(t5, d_stabiliser, where(t6, T(0.0), t7));
        const auto d_log_input = t4 + where(t6, d_stabiliser, where(t5, T(0.0), t7));
        const auto d_log_forget = where(t1, d_carried, T(0.0));
        const auto dx_f = -(d_log_forget * expm1(log_forget));
        dx[0] = d_log_input; dx[1] = dx_f; dx[2] = dx_z; dx[3] = dx_o;
        dr[0] = d_log_input; dr[1] = dx_f; dr[2] = dx_z; dr[3] = dx_o;
        ds[0] = V{}; ds[1] = ds_c; ds[2] = ds_n; ds[3] = d_log_forget;
    }
};

}  // namespace
}  // namespace seqcells

// All of them: X is applied to each struct.
#define SEQCELLS_CELLS(X) X(LSTM) X(GRU) X(RNNTanh) X(RNNReLU) X(PeepholeLSTM) X(CIFG) X(JANET) X(LiGRU) X(IndRNN) X(MinGRU) X(Jordan) X(SLSTM)
