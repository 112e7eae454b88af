// A cell's elementwise part over the rows of a block: all that is compiled for each cell.

#pragma once

#include "arrays.h"
#include "cells.h"
#include "step.h"
#include "sums.h"

namespace seqcells {
namespace {

using Times = TimesOf<Problem>;

// What a state becomes at a boundary.
template <class T, class V = Vector<T>>
SEQCELLS_INLINE V fresh(const Problem& p, int state, int64_t row, int64_t unit, int64_t count) {
    return p.reset_states[state] ? Array<T>(p.reset_states[state], p.halves).template load<V>(row * (state ? p.hidden : p.projected) + unit, count) : V{};
}

// The hidden state after a step: what the next one reads, or the final one.
template <class T, class V>
SEQCELLS_INLINE void keep_hidden(const Problem& p, const Step<T>& s, int64_t row, int64_t unit, V value, bool boundary, int64_t count, bool halves) {
    if (s.index + 1 == p.steps) {
        Array<T>(p.final[0], halves).store(row * p.projected + unit, value, count);
        return;
    }
    if (boundary) value = fresh<T, V>(p, 0, row, unit, count);
    store(s.next + row * s.hidden_width + unit, value, count);
    if (s.pairs) Array<T>(s.operands, true).store(row * s.operands_width + unit, value, count);
}

// Rows behind the last are the first ones of what is likely to come next. Returns whether there is such a row.
template <class T>
SEQCELLS_INLINE bool looks_ahead(const Step<T>& s, int64_t& row, int64_t& unit, int64_t& vectors, int64_t& index) {
    if (row < s.row1) return true;
    unit = s.next_unit, vectors = s.next_vectors, index = s.next_index;
    return unit >= 0 && (row += s.row0 - s.row1) < s.row1;
}

// What a row of a block will read and write.
template <class Cell, class T>
SEQCELLS_INLINE void expect_forward(const Step<T>& s, int64_t row) {
    const Problem& p = *s.p;
    int64_t unit = s.unit, vectors = s.vectors, index = s.index;
    if (!looks_ahead(s, row, unit, vectors, index)) return;
    const int64_t H = p.hidden, count = H - unit < vectors * LANES<T> ? H - unit : vectors * LANES<T>;
    const int64_t place = Times{p}.at(index) * p.batch + row;
    if (p.gates_x)
        for (int gate = 0; gate < Cell::gates; ++gate)
            Array<T>(p.gates_x, p.halves).template expect<0>(place * p.gates_width + gate * H + unit, count);
    if (p.saved)
        for (int k = 0; k < Cell::saves; ++k)
            Array<T>(p.saved, false).template expect<1>((place * Cell::saves + k) * H + unit, count);
    for (int state = 0; state < Cell::states; ++state)
        if (p.path[state]) Array<T>(p.path[state], false).template expect<1>(place * H + unit, count);
    if (!p.weight_hr) Array<T>(p.output, p.halves).template expect<1>(place * p.output_width + unit, count);
}

// Whether vectors of units are computed two and three side by side. That takes time to compile, so only float32 has it, and
// only where vectors are wide.
template <class T>
constexpr bool SIDE_BY_SIDE_UNITS = std::is_same_v<T, float> && VECTOR_BYTES > 16;

// Some vectors of units of one row: N whole ones, where no array is of bfloat16, or by 0 one of any kind. Nearly all are of
// the first sort, and need no questions.
template <class Cell, class T, int N>
SEQCELLS_INLINE void forward_units(const Problem& p, const Step<T>& s, int64_t row, int sub, bool valid, bool boundary) {
    // One alone too is of the type of several: the compiler then joins the same products and sums to one rounding.
    using V = Several<Vector<T>, N ? N : 1>;
    constexpr int L = LANES<T>, G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    const bool halves = N == 0 && p.halves, last = s.index + 1 == p.steps;
    const int64_t H = p.hidden, unit = s.unit + sub * L, count = N ? L : H - unit, place = Times{p}.at(s.index) * p.batch + row;
    const T* inputs = s.inputs + (row - s.row0) * s.inputs_width + sub * L;
    const T* products = s.products + (row - s.row0) * s.products_width + sub * L;
    const Array<T> bias_ih(p.bias_ih, halves), bias_hh(p.bias_hh, halves), gates_x(p.gates_x, halves), of_units(p.unit, halves);
    V x[G], r[R + 1], old[S], u[Cell::parameters + 1], n[S], saved[Cell::saves + 1];
    if (s.inputs) {
        for (int gate = 0; gate < G; ++gate) x[gate] = load_as<V>(inputs + gate * s.vectors * L, L);
        if (bias_ih)
            for (int gate = 0; gate < G; ++gate) x[gate] += bias_ih.template load<V>(gate * H + unit, count);
    } else {
        for (int gate = 0; gate < G; ++gate) x[gate] = gates_x.template load<V>(place * p.gates_width + gate * H + unit, count);
    }
    for (int gate = 0; gate < R; ++gate) r[gate] = load_as<V>(products + gate * s.vectors * L, L);
    if (bias_hh)
        for (int gate = 0; gate < R; ++gate) r[gate] += bias_hh.template load<V>(gate * H + unit, count);
    for (int k = 0; k < Cell::parameters; ++k) u[k] = of_units.template load<V>(k * H + unit, count);
    old[0] = p.weight_hr ? V{} : load_as<V>(s.now + row * s.hidden_width + unit, count);
    for (int state = 1; state < S; ++state) old[state] = load_as<V>(s.states + (state * p.batch + row) * s.states_width + unit, L);
    if (valid) {
        Cell::template forward<V>(x, r, old, u, n, saved);
    } else {
        for (int state = 0; state < S; ++state) n[state] = old[state];
        for (int k = 0; k < Cell::saves; ++k) saved[k] = V{};
    }
    if (p.saved)
        for (int k = 0; k < Cell::saves; ++k) store(static_cast<T*>(p.saved) + (place * Cell::saves + k) * H + unit, saved[k], count);
    for (int state = 0; state < S; ++state)
        if (p.path[state]) store(static_cast<T*>(p.path[state]) + place * H + unit, n[state], count);
    if (p.weight_hr) {
        if (s.pairs)
            Array<T>(s.unprojected, true).store(row * s.unprojected_width + unit, n[0], count);
        else
            store(static_cast<T*>(s.unprojected) + row * s.unprojected_width + unit, n[0], count);
    } else {
        Array<T>(p.output, halves).store(place * p.output_width + unit, valid ? n[0] : V{}, count);
        keep_hidden(p, s, row, unit, n[0], boundary, count, halves);
    }
    for (int state = 1; state < S; ++state) {
        if (last) Array<T>(p.final[state], halves).store(row * H + unit, n[state], count);
        store(s.states + (state * p.batch + row) * s.states_width + unit, boundary ? fresh<T, V>(p, state, row, unit, count) : n[state], L);
    }
}
template <class Cell, class T>
__attribute__((noinline)) void forward_any_units(const Step<T>& s, int64_t row, int sub, bool valid, bool boundary) {
    forward_units<Cell, T, 0>(*s.p, s, row, sub, valid, boundary);
}

template <class Cell, class T>
void forward_rows(const void* step) {
    const auto& s = *static_cast<const Step<T>*>(step);
    const Problem& p = *s.p;
    const Times times{p};
    const int64_t whole = p.halves || s.pairs ? 0 : (p.hidden - s.unit) / LANES<T>;
    const int wide = whole < s.vectors ? int(whole) : s.vectors;
    for (int64_t row = s.row0; row < s.row1; ++row) {
        expect_forward<Cell>(s, row + 8);
        const bool valid = times.valid(times.at(s.index), row), boundary = s.index + 1 < p.steps && times.boundary(times.at(s.index + 1), row);
        int sub = 0;
        if constexpr (SIDE_BY_SIDE_UNITS<T>) {
            for (; wide - sub > 1; sub += 2)
                if ((wide - sub) % 2)
                    forward_units<Cell, T, 3>(p, s, row, sub++, valid, boundary);
                else
                    forward_units<Cell, T, 2>(p, s, row, sub, valid, boundary);
        } else {
            for (; sub < wide; ++sub) forward_units<Cell, T, 1>(p, s, row, sub, valid, boundary);
        }
        for (; sub < s.vectors; ++sub) forward_any_units<Cell, T>(s, row, sub, valid, boundary);
    }
}

template <class Cell, class T>
SEQCELLS_INLINE void expect_backward(const Step<T>& s, int64_t row) {
    const Problem& p = *s.p;
    int64_t unit = s.unit, vectors = s.vectors, index = s.index;
    if (!looks_ahead(s, row, unit, vectors, index)) return;
    const Times times{p};
    const int64_t H = p.hidden, count = H - unit < vectors * LANES<T> ? H - unit : vectors * LANES<T>;
    const int64_t place = times.at(index) * p.batch + row;
    for (int k = 0; k < Cell::saves; ++k) Array<T>(p.saved, false).template expect<0>((place * Cell::saves + k) * H + unit, count);
    for (int gate = 0; gate < Cell::gates; ++gate)
        Array<T>(p.grad_gates_x, p.halves).template expect<1>(place * p.gates_width + gate * H + unit, count);
    if (!p.weight_hr) Array<T>(p.grad_output, p.halves).template expect<0>(place * p.output_width + unit, count);
    for (int state = 1; state < Cell::states && index; ++state)
        if (Cell::previous[state])
            Array<T>(p.path[state], false).template expect<0>((times.at(index - 1) * p.batch + row) * H + unit, count);
}

// A state before a step.
template <class T>
SEQCELLS_INLINE Vector<T> previous(const Problem& p, int state, int64_t index, int64_t row, int64_t unit, int64_t count, bool halves, bool boundary) {
    const Times times{p};
    const int64_t H = p.hidden;
    if (state == 0) return Array<T>(p.previous_hidden, halves).load((times.at(index) * p.batch + row) * p.projected + unit, count);
    if (boundary) return fresh<T>(p, state, row, unit, count);
    if (index == 0) return Array<T>(p.initial[state], halves).load(row * H + unit, count);
    return load(static_cast<const T*>(p.path[state]) + (times.at(index - 1) * p.batch + row) * H + unit, count);
}

// One vector of units of one row; PLAIN as in forward.
template <class Cell, class T, bool PLAIN>
SEQCELLS_INLINE void backward_units(const Step<T>& s, int64_t row, int sub, bool valid, bool boundary, bool full) {
    using V = Vector<T>;
    constexpr int L = LANES<T>, G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    constexpr int U = [] {
        int count = 0;
        for (int gate = 0; gate < R; ++gate) count += Cell::shared[gate] < 0;
        return count;
    }();
    const Problem& p = *s.p;
    const bool halves = !PLAIN && p.halves;
    const int64_t H = p.hidden, unit = s.unit + sub * L, count = PLAIN ? L : H - unit, place = Times{p}.at(s.index) * p.batch + row;
    V x[G], r[R + 1], old[S], n[S], u[Cell::parameters + 1], d[S], saved[Cell::saves + 1], ds[S], du[Cell::parameters + 1];
    if (valid) {
        for (int k = 0; k < Cell::saves; ++k) saved[k] = load(static_cast<const T*>(p.saved) + (place * Cell::saves + k) * H + unit, count);
        for (int k = 0; k < Cell::parameters; ++k) u[k] = Array<T>(p.unit, halves).load(k * H + unit, count);
        for (int state = 0; state < S; ++state) {
            old[state] = Cell::previous[state] ? previous<T>(p, state, s.index, row, unit, count, halves, boundary) : V{};
            n[state] = V{};
            if (Cell::next[state])
                n[state] = p.path[state] ? load(static_cast<const T*>(p.path[state]) + place * H + unit, count)
                                         : Array<T>(p.output, halves).load(place * p.output_width + unit, count);
            if (state) d[state] = load(s.states + (state * p.batch + row) * s.states_width + unit);
        }
        d[0] = p.weight_hr ? load(s.products + (row - s.row0) * s.products_width + sub * L)
                           : load(s.hidden + row * s.hidden_width + unit, count) +
                                 Array<T>(p.grad_output, halves).load(place * p.output_width + unit, count);
        Cell::template backward<V>(saved, old, n, u, d, x, r, ds, du);
        for (int state = 1; state < S; ++state) store(s.states + (state * p.batch + row) * s.states_width + unit, ds[state]);
        if (!p.weight_hr) store(s.hidden + row * s.hidden_width + unit, ds[0], count);
    } else {
        // The state was left alone, and so is its gradient.
        for (int gate = 0; gate < G; ++gate) x[gate] = V{};
        for (int gate = 0; gate < R; ++gate) r[gate] = V{};
        for (int k = 0; k < Cell::parameters; ++k) du[k] = V{};
    }
    for (int gate = 0; gate < G; ++gate) Array<T>(p.grad_gates_x, halves).store(place * p.gates_width + gate * H + unit, x[gate], count);
    if (s.with_biases)
        for (int gate = 0; gate < G; ++gate) add_up<T>(s, gate * H + unit, x[gate], full, count);
    int own = 0;
    for (int gate = 0; gate < R; ++gate) {
        if (s.pairs)
            Array<T>(s.operands, true).store(row * s.operands_width + gate * H + unit, r[gate], count);
        else
            store(static_cast<T*>(s.operands) + row * s.operands_width + gate * H + unit, r[gate], count);
        if (Cell::shared[gate] < 0) {
            Array<T>(p.grad_product, halves).store((place * U + own) * H + unit, r[gate], count);
            if (s.with_biases) add_up<T>(s, (G + own) * H + unit, r[gate], full, count);
            ++own;
        }
    }
    for (int k = 0; k < Cell::parameters; ++k) add_up<T>(s, (G + U + k) * H + unit, du[k], full, count);
    // At a boundary what was carried goes to the reset states instead.
    for (int state = 1; state < S && boundary; ++state) {
        T* carried = s.states + (state * p.batch + row) * s.states_width + unit;
        T* to = static_cast<T*>(p.grad_reset[state]) + row * H + unit;
        if (p.grad_reset[state]) store(to, load(to, count) + load(carried, count), count);
        store(carried, V{}, count);
    }
}
template <class Cell, class T>
__attribute__((noinline)) void backward_any_units(const Step<T>& s, int64_t row, int sub, bool valid, bool boundary, bool full) {
    backward_units<Cell, T, false>(s, row, sub, valid, boundary, full);
}

template <class Cell, class T>
void backward_rows(const void* step) {
    const auto& s = *static_cast<const Step<T>*>(step);
    const Problem& p = *s.p;
    const Times times{p};
    const int64_t t = times.at(s.index);
    const int whole = p.halves || s.pairs ? 0 : int((p.hidden - s.unit) / LANES<T>);
    for (int64_t row = s.row0; row < s.row1; ++row) {
        expect_backward<Cell>(s, row + 4);
        const bool valid = times.valid(t, row), boundary = times.boundary(t, row), full = (s.terms + row - s.row0 + 1) % SUMMED == 0;
        for (int sub = 0; sub < s.vectors; ++sub)
            if (sub < whole)
                backward_units<Cell, T, true>(s, row, sub, valid, boundary, full);
            else
                backward_any_units<Cell, T>(s, row, sub, valid, boundary, full);
    }
}

template <class C, class T>
constexpr Cell cell_of() {
    return {C::name,          C::gates,         C::recurrent_gates, C::states,          C::parameters,        C::saves,
            C::shared.data(), C::previous.data(), C::next.data(),   forward_rows<C, T>, backward_rows<C, T>};
}

}  // namespace
}  // namespace seqcells
