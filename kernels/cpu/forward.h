// A cell over time.
//
// Threads own blocks of hidden units for the whole sequence. In each step a thread computes the recurrent product and
// the cell for its units of all rows, then meets the others once: the hidden state that the next step reads is complete.

#pragma once

#include "sequence.h"

namespace seqcells {
namespace {

template <class Cell, class T, class O = T, class Stored = T>
class Forward : Sequence<Cell, T, O, Stored> {
    using Base = Sequence<Cell, T, O, Stored>;
    using V = typename Base::V;
    using Base::B, Base::H, Base::L, Base::P, Base::R, Base::S, Base::WIDE;
    using Base::as, Base::back, Base::blocks_of, Base::each_block, Base::fill_up, Base::fresh, Base::in_full, Base::p,
        Base::rounds, Base::there, Base::times;

    // A block is wide enough for several sums at a time even where there are few gates.
    static constexpr int UNITS = R == 1 ? 4 : R == 2 ? 2 : 1;  // vectors of units
    static constexpr int N = R ? R * UNITS : 1;                // vectors of the recurrent product
    static constexpr int G = Cell::gates * UNITS;              // vectors of the input's product

    const int64_t blocks, width;  // width: H in whole blocks
    const int64_t projected_blocks;
    const int64_t group;          // steps whose inputs are projected together
    Buffer<Word<O>> weights, input_weights, projection;
    // Of now and of the next step, the other states, and the inputs' products.
    Buffer<T> hidden, states, inputs;
    // What products read: the hidden state where it has to be rounded, that before projection, each member's inputs.
    Buffer<O> operands, unprojected, input_rows;

  public:
    using Base::weight_bytes;

    explicit Forward(const Problem& problem)
        : Base(problem), blocks(blocks_of(H, UNITS)), width(blocks * UNITS * L), projected_blocks(blocks_of(P, WIDE)),
          group(B < BATCH ? BATCH / (B ? B : 1) : 1) {}

    int threads() const { return Base::threads(blocks, B * H * (R * P + Cell::gates * p.features + 8)); }

    bool allocate() {
        if (R && packed()) weights = Buffer<Word<O>>(blocks * words<O>(P) * N * L);
        if (p.input && packed()) input_weights = Buffer<Word<O>>(blocks * words<O>(p.features) * G * L);
        if (p.weight_hr) projection = Buffer<Word<O>>(projected_blocks * words<O>(H) * WIDE * L);
        if (p.weight_hr) unprojected = Buffer<O>(B * filled<O>(H));
        if (rounds) operands = Buffer<O>(2 * B * filled<O>(P));
        if (p.input && !input_fits()) input_rows = Buffer<O>(p.threads * group * B * filled<O>(p.features));
        inputs = Buffer<T>(p.input ? blocks * group * B * G * L : 0);  // there in any case: places in it are computed
        hidden = Buffer<T>(2 * B * P), states = Buffer<T>(S * B * width);
        if (!there(weights, input_weights, projection, hidden, states, inputs, operands, unprojected, input_rows)) return false;
        if (rounds) fill_up(operands.get(), 2 * B, P);
        if (p.weight_hr) fill_up(unprojected.get(), B, H);
        return true;
    }

    void run(int member, int size, Barrier& barrier) {
        const Share mine(blocks, member, size), my_projected(projected_blocks, member, size);
        pack_forward(mine, my_projected);
        begin(mine, my_projected, hidden.get(), states.get());
        barrier.wait();
        for (int64_t index = 0; index < p.steps; ++index) {
            const T* now = hidden.get() + index % 2 * B * P;
            T* next = hidden.get() + (index + 1) % 2 * B * P;
            const int64_t with_products = Base::present(times.at(index));
            const bool project_too = p.input && index % group == 0;
            if (project_too) align_inputs(index, member);
            each_block(index, mine, [&](int64_t block) {
                T* projected = inputs.get() + block * group * B * G * L;
                if (project_too) project_inputs(index, member, block, projected);
                each_batch(B, [&](int64_t row0, int64_t row1) {
                    forward_block(index, block, mine, row0, row1, with_products,
                                  projected + place_in_group(index) * B * G * L, now, next, unprojected.get(), states.get());
                });
            });
            if (p.weight_hr) {
                barrier.wait();
                for (int64_t block = my_projected.first; block < my_projected.last; ++block)
                    project(index, block, unprojected.get(), now, next);
            }
            if (R || p.weight_hr) barrier.wait();
        }
    }

