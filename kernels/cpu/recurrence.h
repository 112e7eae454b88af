// A cell over time, forward and backward.
//
// Threads own blocks of hidden units for the whole sequence. In each step a thread computes the recurrent product and
// the cell for its units of all rows, then meets the others once: the hidden state (forward) or the gradients of the
// products (backward) that the next step reads are complete.

#pragma once

#include "buffer.h"
#include "cells.h"
#include "problem.h"
#include "product.h"
#include "team.h"

namespace seqcells {
namespace {

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

// f(first, last) for about equal parts of the rows, of at most BATCH each.
template <class F>
SEQCELLS_INLINE void each_batch(int64_t rows, F f) {
    const int64_t count = (rows + BATCH - 1) / BATCH;
    for (int64_t part = 0; part < count; ++part) {
        const Share share(rows, part, count);
        f(share.first, share.last);
    }
}

template <class Cell, class T>
class Recurrence {
    using V = Vector<T>;
    static constexpr int L = LANES<T>;
    static constexpr int R = Cell::recurrent_gates, S = Cell::states;
    // A block is wide enough for several sums at a time even where there are few gates.
    static constexpr int UNITS = R == 1 ? 4 : R == 2 ? 2 : 1;  // vectors of units
    static constexpr int N = R ? R * UNITS : 1;                // vectors of the product
    static constexpr int G = Cell::gates * UNITS;              // vectors of the input's product
    static constexpr int BACK = 4;                             // vectors of a block of backward's product
    static constexpr int unshared() {
        int count = 0;
        for (int gate = 0; gate < R; ++gate) count += Cell::shared[gate] < 0;
        return count;
    }

    const Problem& p;
    const Times times;
    const int64_t B, H, P, width;  // width: H in whole blocks
    const int64_t blocks;
    Buffer<T> weights, input_weights, projection;

    template <class U = T>
    static U* as(const void* pointer) {
        return static_cast<U*>(const_cast<void*>(pointer));
    }

  public:
    explicit Recurrence(const Problem& problem)
        : p(problem),
          times{problem},
          B(p.batch),
          H(p.hidden),
          P(p.projected),
          width((H + UNITS * L - 1) / (UNITS * L) * UNITS * L),
          blocks(width / (UNITS * L)),
          weights(0),
          input_weights(0),
          projection(0) {}

    static int forward(const Problem& problem) { return Recurrence(problem).forward(); }
    static int backward(const Problem& problem) { return Recurrence(problem).backward(); }

  private:
    int threads(int64_t items, int64_t work) const {
        // A step must be worth a barrier.
        const int64_t worth = 1 + work / 16384;
        int64_t count = p.threads < items ? p.threads : items;
        return int(count < worth ? count : worth);
    }

    // ---- forward ----

    // Packing costs as much as a few steps of a few rows.
    bool packed() const { return p.steps * B > 8; }

    int forward() {
        const int64_t projected_blocks = (P + BACK * L - 1) / (BACK * L);
        if (R && packed()) weights = Buffer<T>(blocks * P * N * L);
        if (p.input && packed()) input_weights = Buffer<T>(blocks * p.features * G * L);
        const int64_t group = B < BATCH ? BATCH / (B ? B : 1) : 1;  // steps whose inputs are projected together
        if (p.weight_hr) projection = Buffer<T>(projected_blocks * H * BACK * L);
        Buffer<T> hidden(2 * B * P), unprojected(p.weight_hr ? B * H : 0), states(S * B * width);
        Buffer<T> inputs(p.input ? blocks * group * B * G * L : 0);
        if (!weights.get() || !input_weights.get() || !projection.get() || !hidden.get() || !unprojected.get() ||
            !states.get() || !inputs.get())
            return -1;
        run_team(threads(blocks, B * H * (R * P + Cell::gates * p.features + 8)), [&](int member, int size, Barrier& barrier) {
            const Share mine(blocks, member, size), my_projected(projected_blocks, member, size);
            pack_forward(mine, my_projected);
            begin(mine, my_projected, hidden.get(), states.get());
            barrier.wait();
            for (int64_t index = 0; index < p.steps; ++index) {
                if (p.input && index % group == 0) project_inputs(index, group, mine, inputs.get());
                const T* now = hidden.get() + index % 2 * B * P;
                T* next = hidden.get() + (index + 1) % 2 * B * P;
                // To and fro: the weights that one step ends with are still near when the next begins.
                for (int64_t k = mine.first; k < mine.last; ++k) {
                    const int64_t block = index % 2 ? mine.first + mine.last - 1 - k : k;
                    each_batch(B, [&](int64_t row0, int64_t row1) {
                        forward_block(index, block, row0, row1,
                                      inputs.get() + (block * group + place_in_group(index, group)) * B * G * L, now, next,
                                      unprojected.get(), states.get());
                    });
                }
                if (p.weight_hr) {
                    barrier.wait();
                    for (int64_t block = my_projected.first; block < my_projected.last; ++block)
                        project(index, block, unprojected.get(), now, next);
                }
                if (R || p.weight_hr) barrier.wait();
            }
        });
        return 0;
    }

