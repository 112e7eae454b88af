// A cell over time.
//
// Each item is a block of hidden units and some rows: in each step the recurrent product and the cell for them. When all
// are done, the hidden state that the next step reads is complete.

#pragma once

#include "sequence.h"

namespace seqcells {
namespace {

template <class T, class O = T>
class Forward : public Sequence<T, O> {
    using Base = Sequence<T, O>;
    using Base::B, Base::G, Base::H, Base::L, Base::P, Base::R, Base::S, Base::WIDE;
    using Base::as, Base::back, Base::cell, Base::fill_up, Base::in_its_type, Base::p, Base::rounds,
        Base::there, Base::times;

    const int64_t group;  // steps whose inputs are projected together
    Blocks all, projected;
    Parts lots;           // of the rows, where threads share out rows and not units; else none
    Buffer<Word<O>> packed_;
    // Of now and of the next step, the other states, and the inputs' products.
    Buffer<T> hidden, states, inputs;
    // What products read: the hidden state where it has to be rounded, that before projection, the inputs.
    Buffer<O> operands, unprojected, input_rows;
    // The packed weights: of the recurrent product, of the input's, of the projection.
    Word<O>*weights = nullptr, *input_weights = nullptr, *projection = nullptr;

  public:
    Forward(const Cell& of, const Problem& problem)
        : Base(of, problem), group(B < BATCH ? BATCH / (B ? B : 1) : 1), all(H, L, 1), projected(P, L, 1), lots(0, 1) {}

    int64_t threads() const {
        const int64_t count = Base::worth(B * H * (R * P + G * p.features + 8));
        return count < all.vectors ? count : all.vectors;
    }

    // Cuts the blocks for so many threads, or as packed weights are.
    void share_among(int64_t members) {
        const auto* cut = static_cast<const int64_t*>(p.packed);
        all = cut ? Blocks(H, L, cut[0]) : Blocks(H, L, units(), members);
        projected = cut ? Blocks(P, L, cut[1]) : Blocks(P, L, WIDE, members);
        // Rows need not meet. Where they are tiles for each thread, and its cache holds all weights, they are shared out.
        const int64_t bytes = G * H * (P + p.features) * int64_t(sizeof(O)), each = B / members;
        if (members > 1 && each >= 4 && bytes <= cache_bytes() && packed() && !p.weight_hr && (!p.input || input_fits()))
            lots = Parts(B, each >= 8 ? (each + 1) / 2 : each);
    }

    bool allocate() {
        const int64_t width = all.vectors * L;
        if (packs()) packed_ = Buffer<Word<O>>(layout(nullptr));
        if (p.weight_hr) unprojected = Buffer<O>(B * Base::template padded<O>(H));
        if (rounds) operands = Buffer<O>(2 * B * operands_width());
        if (p.input && !input_fits()) input_rows = Buffer<O>(group * B * filled<O>(p.features));
        if (p.input) inputs = Buffer<T>(group * B * G * width);
        if (S > 1) states = Buffer<T>(S * B * states_width());
        hidden = Buffer<T>(2 * B * hidden_width());
        if (!there(packed_, hidden, states, inputs, operands, unprojected, input_rows)) return false;
        layout(p.packed ? words_of(p.packed) : packed_.get());
        if (rounds) fill_up(operands.get(), 2 * B, P);
        if (p.weight_hr) fill_up(unprojected.get(), B, H);
        return true;
    }

    void run(Member& member) {
        member.each(all.count, false, [&](int64_t block) {
            if (packs()) pack_block(all.of(block));
            begin(all.of(block));
        });
        if (p.weight_hr)
            member.each(projected.count, false, [&](int64_t block) {
                if (packs()) pack_projection(projected.of(block));
                begin_projected(projected.of(block));
            });
        // Steps that are projected together have few rows.
        const Parts parts = group > 1 ? Parts(B, BATCH) : Base::parts_of(all.of(0).count() * L * (R * P + G * p.features));
        const int64_t items = all.count * parts.count;
        const auto one = [&](int64_t index, int64_t item) { step(index, item / parts.count, parts.of(item % parts.count)); };
        if (!R && !p.weight_hr && (!p.input || input_fits())) {
            // Nobody reads what others have made.
            member.each(items, false, [&](int64_t item) {
                for (int64_t index = 0; index < p.steps; ++index) one(index, item);
            });
            return;
        }
        if (lots.count) {
            // For some steps at a time, so that no item is long, and threads that are late may be helped.
            const int64_t work = lots.of(0).count() * H * (R * P + (p.input ? G * p.features : 0)), window = 1 + ITEM / (work + 1);
            for (int64_t first = 0; first < p.steps; first += window)
                member.each(lots.count, false, [&](int64_t lot) { step_lot(first, first + window < p.steps ? first + window : p.steps, lots.of(lot)); });
            return;
        }
        for (int64_t index = 0; index < p.steps; ++index) {
            if (p.input && !input_fits() && index % group == 0)
                member.each(Parts(grouped_rows(index), BATCH).count, false, [&](int64_t part) { align_inputs(index, part); });
            member.each(items, back(index), [&](int64_t item) { one(index, item); });
            if (p.weight_hr)
                member.each(projected.count * parts.count, false, [&](int64_t item) {
                    project(index, projected.of(item / parts.count), parts.of(item % parts.count));
                });
        }
    }

