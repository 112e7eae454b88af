// The gradients of a cell over time.
//
// Threads own blocks of hidden units for the whole sequence. In each step a thread computes the cell's gradients for its
// units of all rows, meets the others once (the gradients of all products are complete), and computes what those pass on
// to its units of the hidden state before.

#pragma once

#include "sequence.h"

namespace seqcells {
namespace {

template <class Cell, class T, class O = T, class Stored = T>
class Backward : Sequence<Cell, T, O, Stored> {
    using Base = Sequence<Cell, T, O, Stored>;
    using V = typename Base::V;
    using Base::B, Base::H, Base::L, Base::P, Base::R, Base::S, Base::WIDE;
    using Base::as, Base::blocks_of, Base::each_block, Base::fill_up, Base::fresh, Base::in_full, Base::p,
        Base::there, Base::times;

    const int64_t back_blocks, unit_blocks;  // of the previous hidden state's columns, and of this step's units
    Buffer<Word<O>> weights, projection;
    // Between steps: the gradients of the hidden state and of the other states.
    Buffer<T> hidden, carry, sums;
    // What products read: the gradients of the products of this step and the next, and of a projected hidden state.
    Buffer<O> products, projected;

  public:
    using Base::weight_bytes;

    explicit Backward(const Problem& problem)
        : Base(problem), back_blocks(blocks_of(P, WIDE)), unit_blocks(blocks_of(H, WIDE)) {}

    // Hidden units are shared out in the blocks of the product, whose columns they are.
    int threads() const { return Base::threads(unit_blocks, B * H * (R * P + 8)); }

    bool allocate() {
        if (R) weights = Buffer<Word<O>>(back_blocks * words<O>(R * H) * WIDE * L);
        if (p.weight_hr) projection = Buffer<Word<O>>(unit_blocks * words<O>(P) * WIDE * L);
        if (p.weight_hr) projected = Buffer<O>(B * filled<O>(P));
        hidden = Buffer<T>(B * P), carry = Buffer<T>(S * B * H);
        products = Buffer<O>(2 * B * filled<O>(R * H)), sums = Buffer<T>((R + Cell::parameters) * H);
        if (!there(weights, projection, projected, carry, hidden, products, sums)) return false;
        fill_up(products.get(), 2 * B, R * H);
        if (p.weight_hr) fill_up(projected.get(), B, P);
        return true;
    }

    void run(int member, int size, Barrier& barrier) {
        const int64_t depth = R * H;
        const Share mine(unit_blocks, member, size), my_projected(back_blocks, member, size);
        pack_backward(mine, my_projected, depth);
        begin_backward(mine, my_projected, carry.get(), hidden.get());
        for (int64_t index = p.steps - 1; index >= 0; --index) {
            O* now = products.get() + index % 2 * B * filled<O>(depth);
            if (p.weight_hr) {
                store_grad_projected(index, my_projected, hidden.get(), projected.get());
                barrier.wait();
            }
            for (int64_t block = mine.first; block < mine.last; ++block)
                backward_block(index, block, mine, projected.get(), carry.get(), hidden.get(), now, sums.get());
            if (R || p.weight_hr) barrier.wait();
            const int64_t present = Base::present(times.at(index));
            each_block(index, my_projected, [&](int64_t block) {
                product_backward(index, block, present, now, depth, carry.get(), hidden.get());
            });
            before_boundary(index, mine, my_projected, carry.get(), hidden.get());
        }
        end_backward(mine, my_projected, carry.get(), hidden.get());
    }

  private:
    static constexpr int unshared() {
        int count = 0;
        for (int gate = 0; gate < R; ++gate) count += Cell::shared[gate] < 0;
        return count;
    }

    void pack_backward(Share mine, Share my_projected, int64_t depth) {
        for (int64_t block = my_projected.first; block < my_projected.last && R; ++block)
            for (int n = 0; n < WIDE; ++n) {
                const int64_t unit = (block * WIDE + n) * L;
                if (unit < P)
                    pack<O>(as(p.weight_hh) + unit, P, 1, depth, P - unit,
                            weights.get() + block * words<O>(depth) * WIDE * L + n * L, WIDE * L);
            }
        for (int64_t block = mine.first; block < mine.last && p.weight_hr; ++block)
            for (int n = 0; n < WIDE; ++n) {
                const int64_t unit = (block * WIDE + n) * L;
                if (unit < H)
                    pack<O>(as(p.weight_hr) + unit, H, 1, P, H - unit,
                            projection.get() + block * words<O>(P) * WIDE * L + n * L, WIDE * L);
            }
    }

    // f(state, row, first, last) for a member's columns of each state; `hidden` ones in the product's blocks.
    template <class F>
    void each_mine(Share mine, Share my_projected, F f) const {
        for (int state = 0; state < S; ++state) {
            const Share& share = state ? mine : my_projected;
            const int64_t columns = state ? H : P;
            const int64_t first = share.first * WIDE * L, last = share.last * WIDE * L;
            for (int64_t row = 0; row < B; ++row) f(state, row, first, last < columns ? last : columns);
        }
    }