    // Of the steps that are projected with step `index`: where it is among them in time, and the first in time.
    int64_t place_in_group(int64_t index, int64_t group) const {
        return times.at(index) - first_in_group(index - index % group, group);
    }
    int64_t first_in_group(int64_t begin, int64_t group) const {
        return p.reverse ? times.at(begin + group < p.steps ? begin + group - 1 : p.steps - 1) : begin;
    }

    void project_inputs(int64_t begin, int64_t group, Share mine, T* inputs) const {
        const int64_t count = group < p.steps - begin ? group : p.steps - begin;
        const T* from = as(p.input) + first_in_group(begin, group) * B * p.features;
        for (int64_t block = mine.first; block < mine.last; ++block)
            each_batch(count * B, [&](int64_t row, int64_t end) {
                T* to = inputs + (block * group * B + row) * G * L;
                if (packed())
                    product<T, G>(input_weights.get() + block * p.features * G * L, p.features, from + row * p.features,
                                  p.features, end - row, to);
                else
                    unpacked<G>(as(p.weight_ih), block, p.features, from + row * p.features, end - row, to);
            });
    }

    void pack_forward(Share mine, Share my_projected) {
        for (int64_t block = mine.first; block < mine.last && R && packed(); ++block)
            for (int n = 0; n < N; ++n) {
                const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
                if (unit < H)
                    pack(as<const T>(p.weight_hh) + (gate * H + unit) * P, 1, P, P, H - unit,
                         weights.get() + block * P * N * L + n * L, N * L);
            }
        for (int64_t block = mine.first; block < mine.last && p.input && packed(); ++block)
            for (int n = 0; n < G; ++n) {
                const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
                if (unit < H)
                    pack(as<const T>(p.weight_ih) + (gate * H + unit) * p.features, 1, p.features, p.features, H - unit,
                         input_weights.get() + block * p.features * G * L + n * L, G * L);
            }
        for (int64_t block = my_projected.first; block < my_projected.last && p.weight_hr; ++block)
            for (int n = 0; n < BACK; ++n) {
                const int64_t unit = (block * BACK + n) * L;
                if (unit < P)
                    pack(as<const T>(p.weight_hr) + unit * H, 1, H, H, P - unit,
                         projection.get() + block * H * BACK * L + n * L, BACK * L);
            }
    }

    // The states before the first step, reset where it begins with a boundary.
    void begin(Share mine, Share my_projected, T* hidden, T* states) const {
        const int64_t unit_width = UNITS * L, projected_width = BACK * L;
        const int64_t first = p.weight_hr ? my_projected.first * projected_width : mine.first * unit_width;
        const int64_t last = p.weight_hr ? my_projected.last * projected_width : mine.last * unit_width;
        for (int64_t row = 0; row < B; ++row) {
            const bool boundary = p.steps && times.boundary(times.at(0), row);
            for (int64_t unit = first; unit < last && unit < P; ++unit) hidden[row * P + unit] = start(0, row, unit, boundary);
            for (int state = 1; state < S; ++state)
                for (int64_t unit = mine.first * unit_width; unit < mine.last * unit_width && unit < H; ++unit)
                    states[(state * B + row) * width + unit] = start(state, row, unit, boundary);
        }
    }

    T start(int state, int64_t row, int64_t unit, bool boundary) const {
        const void* from = boundary ? p.reset_states[state] : p.initial[state];
        return from ? as(from)[row * (state ? H : P) + unit] : T(0);
    }

    V fresh(int state, int64_t row, int64_t unit, int64_t count) const {
        return p.reset_states[state] ? load(as(p.reset_states[state]) + row * (state ? H : P) + unit, count) : V{};
    }