    // The weights packed into memory for other calls, with how they are cut; returns how many bytes they take.
    static int64_t pack(const Cell& of, const Problem& problem, void* memory) {
        Forward pass(of, problem);
        pass.share_among(problem.threads);
        const int64_t bytes = HEAD + pass.layout(nullptr) * int64_t(sizeof(Word<O>));
        if (memory) {
            static_cast<int64_t*>(memory)[0] = pass.all.count, static_cast<int64_t*>(memory)[1] = pass.projected.count;
            pass.layout(words_of(memory));
            for (int64_t block = 0; block < pass.all.count; ++block) pass.pack_block(pass.all.of(block));
            for (int64_t block = 0; block < pass.projected.count && problem.weight_hr; ++block)
                pass.pack_projection(pass.projected.of(block));
        }
        return bytes;
    }

  private:
    static constexpr int64_t HEAD = 64;  // bytes before the words of packed memory: the numbers of blocks

    static Word<O>* words_of(const void* packed) {
        return reinterpret_cast<Word<O>*>(static_cast<char*>(const_cast<void*>(packed)) + HEAD);
    }

    // Vectors of units of a block: so many that its gates are whole panels, and enough sums for one row.
    int units() const {
        const int gates = int(R > G ? R : G), wanted = VECTOR_REGISTERS >= 32 ? 8 / gates : gates > 3 ? 3 : 6 / gates;
        return wanted < 1 || wanted * gates > MOST ? 1 : wanted;
    }

    int64_t hidden_width() const { return Base::template padded<T>(P); }
    int64_t operands_width() const { return Base::template padded<O>(P); }
    int64_t states_width() const { return Base::template padded<T>(all.vectors * L); }

    // Packing reads and writes all weights once: as long as some thirty rows take on weights as they lie.
    bool few() const { return p.steps * B <= 32; }
    bool packs() const { return !p.packed && !few(); }
    bool packed() const { return p.packed || !few(); }

    // Where packed weights lie from `at` on; returns how many words they take.
    int64_t layout(Word<O>* at) {
        const int64_t width = all.vectors * L;
        const int64_t recurrent = R * width * words<O>(P), input = p.weight_ih ? G * width * words<O>(p.features) : 0;
        const int64_t own = p.weight_hr ? projected.vectors * L * words<O>(H) : 0;
        if (at) weights = at, input_weights = at + recurrent, projection = at + recurrent + input;
        return recurrent + input + own;
    }
    Word<O>* of_block(Word<O>* all, Share units, int64_t gates, int64_t depth) const {
        return all + gates * units.first * L * words<O>(depth);
    }

    // Whether the product can read the input where it lies.
    bool input_fits() const { return sizeof(O) == (p.halves ? sizeof(bfloat16) : sizeof(T)) && filled<O>(p.features) == p.features; }

    // The hidden state before a step as the product reads it, its rows in whole words.
    const O* operand(int64_t index) const {
        if constexpr (rounds)
            return operands.get() + index % 2 * B * operands_width();
        else
            return hidden.get() + index % 2 * B * hidden_width();
    }

    // Of the steps that are projected with step `index`: where it is among them in time, and the first in time.
    int64_t place_in_group(int64_t index) const { return times.at(index) - first_in_group(index - index % group); }
    int64_t first_in_group(int64_t begin) const {
        return p.reverse ? times.at(begin + group < p.steps ? begin + group - 1 : p.steps - 1) : begin;
    }

    // Of the steps that are projected with step `begin`, which come next.
    int64_t grouped_rows(int64_t begin) const { return (group < p.steps - begin ? group : p.steps - begin) * B; }
    const O* rows_of_inputs(int64_t begin) const {
        if (input_fits()) return static_cast<const O*>(p.input) + first_in_group(begin) * B * p.features;
        return input_rows.get();
    }

