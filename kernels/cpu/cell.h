// A cell's elementwise part over the rows of a block: all that is compiled for each cell.

#pragma once

#include "cells.h"
#include "step.h"
#include "vector.h"

namespace seqcells {
namespace {

// Numbers of T, or of bfloat16 in its place: the caller's arrays.
template <class T>
class Array {
  public:
    Array(const void* at, bool halves) : at_(const_cast<void*>(at)), halves_(halves) {}
    Array(const void* at, const Problem& p) : Array(at, p.halves) {}

    SEQCELLS_INLINE Vector<T> load(int64_t from, int64_t count = LANES<T>) const {
        if constexpr (std::is_same_v<T, float>)
            if (halves_) return seqcells::load(static_cast<const bfloat16*>(at_) + from, count);
        return seqcells::load(static_cast<const T*>(at_) + from, count);
    }
    SEQCELLS_INLINE void store(int64_t to, Vector<T> value, int64_t count) const {
        if constexpr (std::is_same_v<T, float>)
            if (halves_) return seqcells::store(static_cast<bfloat16*>(at_) + to, value, count);
        seqcells::store(static_cast<T*>(at_) + to, value, count);
    }
    T operator[](int64_t k) const {
        if constexpr (std::is_same_v<T, float>)
            if (halves_) return static_cast<const bfloat16*>(at_)[k];
        return static_cast<const T*>(at_)[k];
    }
    void set(int64_t k, T value) const {
        if constexpr (std::is_same_v<T, float>)
            if (halves_) {
                static_cast<bfloat16*>(at_)[k] = value;
                return;
            }
        static_cast<T*>(at_)[k] = value;
    }
    // Asks for some numbers before they are read or, WRITE, written. A step touches a little of each of many arrays, too
    // little for the hardware to foresee the next.
    template <int WRITE>
    SEQCELLS_INLINE void expect(int64_t from, int64_t count) const {
        const int64_t size = halves_ ? sizeof(bfloat16) : sizeof(T);
        const char *line = static_cast<const char*>(at_) + from * size, *last = line + count * size;
        for (; line < last; line += 64) __builtin_prefetch(line, WRITE, 2);
    }
    explicit operator bool() const { return at_; }

  private:
    void* at_;
    bool halves_;
};

// Which step comes when, and what happens to a row before and in it.
struct Times {
    const Problem& p;