  private:
    // Packing costs as much as a few steps of a few rows.
    bool packed() const { return p.steps * B > 8; }

    // Whether the product can read the input where it lies.
    bool input_fits() const { return std::is_same_v<O, Stored> && filled<O>(p.features) == p.features; }

    // The hidden state before a step as the product reads it, its rows in whole words.
    const O* operand(int64_t index, const T* now) const {
        if constexpr (rounds)
            return operands.get() + index % 2 * B * filled<O>(P);
        else
            return now;
    }

    // Of the steps that are projected with step `index`: where it is among them in time, and the first in time.
    int64_t place_in_group(int64_t index) const {
        return times.at(index) - first_in_group(index - index % group);
    }
    int64_t first_in_group(int64_t begin) const {
        return p.reverse ? times.at(begin + group < p.steps ? begin + group - 1 : p.steps - 1) : begin;
    }

    // Of the steps that are projected with step `begin`, which come next.
    int64_t grouped_rows(int64_t begin) const { return (group < p.steps - begin ? group : p.steps - begin) * B; }
    const Stored* grouped_inputs(int64_t begin) const { return as(p.input) + first_in_group(begin) * B * p.features; }
    const O* rows_of_inputs(int64_t begin, int member) const {
        if constexpr (std::is_same_v<O, Stored>)
            if (input_fits()) return grouped_inputs(begin);
        return own_rows(member);
    }
    O* own_rows(int member) const { return input_rows.get() + member * group * B * filled<O>(p.features); }

    void align_inputs(int64_t begin, int member) const {
        for (int64_t row = 0; row < grouped_rows(begin) && !input_fits(); ++row)
            align(grouped_inputs(begin) + row * p.features, p.features, own_rows(member) + row * filled<O>(p.features));
    }

    void project_inputs(int64_t begin, int member, int64_t block, T* projected) const {
        const int64_t stride = filled<O>(p.features);
        const O* from = rows_of_inputs(begin, member);
        each_batch(grouped_rows(begin), [&](int64_t row, int64_t end) {
            T* to = projected + row * G * L;
            if (packed())
                product<O, G>(input_weights.get() + block * words<O>(p.features) * G * L, p.features, from + row * stride,
                              stride, end - row, to);
            else
                unpacked<G>(as(p.weight_ih), block, p.features, from + row * stride, end - row, to);
        });
    }

    void pack_forward(Share mine, Share my_projected) {
        for (int64_t block = mine.first; block < mine.last && R && packed(); ++block)
            for (int n = 0; n < N; ++n) {
                const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
                if (unit < H)
                    pack<O>(as(p.weight_hh) + (gate * H + unit) * P, 1, P, P, H - unit,
                            weights.get() + block * words<O>(P) * N * L + n * L, N * L);
            }
        for (int64_t block = mine.first; block < mine.last && p.input && packed(); ++block)
            for (int n = 0; n < G; ++n) {
                const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
                if (unit < H)
                    pack<O>(as(p.weight_ih) + (gate * H + unit) * p.features, 1, p.features, p.features, H - unit,
                            input_weights.get() + block * words<O>(p.features) * G * L + n * L, G * L);
            }
        for (int64_t block = my_projected.first; block < my_projected.last && p.weight_hr; ++block)
            for (int n = 0; n < WIDE; ++n) {
                const int64_t unit = (block * WIDE + n) * L;
                if (unit < P)
                    pack<O>(as(p.weight_hr) + unit * H, 1, H, H, P - unit,
                            projection.get() + block * words<O>(H) * WIDE * L + n * L, WIDE * L);
            }
    }