    void align_inputs(int64_t begin, int64_t part) const {
        const Share rows = Parts(grouped_rows(begin), BATCH).of(part);
        in_its_type(p.input, [&](const auto* from) {
            from += first_in_group(begin) * B * p.features;
            for (int64_t row = rows.first; row < rows.last; ++row)
                align(from + row * p.features, p.features, input_rows.get() + row * filled<O>(p.features));
        });
    }

    // The input's products of a block, for some rows of the steps that are projected together.
    void project_inputs(int64_t begin, Share units, Share rows, T* to) const {
        const int64_t stride = filled<O>(p.features), width = G * units.count() * L;
        const O* from = rows_of_inputs(begin);
        each_batch(rows.count(), [&](int64_t first, int64_t last) {
            const int64_t row = rows.first + first;
            if (packed())
                product<O>(of_block(input_weights, units, G, p.features), int(G * units.count()), p.features, from + row * stride,
                           stride, last - first, to + row * width);
            else
                unpacked(p.weight_ih, units, G, p.features, from + row * stride, stride, last - first, to + row * width);
        });
    }

    void pack_gates(const void* weight, int64_t gates, int64_t depth, Share units, Word<O>* to) const {
        const int vectors = int(gates * units.count());
        for (int n = 0; n < vectors; ++n) {
            const int64_t unit = (units.first + n % units.count()) * L, gate = n / units.count();
            int64_t width;
            Word<O>* column = place<O>(to, vectors, depth, n, width);
            in_its_type(weight, [&](const auto* from) {
                seqcells::pack<O>(from + (gate * H + unit) * depth, 1, depth, depth, H - unit, column, width);
            });
        }
    }

    void pack_block(Share units) const {
        if (R) pack_gates(p.weight_hh, R, P, units, of_block(weights, units, R, P));
        if (p.weight_ih) pack_gates(p.weight_ih, G, p.features, units, of_block(input_weights, units, G, p.features));
    }

    void pack_projection(Share units) const {
        for (int n = 0; n < units.count(); ++n) {
            const int64_t unit = (units.first + n) * L;
            int64_t width;
            Word<O>* column = place<O>(of_block(projection, units, 1, H), int(units.count()), H, n, width);
            in_its_type(p.weight_hr, [&](const auto* from) { seqcells::pack<O>(from + unit * H, 1, H, H, P - unit, column, width); });
        }
    }

    // The states before the first step, reset where it begins with a boundary.
    void begin(Share units) const {
        const int64_t width = states_width(), first = units.first * L, last = units.last * L < H ? units.last * L : H;
        if (!p.weight_hr) begin_hidden(first, last);
        for (int state = 1; state < S; ++state)
            for (int64_t row = 0; row < B; ++row) {
                T* to = states.get() + (state * B + row) * width;
                copy_start(state, row, first, last, to + first);
                for (int64_t unit = last; unit < units.last * L; ++unit) to[unit] = T(0);
            }
    }
    void begin_projected(Share units) const { begin_hidden(units.first * L, units.last * L < P ? units.last * L : P); }
    void begin_hidden(int64_t first, int64_t last) const {
        for (int64_t row = 0; row < B; ++row) {
            T* to = hidden.get() + row * hidden_width();
            copy_start(0, row, first, last, to + first);
            for (int64_t unit = first; unit < last && rounds; ++unit) operands.get()[row * operands_width() + unit] = to[unit];
        }
    }

    void copy_start(int state, int64_t row, int64_t first, int64_t last, T* to) const {
        const bool boundary = p.steps && times.boundary(times.at(0), row);
        const void* from = boundary ? p.reset_states[state] : p.initial[state];
        as(from).copy(row * (state ? H : P) + first, last - first, to);
    }

    // Some rows of all units in some steps.
    void step_lot(int64_t first, int64_t last, Share rows) const {
        for (int64_t index = first; index < last; ++index)
            for (int64_t k = 0; k < all.count; ++k)
                each_batch(rows.count(), [&](int64_t from, int64_t to) {
                    step(index, back(index) ? all.count - 1 - k : k, Share::range(rows.first + from, rows.first + to));
                });
    }