    void forward_block(int64_t index, int64_t block, int64_t row0, int64_t row1, const T* inputs, const T* now, T* next,
                       T* unprojected, T* states) const {
        alignas(64) T products[BATCH * N * L];
        const int64_t rows = row1 - row0;
        if constexpr (R > 0) {
            if (packed())
                product<T, N>(weights.get() + block * P * N * L, P, now + row0 * P, P, rows, products);
            else
                unpacked<N>(as(p.weight_hh), block, P, now + row0 * P, rows, products);
        }
        for (int64_t row = row0; row < row1; ++row)
            for (int sub = 0; sub < UNITS; ++sub) {
                const int64_t unit = (block * UNITS + sub) * L, local = row - row0;
                if (unit < H)
                    forward_cell(index, row, unit, inputs + (row * G + sub) * L, products + (local * N + sub) * L, now,
                                 next, unprojected, states);
            }
    }

    template <int WIDTH>
    void unpacked(const T* weight, int64_t block, int64_t depth, const T* a, int64_t rows, T* out) const {
        for (int n = 0; n < WIDTH; ++n) {
            const int64_t unit = (block * UNITS + n % UNITS) * L, gate = n / UNITS;
            if (unit < H)
                dots<T, WIDTH>(weight + (gate * H + unit) * depth, H - unit, depth, a, depth, rows, out + n * L);
        }
    }

