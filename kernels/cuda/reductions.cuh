// Reductions over the units of a row. Each block reduces its own units and sends its partial results to all blocks. Then it
// merges the partial results of all blocks, in the order of blocks.
//
// A warp computes one reduction, and a lane one row. So sums have the same order in every launch.

#pragma once

#include "activations.cuh"
#include "sizes.cuh"

namespace seqcells {

// A partial result, over some units. VARIANCE has their sum, and the sum of squared distances from their mean. LOGSUMEXP has
// the largest value, and the sum of exponentials of distances from it. Other reductions have one number.
struct Partial {
    float first, second;
};

template <Reduced HOW>
SEQCELLS_INLINE Partial reduced(const float* units, int count) {
    if (count == 0) return {0.0f, 0.0f};
    Partial p{units[0], 0.0f};
    for (int u = 1; u < count; ++u) p.first = HOW == Reduced::MAX || HOW == Reduced::LOGSUMEXP ? maximum(units[u], p.first) : p.first + units[u];
    if constexpr (HOW == Reduced::VARIANCE) {
        const float mean = p.first / float(count);
        for (int u = 0; u < count; ++u) p.second += (units[u] - mean) * (units[u] - mean);
    }
    if constexpr (HOW == Reduced::LOGSUMEXP)
        for (int u = 0; u < count; ++u) p.second += exp(units[u] - p.first);
    return p;
}

// Merges the partial results of all blocks. They cover count(block) units of each block, `all` together; the first block has at
// least one.
template <Reduced HOW, int BLOCKS, class Part, class Count>
SEQCELLS_INLINE float merged(int all, Part part, Count count) {
    float total = part(0).first, second = 0.0f;
    for (int block = 1; block < BLOCKS; ++block) {
        if (HOW == Reduced::MAX || HOW == Reduced::LOGSUMEXP)
            total = count(block) ? maximum(part(block).first, total) : total;
        else
            total += part(block).first;
    }
    if (HOW == Reduced::SUM || HOW == Reduced::MAX) return total;
    if (HOW == Reduced::MEAN) return total / float(all);
    for (int block = 0; block < BLOCKS; ++block) {
        if (!count(block)) continue;
        const Partial p = part(block);
        if (HOW == Reduced::VARIANCE) {
            const float apart = p.first / float(count(block)) - total / float(all);
            second += p.second + float(count(block)) * apart * apart;
        } else {
            second += p.second * exp(p.first - total);
        }
    }
    return HOW == Reduced::VARIANCE ? second / float(all) : total + logarithm(second);
}

// The reductions before a stage. Shared memory holds the values of this block's units, this block's partial results, and the
// results of the rows. It also holds two buffers for the partial results of all blocks.
template <class Program, class Form, int STAGE>
struct Reductions {
    using Z = Sizes<Form>;
    static constexpr int ALL = int(Program::reductions.size()), PITCH = Form::UNITS + 1;
    static_assert(Form::ROWS <= 32);

    // The index of reduction r among the stage's reductions; for r = ALL, how many the stage has.
    static constexpr int place(int r) {
        int found = 0;
        for (int k = 0; k < r; ++k) found += Program::reductions[k].stage == STAGE;
        return found;
    }
    static constexpr int COUNT = place(ALL), BYTES = COUNT * Form::ROWS * int(sizeof(Partial));
    static constexpr int EXCHANGE = Z::OPERANDS + Z::PRODUCTS + STAGE;
    // Whether a slot is the result of one of these reductions. Later stages have that result in a register.
    static constexpr bool gives(const Slot slot) { return slot.where == Where::NUMBER && Program::reductions[slot.column].stage == STAGE; }
    // The first reduction of the stage that reads the same value.
    static constexpr int like(int r) {
        for (int k = 0; k < r; ++k)
            if (Program::reductions[k].stage == STAGE && Program::reductions[k].from.value == Program::reductions[r].from.value) return k;
        return r;
    }
    // A reduction of the stage as a type. `each` calls f with each of them.
    template <int R>
    struct One {
        static constexpr Reduced how = Program::reductions[R].how;
        static constexpr Slot from = Program::reductions[R].from;
        static constexpr int at = place(R), source = place(like(R));
    };
    template <class F>
    SEQCELLS_DEVICE void each(F f) {
        each_constant<ALL>([&](auto r) {
            constexpr int R = decltype(r)::value;
            if constexpr (Program::reductions[R].stage == STAGE) f(One<R>{});
        });
    }

    template <class Of>
    SEQCELLS_DEVICE float* units(char* shared, int row) {
        return reinterpret_cast<float*>(shared + Form::REDUCED_AT) + (Of::source * Form::ROWS + row) * PITCH;
    }
    SEQCELLS_DEVICE int received_at(int parity) { return Form::merged_at[STAGE] + parity * Form::BLOCKS * BYTES; }
    SEQCELLS_DEVICE int units_of(int block) { return smaller(Form::UNITS, larger(0, Form::H - block * Form::UNITS)); }
    template <int R>
    SEQCELLS_DEVICE float& number(char* shared, int row) {
        return reinterpret_cast<float*>(shared + Form::NUMBERS_AT)[One<R>::at * Form::ROWS + row];
    }

    // Computes this block's partial results, after all threads have written the values to reduce.
    SEQCELLS_DEVICE void reduce(char* shared, int rank) {
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        each([&](auto one) {
            using Of = decltype(one);
            Partial* const to = reinterpret_cast<Partial*>(shared + Form::PARTIAL_AT) + Of::at * Form::ROWS;
            if (warp == Of::at % Form::WARPS && lane < Form::ROWS) to[lane] = reduced<Of::how>(units<Of>(shared, lane), units_of(rank));
        });
    }
    // Computes the results of the rows, after the partial results of all blocks have arrived.
    SEQCELLS_DEVICE void merge(char* shared, int parity) {
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        each([&](auto one) {
            using Of = decltype(one);
            if (warp != Of::at % Form::WARPS || lane >= Form::ROWS) return;
            const char* const from = shared + received_at(parity) + (Of::at * Form::ROWS + lane) * int(sizeof(Partial));
            const auto part = [&](int block) { return *reinterpret_cast<const Partial*>(from + block * BYTES); };
            float* const to = reinterpret_cast<float*>(shared + Form::NUMBERS_AT) + Of::at * Form::ROWS;
            to[lane] = merged<Of::how, Form::BLOCKS>(Form::H, part, units_of);
        });
    }
};

}  // namespace seqcells