    // The states before the first step, reset where it begins with a boundary.
    void begin(Share mine, Share my_projected, T* hidden, T* states) const {
        const int64_t unit_width = UNITS * L, projected_width = WIDE * L;
        const int64_t first = p.weight_hr ? my_projected.first * projected_width : mine.first * unit_width;
        const int64_t last = p.weight_hr ? my_projected.last * projected_width : mine.last * unit_width;
        for (int64_t row = 0; row < B; ++row) {
            const bool boundary = p.steps && times.boundary(times.at(0), row);
            for (int64_t unit = first; unit < last && unit < P; ++unit) {
                hidden[row * P + unit] = start(0, row, unit, boundary);
                if (rounds) operands.get()[row * filled<O>(P) + unit] = hidden[row * P + unit];
            }
            for (int state = 1; state < S; ++state)
                for (int64_t unit = mine.first * unit_width; unit < mine.last * unit_width && unit < H; ++unit)
                    states[(state * B + row) * width + unit] = start(state, row, unit, boundary);
        }
    }

    T start(int state, int64_t row, int64_t unit, bool boundary) const {
        const void* from = boundary ? p.reset_states[state] : p.initial[state];
        return from ? T(as(from)[row * (state ? H : P) + unit]) : T(0);
    }

    void forward_block(int64_t index, int64_t block, Share mine, int64_t row0, int64_t row1, int64_t with_products,
                       const T* inputs, const T* now, T* next, O* unprojected, T* states) const {
        alignas(64) T products[BATCH * N * L];
        const int64_t rows = (row1 < with_products ? row1 : with_products) - row0;
        if constexpr (R > 0) {
            if (rows <= 0)
                ;
            else if (packed())
                product<O, N>(weights.get() + block * words<O>(P) * N * L, P, operand(index, now) + row0 * filled<O>(P),
                              filled<O>(P), rows, products);
            else
                unpacked<N>(as(p.weight_hh), block, P, operand(index, now) + row0 * filled<O>(P), rows, products);
        }
        for (int64_t row = row0; row < row1; ++row) {
            expect_rows(index, block, row + 8, mine);
            for (int sub = 0; sub < UNITS; ++sub) {
                const int64_t unit = (block * UNITS + sub) * L, local = row - row0;
                if (unit < H)
                    forward_cell(index, row, unit, inputs + (row * G + sub) * L, products + (local * N + sub) * L, now,
                                 next, unprojected, states);
            }
        }
    }

    // What a row of a block will read and write; rows behind the last are the first ones of the block that comes next.
    void expect_rows(int64_t index, int64_t block, int64_t row, Share mine) const {
        for (; row >= B; row -= B) {
            if (block != (back(index) ? mine.first : mine.last - 1))
                block += back(index) ? -1 : 1;
            else
                ++index;  // whose first block is this one's last
        }
        if (index >= p.steps) return;
        const int64_t unit = block * UNITS * L, count = H - unit < UNITS * L ? H - unit : UNITS * L;
        const int64_t place = times.at(index) * B + row;
        for (int gate = 0; gate < Cell::gates && p.gates_x; ++gate)
            Base::template expect<0>(as(p.gates_x) + place * p.gates_width + gate * H + unit, count);
        for (int k = 0; k < Cell::saves && p.saved; ++k)
            Base::template expect<1>(in_full(p.saved) + (place * Cell::saves + k) * H + unit, count);
        for (int state = 0; state < S; ++state)
            if (p.path[state]) Base::template expect<1>(in_full(p.path[state]) + place * H + unit, count);
        if (!p.weight_hr) Base::template expect<1>(as(p.output) + place * p.output_width + unit, count);
    }

    template <int WIDTH>
    void unpacked(const Stored* weight, int64_t block, int64_t depth, const O* a, int64_t rows, T* out) const {
        for (int n = 0; n < WIDTH; ++n) {
            const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
            if (unit < H)
                dots<O, WIDTH>(weight + (gate * H + unit) * depth, H - unit, depth, a, filled<O>(depth), rows, out + n * L);
        }
    }