    SEQCELLS_INLINE void forward_cell(int64_t index, int64_t row, int64_t unit, const T* inputs, const T* products,
                                      const T* now, T* next, T* unprojected, T* states) const {
        const int64_t t = times.at(index), place = t * B + row, count = H - unit;
        const bool last = index + 1 == p.steps;
        V x[Cell::gates], r[R + 1], s[S], u[Cell::parameters + 1], n[S], saved[Cell::saves + 1];
        for (int gate = 0; gate < Cell::gates; ++gate) {
            x[gate] = p.input ? load(inputs + gate * UNITS * L)
                              : load(as(p.gates_x) + (place * Cell::gates + gate) * H + unit, count);
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
            for (int k = 0; k < Cell::saves; ++k) store(as(p.saved) + (place * Cell::saves + k) * H + unit, saved[k], count);
        for (int state = 0; state < S; ++state)
            if (p.path[state]) store(as(p.path[state]) + place * H + unit, n[state], count);

        if (p.weight_hr) {
            store(unprojected + row * H + unit, n[0], count);
        } else {
            store(as(p.output) + place * P + unit, valid ? n[0] : V{}, count);
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
        store(next + row * P + unit, boundary ? fresh(0, row, unit, count) : value, count);
    }

    void project(int64_t index, int64_t block, const T* unprojected, const T* now, T* next) const {
        alignas(64) T products[BATCH * BACK * L];
        const int64_t t = times.at(index);
        each_batch(B, [&](int64_t row0, int64_t row1) {
            product<T, BACK>(projection.get() + block * H * BACK * L, H, unprojected + row0 * H, H, row1 - row0, products);
            for (int64_t row = row0; row < row1; ++row)
                for (int n = 0; n < BACK; ++n) {
                    const int64_t unit = (block * BACK + n) * L, count = P - unit;
                    if (count <= 0) break;
                    const bool valid = times.valid(t, row);
                    const V value = load(products + ((row - row0) * BACK + n) * L);
                    store(as(p.output) + (t * B + row) * P + unit, valid ? value : V{}, count);
                    keep_hidden(index, row, unit, valid ? value : load(now + row * P + unit, count), next, count);
                }
        });
    }

    // ---- backward ----

    // Gradients between steps: of the states (in units' order, `carry`), of the products of a step (`products`).
    int backward() {
        const int64_t back_blocks = (P + BACK * L - 1) / (BACK * L), unit_blocks = (H + BACK * L - 1) / (BACK * L);
        const int64_t depth = R * H;
        if (R) weights = Buffer<T>(back_blocks * depth * BACK * L);
        if (p.weight_hr) projection = Buffer<T>(unit_blocks * P * BACK * L);
        Buffer<T> carry(S * B * H), hidden(B * P), products(2 * B * depth);
        if (!weights.get() || !projection.get() || !carry.get() || !hidden.get() || !products.get()) return -1;
        // Hidden units are shared out in the blocks of the product, whose columns they are.
        run_team(threads(unit_blocks, B * H * (R * P + 8)), [&](int member, int size, Barrier& barrier) {
            const Share mine(unit_blocks, member, size), my_projected(back_blocks, member, size);
            pack_backward(mine, my_projected, depth);
            begin_backward(mine, my_projected, carry.get(), hidden.get());
            for (int64_t index = p.steps - 1; index >= 0; --index) {
                T* now = products.get() + index % 2 * B * depth;
                if (p.weight_hr) {
                    store_grad_projected(index, my_projected, hidden.get());
                    barrier.wait();
                }
                for (int64_t block = mine.first; block < mine.last; ++block)
                    backward_block(index, block, carry.get(), hidden.get(), now);
                if (R || p.weight_hr) barrier.wait();
                for (int64_t k = my_projected.first; k < my_projected.last; ++k)
                    product_backward(index, index % 2 ? my_projected.first + my_projected.last - 1 - k : k, now, depth, carry.get(), hidden.get());
                before_boundary(index, mine, my_projected, carry.get(), hidden.get());
            }
            end_backward(mine, my_projected, carry.get(), hidden.get());
        });
        return 0;
    }

    void pack_backward(Share mine, Share my_projected, int64_t depth) {
        for (int64_t block = my_projected.first; block < my_projected.last && R; ++block)
            for (int n = 0; n < BACK; ++n) {
                const int64_t unit = (block * BACK + n) * L;
                if (unit < P)
                    pack(as<const T>(p.weight_hh) + unit, P, 1, depth, P - unit,
                         weights.get() + block * depth * BACK * L + n * L, BACK * L);
            }
        for (int64_t block = mine.first; block < mine.last && p.weight_hr; ++block)
            for (int n = 0; n < BACK; ++n) {
                const int64_t unit = (block * BACK + n) * L;
                if (unit < H)
                    pack(as<const T>(p.weight_hr) + unit, H, 1, P, H - unit,
                         projection.get() + block * P * BACK * L + n * L, BACK * L);
            }
    }

    // f(state, row, first, last) for a member's columns of each state; `hidden` ones in the product's blocks.
    template <class F>
    void each_mine(Share mine, Share my_projected, F f) const {
        for (int state = 0; state < S; ++state) {
            const Share& share = state ? mine : my_projected;
            const int64_t columns = state ? H : P;
            const int64_t first = share.first * BACK * L, last = share.last * BACK * L;
            for (int64_t row = 0; row < B; ++row) f(state, row, first, last < columns ? last : columns);
        }
    }

    T* carried(int state, int64_t row, T* carry, T* hidden) const {
        return state ? carry + (state * B + row) * H : hidden + row * P;
    }

    void begin_backward(Share mine, Share my_projected, T* carry, T* hidden) const {
        each_mine(mine, my_projected, [&](int state, int64_t row, int64_t first, int64_t last) {
            const T* from = as(p.grad_final[state]) + row * (state ? H : P);
            T* to = carried(state, row, carry, hidden);
            for (int64_t unit = first; unit < last; ++unit) {
                to[unit] = from[unit];
                if (p.grad_reset[state]) as(p.grad_reset[state])[row * (state ? H : P) + unit] = T(0);
            }
        });
        for (int64_t unit = mine.first * BACK * L; unit < mine.last * BACK * L && unit < H; ++unit) {
            for (int k = 0; k < Cell::parameters; ++k) as(p.grad_unit)[k * H + unit] = T(0);
            for (int gate = 0; gate < R && p.grad_bias; ++gate) as(p.grad_bias)[gate * H + unit] = T(0);
        }
    }

    // The gradient of a projected hidden state: from the output and from the next step.
    void store_grad_projected(int64_t index, Share share, T* hidden) const {
        const int64_t t = times.at(index);
        for (int64_t row = 0; row < B; ++row)
            for (int64_t unit = share.first * BACK * L; unit < share.last * BACK * L && unit < P; ++unit) {
                const int64_t place = (t * B + row) * P + unit;
                as(p.grad_projected)[place] =
                    times.valid(t, row) ? as(p.grad_output)[place] + hidden[row * P + unit] : T(0);
            }
    }

    void backward_block(int64_t index, int64_t block, T* carry, T* hidden, T* products) const {
        alignas(64) T unprojected[BATCH * BACK * L];
        each_batch(B, [&](int64_t row0, int64_t row1) {
            if (p.weight_hr)
                product<T, BACK>(projection.get() + block * P * BACK * L, P,
                                 as(p.grad_projected) + (times.at(index) * B + row0) * P, P, row1 - row0, unprojected);
            for (int64_t row = row0; row < row1; ++row)
                for (int n = 0; n < BACK; ++n) {
                    const int64_t unit = (block * BACK + n) * L;
                    if (unit >= H) break;
                    backward_cell(index, row, unit, unprojected + ((row - row0) * BACK + n) * L, carry, hidden, products);
                }
        });
    }

    SEQCELLS_INLINE void backward_cell(int64_t index, int64_t row, int64_t unit, const T* unprojected, T* carry,
                                       T* hidden, T* products) const {
        const int64_t t = times.at(index), place = t * B + row, count = H - unit;
        V x[Cell::gates], r[R + 1], s[S], n[S], u[Cell::parameters + 1], d[S], saved[Cell::saves + 1];
        V ds[S], du[Cell::parameters + 1];
        if (times.valid(t, row)) {
            for (int k = 0; k < Cell::saves; ++k)
                saved[k] = load(as(p.saved) + (place * Cell::saves + k) * H + unit, count);
            for (int k = 0; k < Cell::parameters; ++k) u[k] = load(as(p.unit) + k * H + unit, count);
            for (int state = 0; state < S; ++state) {
                s[state] = Cell::previous[state] ? previous(state, index, row, unit, count) : V{};
                n[state] = V{};
                if (Cell::next[state]) {
                    const void* from = p.path[state] ? p.path[state] : p.output;
                    n[state] = load(as(from) + place * H + unit, count);
                }
                if (state) d[state] = load(carry + (state * B + row) * H + unit, count);
            }
            d[0] = p.weight_hr ? load(unprojected)
                               : load(hidden + row * P + unit, count) + load(as(p.grad_output) + place * P + unit, count);
            Cell::template backward<V>(saved, s, n, u, d, x, r, ds, du);
            for (int state = 1; state < S; ++state) store(carry + (state * B + row) * H + unit, ds[state], count);
            if (!p.weight_hr) store(hidden + row * P + unit, ds[0], count);
            for (int k = 0; k < Cell::parameters; ++k) {
                T* sum = as(p.grad_unit) + k * H + unit;
                store(sum, load(sum, count) + du[k], count);
            }
        } else {
            // The state was left alone, and so is its gradient.
            for (int gate = 0; gate < Cell::gates; ++gate) x[gate] = V{};
            for (int gate = 0; gate < R; ++gate) r[gate] = V{};
        }
        for (int gate = 0; gate < Cell::gates; ++gate)
            store(as(p.grad_gates_x) + (place * Cell::gates + gate) * H + unit, x[gate], count);
        int own = 0;
        for (int gate = 0; gate < R; ++gate) {
            store(products + row * R * H + gate * H + unit, r[gate], count);
            if (p.grad_bias) {
                T* sum = as(p.grad_bias) + gate * H + unit;
                store(sum, load(sum, count) + r[gate], count);
            }
            if (Cell::shared[gate] < 0)
                store(as(p.grad_product) + (place * unshared() + own++) * H + unit, r[gate], count);
        }
    }

    // A state before a step.
    V previous(int state, int64_t index, int64_t row, int64_t unit, int64_t count) const {
        const int64_t t = times.at(index);
        if (state == 0) return load(as(p.previous_hidden) + (t * B + row) * P + unit, count);
        if (times.boundary(t, row)) return fresh(state, row, unit, count);
        if (index == 0) return load(as(p.initial[state]) + row * H + unit, count);
        return load(as(p.path[state]) + (times.at(index - 1) * B + row) * H + unit, count);
    }

    // What reaches the previous hidden state through the product. A row that was left alone keeps its gradient.
    void product_backward(int64_t index, int64_t block, const T* products, int64_t depth, T* carry, T* hidden) const {
        alignas(64) T sums[BATCH * BACK * L];
        each_batch(B, [&](int64_t row0, int64_t row1) {
            if constexpr (R > 0)
                product<T, BACK>(weights.get() + block * depth * BACK * L, depth, products + row0 * depth, depth, row1 - row0, sums);
            for (int64_t row = row0; row < row1; ++row) {
                if (!times.valid(times.at(index), row)) continue;
                for (int n = 0; n < BACK; ++n) {
                    const int64_t unit = (block * BACK + n) * L, count = P - unit;
                    if (count <= 0) break;
                    V value = R ? load(sums + ((row - row0) * BACK + n) * L) : V{};
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
                if (p.grad_reset[state]) as(p.grad_reset[state])[row * (state ? H : P) + unit] += from[unit];
                from[unit] = T(0);
            }
        });
    }

    void end_backward(Share mine, Share my_projected, T* carry, T* hidden) const {
        each_mine(mine, my_projected, [&](int state, int64_t row, int64_t first, int64_t last) {
            const T* from = carried(state, row, carry, hidden);
            T* to = as(p.grad_initial[state]) + row * (state ? H : P);
            for (int64_t unit = first; unit < last; ++unit) to[unit] = from[unit];
        });
    }
};

}  // namespace
}  // namespace seqcells
