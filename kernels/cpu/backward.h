// The gradients of a cell over time.
//
// In each step the cell's gradients are computed for blocks of units; when those of all are done, what their products pass
// on to blocks of the hidden state before.

#pragma once

#include "sequence.h"

namespace seqcells {
namespace {

template <class T, class O = T>
class Backward : public Sequence<T, O> {
    using Base = Sequence<T, O>;
    using Base::B, Base::G, Base::H, Base::L, Base::P, Base::R, Base::S, Base::WIDE;
    using Base::as, Base::back, Base::cell, Base::fill_up, Base::in_full, Base::in_its_type, Base::p, Base::rounds, Base::there,
        Base::times;

    Blocks all, before;  // of this step's units, and of the previous hidden state's columns
    Buffer<Word<O>> weights, projection;
    // Between steps: the gradients of the hidden state and of the other states.
    Buffer<T> hidden, states, sums;
    Buffer<double> totals;
    // What products read: the gradients of the products of this step and the next, and of a projected hidden state.
    Buffer<O> operands, projected;

  public:
    Backward(const Cell& of, const Problem& problem) : Base(of, problem), all(H, L, 1), before(P, L, 1) {}

    int64_t threads() const {
        const int64_t count = Base::worth(B * H * (R * P + 8)), most = (all.vectors + 1) / 2;
        return count < most ? count : most;
    }

    void share_among(int64_t members) { all = Blocks(H, L, WIDE, members), before = Blocks(P, L, WIDE, members); }

    bool allocate() {
        if (R) weights = Buffer<Word<O>>(before.vectors * L * words<O>(R * H));
        if (p.weight_hr) projection = Buffer<Word<O>>(all.vectors * L * words<O>(P)), projected = Buffer<O>(B * projected_width());
        hidden = Buffer<T>(B * hidden_width());
        if (S > 1) states = Buffer<T>(S * B * width());
        operands = Buffer<O>(2 * B * operands_width());
        sums = Buffer<T>(parts().count * summed() * H), totals = Buffer<double>(parts().count * summed() * H);
        if (!there(weights, projection, projected, states, hidden, operands, sums, totals)) return false;
        fill_up(operands.get(), 2 * B, R * H);
        if (p.weight_hr) fill_up(projected.get(), B, P);
        return true;
    }

    void run(Member& member) {
        member.each(before.count, false, [&](int64_t block) {
            if (R) pack_recurrent(before.of(block));
            begin_hidden(before.of(block));
        });
        member.each(all.count, false, [&](int64_t block) {
            if (p.weight_hr) pack_projection(all.of(block));
            begin(all.of(block));
        });
        const Parts rows = parts();
        const auto of_projected = [&](int64_t index, int64_t item) { store_projected(index, before.of(item / rows.count), rows.of(item % rows.count)); };
        const auto of_cell = [&](int64_t index, int64_t item) { step(index, item / rows.count, item % rows.count); };
        const auto of_product = [&](int64_t index, int64_t item) { pass_on(index, before.of(item / rows.count), rows.of(item % rows.count)); };
        if (R || p.weight_hr) {
            for (int64_t index = p.steps - 1; index >= 0; --index) {
                if (p.weight_hr) member.each(before.count * rows.count, false, [&](int64_t item) { of_projected(index, item); });
                member.each(all.count * rows.count, false, [&](int64_t item) { of_cell(index, item); });
                member.each(before.count * rows.count, back(index), [&](int64_t item) { of_product(index, item); });
            }
        } else {
            // The hidden state goes on unit by unit, and the two are cut alike.
            member.each(all.count * rows.count, false, [&](int64_t item) {
                for (int64_t index = p.steps - 1; index >= 0; --index) of_cell(index, item), of_product(index, item);
            });
        }
        member.each(all.count, false, [&](int64_t block) { end(all.of(block)); });
        member.each(before.count, false, [&](int64_t block) { end_state(0, before.of(block), hidden.get(), hidden_width()); });
    }