    SEQCELLS_INLINE void forward_cell(int64_t index, int64_t row, int64_t unit, const T* inputs, const T* products,
                                      const T* now, T* next, O* unprojected, T* states) const {
        const int64_t t = times.at(index), place = t * B + row, count = H - unit;
        const bool last = index + 1 == p.steps;
        V x[Cell::gates], r[R + 1], s[S], u[Cell::parameters + 1], n[S], saved[Cell::saves + 1];
        for (int gate = 0; gate < Cell::gates; ++gate) {
            x[gate] = p.input ? load(inputs + gate * UNITS * L)
                              : load(as(p.gates_x) + place * p.gates_width + gate * H + unit, count);
            if (p.input && p.bias_ih) x[gate] += load(as(p.bias_ih) + gate * H + unit, count);
        }
        for (int gate = 0; gate < R; ++gate) {
            r[gate] = load(products + gate * UNITS * L);
            if (p.bias_hh) r[gate] += load(as(p.bias_hh) + gate * H + unit, count);
        }
        for (int k = 0; k < Cell::parameters; ++k) u[k] = load(as(p.unit) + k * H + unit, count);
        s[0] = p.weight_hr ? V{} : load(now + row * P + unit, count);
        for (int state = 1; state < S; ++state) s[state] = load(states + (state * B + row) * width + unit);
        const bool valid = times.valid(t, row);
        if (valid) {
            Cell::template forward<V>(x, r, s, u, n, saved);
        } else {
            for (int state = 0; state < S; ++state) n[state] = s[state];
            for (int k = 0; k < Cell::saves; ++k) saved[k] = V{};
        }
        if (p.saved)
            for (int k = 0; k < Cell::saves; ++k) store(in_full(p.saved) + (place * Cell::saves + k) * H + unit, saved[k], count);
        for (int state = 0; state < S; ++state)
            if (p.path[state]) store(in_full(p.path[state]) + place * H + unit, n[state], count);

        if (p.weight_hr) {
            store(unprojected + row * filled<O>(H) + unit, n[0], count);
        } else {
            store(as(p.output) + place * p.output_width + unit, valid ? n[0] : V{}, count);
            keep_hidden(index, row, unit, n[0], next, count);
        }
        const bool boundary = !last && times.boundary(times.at(index + 1), row);
        for (int state = 1; state < S; ++state) {
            if (last) store(as(p.final[state]) + row * H + unit, n[state], count);
            store(states + (state * B + row) * width + unit, boundary ? fresh(state, row, unit, count) : n[state]);
        }
    }

    // The hidden state after a step: what the next one reads, or the final one.
    SEQCELLS_INLINE void keep_hidden(int64_t index, int64_t row, int64_t unit, V value, T* next, int64_t count) const {
        if (index + 1 == p.steps) {
            store(as(p.final[0]) + row * P + unit, value, count);
            return;
        }
        const bool boundary = times.boundary(times.at(index + 1), row);
        if (boundary) value = fresh(0, row, unit, count);
        store(next + row * P + unit, value, count);
        if (rounds) store(operands.get() + ((index + 1) % 2 * B + row) * filled<O>(P) + unit, value, count);
    }

    void project(int64_t index, int64_t block, const O* unprojected, const T* now, T* next) const {
        alignas(64) T products[BATCH * WIDE * L];
        const int64_t t = times.at(index);
        each_batch(B, [&](int64_t row0, int64_t row1) {
            product<O, WIDE>(projection.get() + block * words<O>(H) * WIDE * L, H, unprojected + row0 * filled<O>(H),
                             filled<O>(H), row1 - row0, products);
            for (int64_t row = row0; row < row1; ++row)
                for (int n = 0; n < WIDE; ++n) {
                    const int64_t unit = (block * WIDE + n) * L, count = P - unit;
                    if (count <= 0) break;
                    const bool valid = times.valid(t, row);
                    const V value = load(products + ((row - row0) * WIDE + n) * L);
                    store(as(p.output) + (t * B + row) * p.output_width + unit, valid ? value : V{}, count);
                    keep_hidden(index, row, unit, valid ? value : load(now + row * P + unit, count), next, count);
                }
        });
    }
};

}  // namespace
}  // namespace seqcells