    T* carried(int state, int64_t row, T* carry, T* hidden) const {
        return state ? carry + (state * B + row) * H : hidden + row * P;
    }

    void begin_backward(Share mine, Share my_projected, T* carry, T* hidden) const {
        each_mine(mine, my_projected, [&](int state, int64_t row, int64_t first, int64_t last) {
            const Stored* from = as(p.grad_final[state]) + row * (state ? H : P);
            T* to = carried(state, row, carry, hidden);
            for (int64_t unit = first; unit < last; ++unit) {
                to[unit] = from[unit];
                if (p.grad_reset[state]) in_full(p.grad_reset[state])[row * (state ? H : P) + unit] = T(0);
            }
        });
        for (int64_t unit = mine.first * WIDE * L; unit < mine.last * WIDE * L && unit < H; ++unit) {
            for (int k = 0; k < Cell::parameters; ++k) in_full(p.grad_unit)[k * H + unit] = T(0);
            for (int gate = 0; gate < R && p.grad_bias; ++gate) in_full(p.grad_bias)[gate * H + unit] = T(0);
        }
    }

    // The gradient of a projected hidden state: from the output and from the next step.
    void store_grad_projected(int64_t index, Share share, T* hidden, O* projected) const {
        const int64_t t = times.at(index);
        for (int64_t row = 0; row < B; ++row)
            for (int64_t unit = share.first * WIDE * L; unit < share.last * WIDE * L && unit < P; ++unit) {
                const T of_output = as(p.grad_output)[(t * B + row) * p.output_width + unit];
                const T grad = times.valid(t, row) ? of_output + hidden[row * P + unit] : T(0);
                as(p.grad_projected)[(t * B + row) * P + unit] = grad;
                projected[row * filled<O>(P) + unit] = grad;
            }
    }

    void backward_block(int64_t index, int64_t block, Share mine, const O* projected, T* carry, T* hidden, O* products,
                        T* sums) const {
        alignas(64) T unprojected[BATCH * WIDE * L];
        each_batch(B, [&](int64_t row0, int64_t row1) {
            if (p.weight_hr)
                product<O, WIDE>(projection.get() + block * words<O>(P) * WIDE * L, P, projected + row0 * filled<O>(P),
                                 filled<O>(P), row1 - row0, unprojected);
            for (int64_t row = row0; row < row1; ++row) {
                expect_rows(index, block, row + 4, mine);
                for (int n = 0; n < WIDE; ++n) {
                    const int64_t unit = (block * WIDE + n) * L;
                    if (unit >= H) break;
                    backward_cell(index, row, unit, unprojected + ((row - row0) * WIDE + n) * L, carry, hidden, products, sums);
                }
            }
        });
    }

    // What a row of a block will read and write; rows behind the last are the first ones of the next block, or step.
    void expect_rows(int64_t index, int64_t block, int64_t row, Share mine) const {
        for (; row >= B; row -= B)
            if (++block == mine.last) block = mine.first, --index;
        if (index < 0) return;
        const int64_t unit = block * WIDE * L, count = H - unit < WIDE * L ? H - unit : WIDE * L;
        const int64_t place = times.at(index) * B + row;
        for (int k = 0; k < Cell::saves; ++k)
            Base::template expect<0>(in_full(p.saved) + (place * Cell::saves + k) * H + unit, count);
        for (int gate = 0; gate < Cell::gates; ++gate)
            Base::template expect<1>(as(p.grad_gates_x) + place * p.gates_width + gate * H + unit, count);
        if (!p.weight_hr) Base::template expect<0>(as(p.grad_output) + place * p.output_width + unit, count);
        for (int state = 1; state < S && index; ++state)
            if (Cell::previous[state])
                Base::template expect<0>(in_full(p.path[state]) + (times.at(index - 1) * B + row) * H + unit, count);
    }