  private:
    int64_t width() const { return Base::template padded<T>(all.vectors * L); }
    int64_t hidden_width() const { return Base::template padded<T>(P); }
    int64_t operands_width() const { return Base::template padded<O>(R * H); }
    int64_t projected_width() const { return Base::template padded<O>(P); }
    Parts parts() const { return Base::parts_of(WIDE * L * R * H); }
    // Gradients that are sums over steps and rows: of biases and of parameters.
    int64_t summed() const { return G + cell.unshared() + cell.parameters; }

    void pack_columns(const void* weight, int64_t columns, int64_t depth, Share units, Word<O>* all_packed) const {
        for (int n = 0; n < units.count(); ++n) {
            const int64_t unit = (units.first + n) * L;
            int64_t width;
            Word<O>* column = place<O>(all_packed + units.first * L * words<O>(depth), int(units.count()), depth, n, width);
            in_its_type(weight, [&](const auto* from) { seqcells::pack<O>(from + unit, columns, 1, depth, columns - unit, column, width); });
        }
    }
    void pack_recurrent(Share units) const { pack_columns(p.weight_hh, P, R * H, units, weights.get()); }
    void pack_projection(Share units) const { pack_columns(p.weight_hr, H, P, units, projection.get()); }

    void begin_hidden(Share units) const { begin_state(0, units, hidden.get(), P, hidden_width()); }
    void begin(Share units) const {
        for (int state = 1; state < S; ++state) begin_state(state, units, states.get() + state * B * width(), H, width());
        const int64_t first = units.first * L, last = units.last * L < H ? units.last * L : H;
        for (int64_t k = 0; k < parts().count * summed() && first < last; ++k) {
            std::memset(static_cast<void*>(sums.get() + k * H + first), 0, (last - first) * sizeof(T));
            std::memset(static_cast<void*>(totals.get() + k * H + first), 0, (last - first) * sizeof(double));
        }
    }
    void begin_state(int state, Share units, T* to, int64_t columns, int64_t stride) const {
        const int64_t first = units.first * L, count = (units.last * L < columns ? units.last * L : columns) - first;
        for (int64_t row = 0; row < B && count > 0; ++row) {
            as(p.grad_final[state]).copy(row * columns + first, count, to + row * stride + first);
            if (p.grad_reset[state]) std::memset(static_cast<void*>(in_full(p.grad_reset[state]) + row * columns + first), 0, count * sizeof(T));
        }
    }

    // The gradient of a projected hidden state: from the output and from the next step.
    void store_projected(int64_t index, Share units, Share rows) const {
        const int64_t t = times.at(index);
        for (int64_t row = rows.first; row < rows.last; ++row)
            for (int64_t unit = units.first * L; unit < units.last * L && unit < P; ++unit) {
                const T of_output = as(p.grad_output)[(t * B + row) * p.output_width + unit];
                const T grad = times.valid(t, row) ? of_output + hidden.get()[row * hidden_width() + unit] : T(0);
                as(p.grad_projected).set((t * B + row) * P + unit, grad);
                projected.get()[row * projected_width() + unit] = grad;
            }
    }