    void step(int64_t index, int64_t block, Share rows) const {
        alignas(64) T products[BATCH * MOST * L];
        const Share units = all.of(block);
        T* of_inputs = inputs.get() + units.first * L * G * group * B;
        // The rows of the whole group with its first step, or each step's own.
        if (p.input && group > 1 && index % group == 0 && !lots.count)
            project_inputs(index, units, Share(grouped_rows(index), 0, 1), of_inputs);
        for (int64_t place = 0; p.input && group > 1 && index % group == 0 && lots.count && place * B < grouped_rows(index); ++place)
            project_inputs(index, units, Share::range(place * B + rows.first, place * B + rows.last), of_inputs);
        if (p.input && group == 1) project_inputs(index, units, rows, of_inputs);
        const int64_t width = R * units.count() * L, count = Base::present(times.at(index), rows) - rows.first;
        if (R && count > 0) {
            const O* from = operand(index) + rows.first * operands_width();
            if (packed())
                product<O>(of_block(weights, units, R, P), int(R * units.count()), P, from, operands_width(), count, products);
            else
                unpacked(p.weight_hh, units, R, P, from, operands_width(), count, products);
        }
        Step<T> s = step_of(index, rows);
        s.unit = units.first * L, s.vectors = int(units.count());
        s.products = products, s.products_width = width;
        s.inputs = p.input ? of_inputs + (place_in_group(index) * B + rows.first) * G * units.count() * L : nullptr;
        s.inputs_width = G * units.count() * L;
        s.states = states.get(), s.states_width = states_width();
        s.unprojected = unprojected.get(), s.unprojected_width = Base::template padded<O>(H);
        s.next_index = index, s.next_unit = -1;
        const int64_t next = block + (back(index) ? -1 : 1);
        if (next >= 0 && next < all.count)
            s.next_unit = all.of(next).first * L, s.next_vectors = int(all.of(next).count());
        else if (index + 1 < p.steps)
            s.next_unit = s.unit, s.next_vectors = s.vectors, s.next_index = index + 1;
        cell.forward(&s);
    }

    // What every part of a step has.
    Step<T> step_of(int64_t index, Share rows) const {
        Step<T> s{};
        s.p = &p, s.index = index, s.row0 = rows.first, s.row1 = rows.last, s.pairs = rounds;
        s.now = hidden.get() + index % 2 * B * hidden_width(), s.next = hidden.get() + (index + 1) % 2 * B * hidden_width();
        s.hidden_width = hidden_width();
        s.operands = rounds ? operands.get() + (index + 1) % 2 * B * operands_width() : nullptr;
        s.operands_width = operands_width();
        return s;
    }

    void unpacked(const void* weight, Share units, int64_t gates, int64_t depth, const O* a, int64_t stride, int64_t rows, T* out) const {
        const int64_t width = gates * units.count() * L;
        in_its_type(weight, [&](const auto* from) {
            for (int64_t n = 0; n < gates * units.count(); ++n) {
                const int64_t unit = (units.first + n % units.count()) * L, gate = n / units.count();
                dots<O>(from + (gate * H + unit) * depth, H - unit, depth, a, stride, rows, out + n * L, width);
            }
        });
    }

    void project(int64_t index, Share units, Share rows) const {
        alignas(64) T products[BATCH * WIDE * L];
        const int64_t t = times.at(index), vectors = units.count();
        const Step<T> s = step_of(index, rows);
        const int64_t stride = Base::template padded<O>(H);
        const O* from = unprojected.get() + rows.first * stride;
        if (packed())
            product<O>(of_block(projection, units, 1, H), int(vectors), H, from, stride, rows.count(), products);
        else
            in_its_type(p.weight_hr, [&](const auto* weight) {
                for (int64_t n = 0; n < vectors; ++n) {
                    const int64_t unit = (units.first + n) * L;
                    dots<O>(weight + unit * H, P - unit, H, from, stride, rows.count(), products + n * L, vectors * L);
                }
            });
        for (int64_t row = rows.first; row < rows.last; ++row)
            for (int64_t n = 0; n < vectors; ++n) {
                const int64_t unit = (units.first + n) * L, count = P - unit;
                const bool valid = times.valid(t, row);
                const Vector<T> value = load(products + ((row - rows.first) * vectors + n) * L);
                as(p.output).store((t * B + row) * p.output_width + unit, valid ? value : Vector<T>{}, count);
                const bool boundary = index + 1 < p.steps && times.boundary(times.at(index + 1), row);
                keep_hidden(p, s, row, unit, valid ? value : load(s.now + row * s.hidden_width + unit, count), boundary, count, p.halves);
            }
    }
};

}  // namespace
}  // namespace seqcells