    SEQCELLS_INLINE void backward_cell(int64_t index, int64_t row, int64_t unit, const T* unprojected, T* carry,
                                       T* hidden, O* products, T* sums) const {
        const int64_t t = times.at(index), place = t * B + row, count = H - unit;
        V x[Cell::gates], r[R + 1], s[S], n[S], u[Cell::parameters + 1], d[S], saved[Cell::saves + 1];
        V ds[S], du[Cell::parameters + 1];
        if (times.valid(t, row)) {
            for (int k = 0; k < Cell::saves; ++k)
                saved[k] = load(in_full(p.saved) + (place * Cell::saves + k) * H + unit, count);
            for (int k = 0; k < Cell::parameters; ++k) u[k] = load(as(p.unit) + k * H + unit, count);
            for (int state = 0; state < S; ++state) {
                s[state] = Cell::previous[state] ? previous(state, index, row, unit, count) : V{};
                n[state] = V{};
                if (Cell::next[state]) {
                    n[state] = p.path[state] ? load(in_full(p.path[state]) + place * H + unit, count)
                                             : load(as(p.output) + place * p.output_width + unit, count);
                }
                if (state) d[state] = load(carry + (state * B + row) * H + unit, count);
            }
            d[0] = p.weight_hr ? load(unprojected)
                               : load(hidden + row * P + unit, count) +
                                     load(as(p.grad_output) + place * p.output_width + unit, count);
            Cell::template backward<V>(saved, s, n, u, d, x, r, ds, du);
            for (int state = 1; state < S; ++state) store(carry + (state * B + row) * H + unit, ds[state], count);
            if (!p.weight_hr) store(hidden + row * P + unit, ds[0], count);
        } else {
            // The state was left alone, and so is its gradient.
            for (int gate = 0; gate < Cell::gates; ++gate) x[gate] = V{};
            for (int gate = 0; gate < R; ++gate) r[gate] = V{};
            for (int k = 0; k < Cell::parameters; ++k) du[k] = V{};
        }
        for (int k = 0; k < Cell::parameters; ++k) sum_up(in_full(p.grad_unit) + k * H + unit, sums + (R + k) * H + unit, du[k], row, count);
        for (int gate = 0; gate < Cell::gates; ++gate)
            store(as(p.grad_gates_x) + place * p.gates_width + gate * H + unit, x[gate], count);
        int own = 0;
        for (int gate = 0; gate < R; ++gate) {
            store(products + row * filled<O>(R * H) + gate * H + unit, r[gate], count);
            if (p.grad_bias) sum_up(in_full(p.grad_bias) + gate * H + unit, sums + gate * H + unit, r[gate], row, count);
            if (Cell::shared[gate] < 0)
                store(as(p.grad_product) + (place * unshared() + own++) * H + unit, r[gate], count);
        }
    }

    // A sum over steps and rows, each step's rows by themselves first: its error grows with the two numbers' square roots.
    void sum_up(T* total, T* step, V value, int64_t row, int64_t count) const {
        const V sum = row ? load(step, count) + value : value;
        if (row + 1 == B)
            store(total, load(total, count) + sum, count);
        else
            store(step, sum, count);
    }

    // A state before a step.
    V previous(int state, int64_t index, int64_t row, int64_t unit, int64_t count) const {
        const int64_t t = times.at(index);
        if (state == 0) return load(as(p.previous_hidden) + (t * B + row) * P + unit, count);
        if (times.boundary(t, row)) return fresh(state, row, unit, count);
        if (index == 0) return load(as(p.initial[state]) + row * H + unit, count);
        return load(in_full(p.path[state]) + (times.at(index - 1) * B + row) * H + unit, count);
    }

    // What reaches the previous hidden state through the product. A row that was left alone keeps its gradient.
    void product_backward(int64_t index, int64_t block, int64_t present, const O* products, int64_t depth, T* carry,
                          T* hidden) const {
        alignas(64) T sums[BATCH * WIDE * L];
        each_batch(present, [&](int64_t row0, int64_t row1) {
            if constexpr (R > 0)
                product<O, WIDE>(weights.get() + block * words<O>(depth) * WIDE * L, depth, products + row0 * filled<O>(depth),
                                 filled<O>(depth), row1 - row0, sums);
            for (int64_t row = row0; row < row1; ++row) {
                if (!times.valid(times.at(index), row)) continue;
                for (int n = 0; n < WIDE; ++n) {
                    const int64_t unit = (block * WIDE + n) * L, count = P - unit;
                    if (count <= 0) break;
                    V value = R ? load(sums + ((row - row0) * WIDE + n) * L) : V{};
                    // A projected state is read by the product alone.
                    if (!p.weight_hr) value += load(hidden + row * P + unit, count);
                    store(hidden + row * P + unit, value, count);
                }
            }
        });
    }

    // At a boundary what was carried goes to the reset states instead.
    void before_boundary(int64_t index, Share mine, Share my_projected, T* carry, T* hidden) const {
        if (!p.reset) return;
        each_mine(mine, my_projected, [&](int state, int64_t row, int64_t first, int64_t last) {
            if (!times.boundary(times.at(index), row)) return;
            T* from = carried(state, row, carry, hidden);
            for (int64_t unit = first; unit < last; ++unit) {
                if (p.grad_reset[state]) in_full(p.grad_reset[state])[row * (state ? H : P) + unit] += from[unit];
                from[unit] = T(0);
            }
        });
    }

    void end_backward(Share mine, Share my_projected, T* carry, T* hidden) const {
        each_mine(mine, my_projected, [&](int state, int64_t row, int64_t first, int64_t last) {
            const T* from = carried(state, row, carry, hidden);
            T* to = in_full(p.grad_initial[state]) + row * (state ? H : P);
            for (int64_t unit = first; unit < last; ++unit) to[unit] = from[unit];
        });
    }
};

}  // namespace
}  // namespace seqcells