    int64_t at(int64_t index) const { return p.reverse ? p.steps - 1 - index : index; }
    bool valid(int64_t t, int64_t row) const { return !p.lengths || t < p.lengths[row]; }
    // Whether the state is reset just before step t, in the direction of travel.
    bool boundary(int64_t t, int64_t row) const {
        const int64_t flag = p.reverse ? t + 1 : t;
        return p.reset && flag < p.steps && valid(flag, row) && p.reset[flag * p.batch + row];
    }
};

// What a state becomes at a boundary.
template <class T>
SEQCELLS_INLINE Vector<T> fresh(const Problem& p, int state, int64_t row, int64_t unit, int64_t count) {
    return p.reset_states[state] ? Array<T>(p.reset_states[state], p).load(row * (state ? p.hidden : p.projected) + unit, count) : Vector<T>{};
}

// The hidden state after a step: what the next one reads, or the final one.
template <class T>
SEQCELLS_INLINE void keep_hidden(const Step<T>& s, int64_t row, int64_t unit, Vector<T> value) {
    const Problem& p = *s.p;
    const Times times{p};
    const int64_t count = p.projected - unit;
    if (s.index + 1 == p.steps) {
        Array<T>(p.final[0], p).store(row * p.projected + unit, value, count);
        return;
    }
    if (times.boundary(times.at(s.index + 1), row)) value = fresh<T>(p, 0, row, unit, count);
    store(s.next + row * p.projected + unit, value, count);
    if (s.pairs) Array<T>(s.operands, true).store(row * s.operands_width + unit, value, count);
}

// What a row of a block will read and write; rows behind the last are the first ones of what is likely to come next.
template <class Cell, class T>
SEQCELLS_INLINE void expect_forward(const Step<T>& s, int64_t row) {
    const Problem& p = *s.p;
    int64_t unit = s.unit, vectors = s.vectors, index = s.index;
    if (row >= s.row1) {
        if (s.next_unit < 0 || (row += s.row0 - s.row1) >= s.row1) return;
        unit = s.next_unit, vectors = s.next_vectors, index = s.next_index;
    }
    const int64_t H = p.hidden, count = H - unit < vectors * LANES<T> ? H - unit : vectors * LANES<T>;
    const int64_t place = Times{p}.at(index) * p.batch + row;
    if (p.gates_x)
        for (int gate = 0; gate < Cell::gates; ++gate)
            Array<T>(p.gates_x, p).template expect<0>(place * p.gates_width + gate * H + unit, count);
    if (p.saved)
        for (int k = 0; k < Cell::saves; ++k)
            Array<T>(p.saved, false).template expect<1>((place * Cell::saves + k) * H + unit, count);
    for (int state = 0; state < Cell::states; ++state)
        if (p.path[state]) Array<T>(p.path[state], false).template expect<1>(place * H + unit, count);
    if (!p.weight_hr) Array<T>(p.output, p).template expect<1>(place * p.output_width + unit, count);
}

template <class Cell, class T>
void forward_rows(const void* step) {
    const auto& s = *static_cast<const Step<T>*>(step);
    using V = Vector<T>;
    constexpr int L = LANES<T>, G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    const Problem& p = *s.p;
    const Times times{p};
    const int64_t H = p.hidden, t = times.at(s.index);
    const bool last = s.index + 1 == p.steps;
    const Array<T> bias_ih(p.bias_ih, p), bias_hh(p.bias_hh, p);
    for (int64_t row = s.row0; row < s.row1; ++row) {
        expect_forward<Cell>(s, row + 8);
        const int64_t place = t * p.batch + row;
        const bool valid = times.valid(t, row), boundary = !last && times.boundary(times.at(s.index + 1), row);
        const T* inputs = s.inputs + (row - s.row0) * s.inputs_width;
        const T* products = s.products + (row - s.row0) * s.products_width;
        for (int sub = 0; sub < s.vectors; ++sub) {
            const int64_t unit = s.unit + sub * L, count = H - unit;
            V x[G], r[R + 1], old[S], u[Cell::parameters + 1], n[S], saved[Cell::saves + 1];
            for (int gate = 0; gate < G; ++gate) {
                x[gate] = s.inputs ? load(inputs + (gate * s.vectors + sub) * L)
                                   : Array<T>(p.gates_x, p).load(place * p.gates_width + gate * H + unit, count);
                if (s.inputs && bias_ih) x[gate] += bias_ih.load(gate * H + unit, count);
            }
            for (int gate = 0; gate < R; ++gate) {
                r[gate] = load(products + (gate * s.vectors + sub) * L);
                if (bias_hh) r[gate] += bias_hh.load(gate * H + unit, count);
            }
            for (int k = 0; k < Cell::parameters; ++k) u[k] = Array<T>(p.unit, p).load(k * H + unit, count);
            old[0] = p.weight_hr ? V{} : load(s.now + row * H + unit, count);
            for (int state = 1; state < S; ++state) old[state] = load(s.states + (state * p.batch + row) * s.states_width + unit);
            if (valid) {
                Cell::template forward<V>(x, r, old, u, n, saved);
            } else {
                for (int state = 0; state < S; ++state) n[state] = old[state];
                for (int k = 0; k < Cell::saves; ++k) saved[k] = V{};
            }
            if (p.saved)
                for (int k = 0; k < Cell::saves; ++k)
                    store(static_cast<T*>(p.saved) + (place * Cell::saves + k) * H + unit, saved[k], count);
            for (int state = 0; state < S; ++state)
                if (p.path[state]) store(static_cast<T*>(p.path[state]) + place * H + unit, n[state], count);
            if (p.weight_hr) {
                if (s.pairs)
                    Array<T>(s.unprojected, true).store(row * s.unprojected_width + unit, n[0], count);
                else
                    store(static_cast<T*>(s.unprojected) + row * s.unprojected_width + unit, n[0], count);
            } else {
                Array<T>(p.output, p).store(place * p.output_width + unit, valid ? n[0] : V{}, count);
                keep_hidden(s, row, unit, n[0]);
            }
            for (int state = 1; state < S; ++state) {
                if (last) Array<T>(p.final[state], p).store(row * H + unit, n[state], count);
                store(s.states + (state * p.batch + row) * s.states_width + unit, boundary ? fresh<T>(p, state, row, unit, count) : n[state]);
            }
        }
    }
}

template <class Cell, class T>
SEQCELLS_INLINE void expect_backward(const Step<T>& s, int64_t row) {
    const Problem& p = *s.p;
    int64_t unit = s.unit, vectors = s.vectors, index = s.index;
    if (row >= s.row1) {
        if (s.next_unit < 0 || (row += s.row0 - s.row1) >= s.row1) return;
        unit = s.next_unit, vectors = s.next_vectors, index = s.next_index;
    }
    const Times times{p};
    const int64_t H = p.hidden, count = H - unit < vectors * LANES<T> ? H - unit : vectors * LANES<T>;
    const int64_t place = times.at(index) * p.batch + row;
    for (int k = 0; k < Cell::saves; ++k) Array<T>(p.saved, false).template expect<0>((place * Cell::saves + k) * H + unit, count);
    for (int gate = 0; gate < Cell::gates; ++gate)
        Array<T>(p.grad_gates_x, p).template expect<1>(place * p.gates_width + gate * H + unit, count);
    if (!p.weight_hr) Array<T>(p.grad_output, p).template expect<0>(place * p.output_width + unit, count);
    for (int state = 1; state < Cell::states && index; ++state)
        if (Cell::previous[state])
            Array<T>(p.path[state], false).template expect<0>((times.at(index - 1) * p.batch + row) * H + unit, count);
}

// A state before a step.
template <class T>
SEQCELLS_INLINE Vector<T> previous(const Problem& p, int state, int64_t index, int64_t row, int64_t unit, int64_t count) {
    const Times times{p};
    const int64_t t = times.at(index), H = p.hidden;
    if (state == 0) return Array<T>(p.previous_hidden, p).load((t * p.batch + row) * p.projected + unit, count);
    if (times.boundary(t, row)) return fresh<T>(p, state, row, unit, count);
    if (index == 0) return Array<T>(p.initial[state], p).load(row * H + unit, count);
    return load(static_cast<const T*>(p.path[state]) + (times.at(index - 1) * p.batch + row) * H + unit, count);
}

constexpr int64_t SUMMED = 8;  // terms of a sum in the type that is computed in; sums of those are float64

template <class T>
SEQCELLS_INLINE void add_in_double(double* totals, Vector<T> value, int64_t count) {
    typedef double Doubles __attribute__((vector_size(LANES<T> * sizeof(double))));
    if (count < LANES<T>) {
        for (int lane = 0; lane < count; ++lane) totals[lane] += value[lane];
        return;
    }
    Doubles all;
    std::memcpy(&all, totals, sizeof all);
    all += __builtin_convertvector(value, Doubles);
    std::memcpy(totals, &all, sizeof all);
}

// A term of a sum over steps and rows.
template <class T>
SEQCELLS_INLINE void add_up(const Step<T>& s, int64_t place, Vector<T> value, bool full, int64_t count) {
    value += load(s.sums + place, count);
    if (full) {
        add_in_double<T>(s.totals + place, value, count);
        value = Vector<T>{};
    }
    store(s.sums + place, value, count);
}

template <class Cell, class T>
void backward_rows(const void* step) {
    const auto& s = *static_cast<const Step<T>*>(step);
    using V = Vector<T>;
    constexpr int L = LANES<T>, G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    constexpr int U = [] {
        int count = 0;
        for (int gate = 0; gate < R; ++gate) count += Cell::shared[gate] < 0;
        return count;
    }();
    const Problem& p = *s.p;
    const Times times{p};
    const int64_t H = p.hidden, t = times.at(s.index);
    for (int64_t row = s.row0; row < s.row1; ++row) {
        expect_backward<Cell>(s, row + 4);
        const int64_t place = t * p.batch + row;
        const bool valid = times.valid(t, row), full = (s.terms + row - s.row0 + 1) % SUMMED == 0;
        const bool boundary = times.boundary(t, row);
        for (int sub = 0; sub < s.vectors; ++sub) {
            const int64_t unit = s.unit + sub * L, count = H - unit;
            V x[G], r[R + 1], old[S], n[S], u[Cell::parameters + 1], d[S], saved[Cell::saves + 1], ds[S], du[Cell::parameters + 1];
            if (valid) {
                for (int k = 0; k < Cell::saves; ++k)
                    saved[k] = load(static_cast<const T*>(p.saved) + (place * Cell::saves + k) * H + unit, count);
                for (int k = 0; k < Cell::parameters; ++k) u[k] = Array<T>(p.unit, p).load(k * H + unit, count);
                for (int state = 0; state < S; ++state) {
                    old[state] = Cell::previous[state] ? previous<T>(p, state, s.index, row, unit, count) : V{};
                    n[state] = V{};
                    if (Cell::next[state])
                        n[state] = p.path[state] ? load(static_cast<const T*>(p.path[state]) + place * H + unit, count)
                                                 : Array<T>(p.output, p).load(place * p.output_width + unit, count);
                    if (state) d[state] = load(s.states + (state * p.batch + row) * s.states_width + unit, count);
                }
                d[0] = p.weight_hr ? load(s.products + (row - s.row0) * s.products_width + sub * L)
                                   : load(s.hidden + row * H + unit, count) +
                                         Array<T>(p.grad_output, p).load(place * p.output_width + unit, count);
                Cell::template backward<V>(saved, old, n, u, d, x, r, ds, du);
                for (int state = 1; state < S; ++state) store(s.states + (state * p.batch + row) * s.states_width + unit, ds[state], count);
                if (!p.weight_hr) store(s.hidden + row * H + unit, ds[0], count);
            } else {
                // The state was left alone, and so is its gradient.
                for (int gate = 0; gate < G; ++gate) x[gate] = V{};
                for (int gate = 0; gate < R; ++gate) r[gate] = V{};
                for (int k = 0; k < Cell::parameters; ++k) du[k] = V{};
            }
            for (int gate = 0; gate < G; ++gate) {
                Array<T>(p.grad_gates_x, p).store(place * p.gates_width + gate * H + unit, x[gate], count);
                if (s.with_biases) add_up(s, gate * H + unit, x[gate], full, count);
            }
            int own = 0;
            for (int gate = 0; gate < R; ++gate) {
                if (s.pairs)
                    Array<T>(s.operands, true).store(row * s.operands_width + gate * H + unit, r[gate], count);
                else
                    store(static_cast<T*>(s.operands) + row * s.operands_width + gate * H + unit, r[gate], count);
                if (Cell::shared[gate] < 0) {
                    Array<T>(p.grad_product, p).store((place * U + own) * H + unit, r[gate], count);
                    if (s.with_biases) add_up(s, (G + own) * H + unit, r[gate], full, count);
                    ++own;
                }
            }
            for (int k = 0; k < Cell::parameters; ++k) add_up(s, (G + U + k) * H + unit, du[k], full, count);
            // At a boundary what was carried goes to the reset states instead.
            for (int state = 1; state < S && boundary; ++state) {
                T* carried = s.states + (state * p.batch + row) * s.states_width + unit;
                T* to = static_cast<T*>(p.grad_reset[state]) + row * H + unit;
                if (p.grad_reset[state]) store(to, load(to, count) + load(carried, count), count);
                store(carried, V{}, count);
            }
        }
    }
}

template <class C, class T>
constexpr Cell cell_of() {
    return {C::name,          C::gates,         C::recurrent_gates, C::states,          C::parameters,        C::saves,
            C::shared.data(), C::previous.data(), C::next.data(),   forward_rows<C, T>, backward_rows<C, T>};
}

}  // namespace
}  // namespace seqcells
