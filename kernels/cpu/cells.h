// The cells' kernels, one step forward and backward. Made from seqcells/cells by `make cells`: do not edit.
//
// Elementwise, in float32 or float64, over arrays of vectors V (results may be written over arguments):
//
//     forward(x, r, s, p, n, saved)                  computes n, saved
//     backward(saved, s, n, p, d, dx, dr, ds, dp)    computes dx, dr, ds, dp
//
// in the order in which the cell names their parts. x: W_ih x_t + b_ih for each gate; r: W_hh h_(t-1) + b_hh for
// each recurrent gate; s: the states before the step; p: the rows of the per-unit parameters; n: the new states,
// before any projection; d: the gradients of n. ds lacks what comes through r; dp is to be summed over time and
// batch.
//
// Of each cell: saved, what forward keeps for backward; shared, for each recurrent gate the gate whose dx is the
// same as its dr (`step` has only their sum), or -1; previous and next, which of s and n backward reads: the others
// may hold anything.

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

    // Gradients of lstm_forward, from what it saved: input, forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V input = saved[0], forget = saved[1], candidate = saved[2], output = saved[3];
        const V s_c = s[1];
        const V n_c = n[1];
        const V d_h = d[0], d_c = d[1];
        const auto tanh_cell = tanh(n_c);
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

    // Gradients of gru_forward, from what it saved: r_n, reset, update, new.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V r_n = saved[0], reset = saved[1], update = saved[2], new_ = saved[3];
        const V s_h = s[0];
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

    // Gradients of rnn_tanh_forward, from what it saved: nothing.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V n_h = n[0];
        const V d_h = d[0];
        const auto dx_h = d_h * (T(1.0) - n_h * n_h);
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

    // Gradients of rnn_relu_forward, from what it saved: nothing.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V n_h = n[0];
        const V d_h = d[0];
        const auto dx_h = where(n_h > T(0.0), d_h, T(0.0));
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

    // Gradients of peephole_lstm_forward, from what it saved: input, forget, candidate, output.
    template <class V>
    SEQCELLS_INLINE static void backward(const V* saved, const V* s, const V* n, const V* p, const V* d, V* dx, V* dr, V* ds, V* dp) {
        using T = scalar<V>;
        const V input = saved[0], forget = saved[1], candidate = saved[2], output = saved[3];
        const V s_c = s[1];
        const V n_c = n[1];
        const V p_i = p[0], p_f = p[1], p_o = p[2];
        const V d_h = d[0], d_c = d[1];
        const auto tanh_cell = tanh(n_c);
        const auto d_output = d_h * tanh_cell;
        const auto dx_o = d_output * output * (T(1.0) - output);
        const auto dp_o = dx_o * n_c;
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

}  // namespace
}  // namespace seqcells

// All of them: X is applied to each struct.
#define SEQCELLS_CELLS(X) X(LSTM) X(GRU) X(RNNTanh) X(RNNReLU) X(PeepholeLSTM)