    void step(int64_t index, int64_t block, int64_t part) const {
        alignas(64) T unprojected[BATCH * WIDE * L];
        const Share units = all.of(block), rows = parts().of(part);
        if (p.weight_hr)
            product<O>(projection.get() + units.first * L * words<O>(P), int(units.count()), P,
                       projected.get() + rows.first * projected_width(), projected_width(), rows.count(), unprojected);
        Step<T> s{};
        s.p = &p, s.index = index, s.row0 = rows.first, s.row1 = rows.last, s.pairs = rounds;
        s.unit = units.first * L, s.vectors = int(units.count());
        s.products = unprojected, s.products_width = units.count() * L;
        s.states = states.get(), s.states_width = width();
        s.operands = operands.get() + index % 2 * B * operands_width(), s.operands_width = operands_width();
        s.hidden = hidden.get(), s.hidden_width = hidden_width();
        s.sums = sums.get() + part * summed() * H, s.totals = totals.get() + part * summed() * H;
        s.terms = (p.steps - 1 - index) * rows.count(), s.with_biases = p.grad_bias_ih || p.grad_bias_hh;
        s.next_index = index, s.next_unit = -1;
        if (block + 1 < all.count)
            s.next_unit = all.of(block + 1).first * L, s.next_vectors = int(all.of(block + 1).count());
        else if (index)
            s.next_unit = 0, s.next_vectors = int(all.of(0).count()), s.next_index = index - 1;
        cell.backward(&s);
    }

    // What reaches the previous hidden state through the product. A row that was left alone keeps its gradient. At a boundary
    // what was carried goes to the reset states instead.
    void pass_on(int64_t index, Share units, Share rows) const {
        alignas(64) T products[BATCH * WIDE * L];
        const int64_t depth = R * H, vectors = units.count(), t = times.at(index), present = Base::present(t, rows);
        if (R && present > rows.first)
            product<O>(weights.get() + units.first * L * words<O>(depth), int(vectors), depth,
                       operands.get() + (index % 2 * B + rows.first) * operands_width(), operands_width(), present - rows.first, products);
        for (int64_t row = rows.first; row < rows.last; ++row) {
            const bool valid = times.valid(t, row), boundary = times.boundary(t, row);
            if (!valid && !boundary) continue;
            for (int64_t n = 0; n < vectors; ++n) {
                const int64_t unit = (units.first + n) * L, count = P - unit;
                T* carried = hidden.get() + row * hidden_width() + unit;
                Vector<T> value = load(carried, count);
                if (valid) {
                    // A projected state is read by the product alone.
                    if (p.weight_hr) value = Vector<T>{};
                    if (R) value += load(products + ((row - rows.first) * vectors + n) * L);
                }
                if (boundary) {
                    T* to = in_full(p.grad_reset[0]) + row * P + unit;
                    if (p.grad_reset[0]) seqcells::store(to, load(to, count) + value, count);
                    value = Vector<T>{};
                }
                seqcells::store(carried, value, count);
            }
        }
    }

    void end(Share units) const {
        for (int state = 1; state < S; ++state) end_state(state, units, states.get() + state * B * width(), width());
        const int64_t first = units.first * L, last = units.last * L < H ? units.last * L : H;
        for (int64_t unit = first; unit < last; ++unit) {
            for (int k = 0; k < cell.parameters; ++k) in_full(p.grad_unit)[k * H + unit] = sum_of(G + cell.unshared() + k, unit);
            for (int gate = 0; gate < G && p.grad_bias_ih; ++gate) in_full(p.grad_bias_ih)[gate * H + unit] = sum_of(gate, unit);
            for (int gate = 0, own = 0; gate < R && p.grad_bias_hh; ++gate)
                in_full(p.grad_bias_hh)[gate * H + unit] = sum_of(cell.shared[gate] < 0 ? G + own++ : cell.shared[gate], unit);
        }
    }
    T sum_of(int64_t which, int64_t unit) const {
        double total = 0;
        for (int64_t part = 0; part < parts().count; ++part) {
            const int64_t place = (part * summed() + which) * H + unit;
            total += totals.get()[place] + double(sums.get()[place]);
        }
        return T(total);
    }
    void end_state(int state, Share units, const T* from, int64_t stride) const {
        const int64_t columns = state ? H : P, first = units.first * L, last = units.last * L < columns ? units.last * L : columns;
        for (int64_t row = 0; row < B && first < last; ++row)
            std::memcpy(in_full(p.grad_initial[state]) + row * columns + first, from + row * stride + first, (last - first) * sizeof(T));
    }
};

}  // namespace
}  // namespace seqcells
