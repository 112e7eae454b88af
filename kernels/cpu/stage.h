// The elementwise part of a stage over the rows of a block of units: the only code that is compiled for each cell.

#pragma once

#include "stage_block.h"

namespace seqcells {
namespace {

#define SEQCELLS_LAMBDA __attribute__((always_inline))

// Calls f with each number below N, as a compile-time constant.
template <int N, class F, std::size_t... I>
SEQCELLS_INLINE void each_constant(F f, std::index_sequence<I...>) {
    (f(std::integral_constant<int, int(I)>{}), ...);
}
template <int N, class F>
SEQCELLS_INLINE void each_constant(F f) {
    each_constant<N>(f, std::make_index_sequence<N>{});
}

// The I-th slot that stage K reads, or writes, as a type.
template <class Pass, int K, int I>
struct Read {
    static constexpr Slot slot = std::get<K>(Pass::reads)[I];
};
template <class Pass, int K, int I>
struct Written {
    static constexpr Slot slot = std::get<K>(Pass::results)[I];
};

// Whether a slot is read and written at all. Values that only boundaries need count as zero in calls without boundaries.
template <class Pass, bool BOUNDED>
constexpr bool is_needed(const Slot slot) {
    return BOUNDED || slot.where != Where::KEPT || !Pass::keep[slot.column].bounded;
}

// Reads the slots of a stage: with OF_ROW the slots with one number for a row, else the slots that differ from unit to unit.
template <class Pass, int K, bool BOUNDED, bool OF_ROW, bool BEGINS, class Compute, class V>
SEQCELLS_INLINE void read_all(const StageRow<Pass, Compute>& row, V* v, int sub, int64_t count, bool is_bfloat16) {
    each_constant<int(std::get<K>(Pass::reads).size())>([&](auto k) SEQCELLS_LAMBDA {
        using Of = Read<Pass, K, k>;
        constexpr Slot slot = Of::slot;
        if constexpr (is_of_row(slot.axes) == OF_ROW) {
            if constexpr (slot.where == Where::CARRIED && BEGINS) {
                if (row.p.arrays[slot.array])
                    row.template read<Of>(v[slot.value], sub, count, is_bfloat16);
                else
                    v[slot.value] = V{};
            } else if constexpr (slot.where != Where::CARRIED) {
                if constexpr (is_needed<Pass, BOUNDED>(slot))
                    row.template read<Of>(v[slot.value], sub, count, is_bfloat16);
                else
                    v[slot.value] = V{};
            }
        }
    });
}

template <class Pass, int K, bool BOUNDED, bool OF_ROW, bool LAST, class Compute, class V>
SEQCELLS_INLINE void write_all(const StageRow<Pass, Compute>& row, const V* v, int sub, int64_t count, bool is_bfloat16) {
    each_constant<int(std::get<K>(Pass::results).size())>([&](auto k) SEQCELLS_LAMBDA {
        using Of = Written<Pass, K, k>;
        constexpr Slot slot = Of::slot;
        if constexpr (is_needed<Pass, BOUNDED>(slot) && (slot.where == Where::GIVEN && is_of_row(slot.axes)) == OF_ROW) {
            if constexpr (slot.where == Where::CARRIED) {
                if (LAST && row.s.last) row.template write<Of>(v[slot.value], sub, count, is_bfloat16);
            } else {
                row.template write<Of>(v[slot.value], sub, count, is_bfloat16);
            }
        }
    });
    if constexpr (!OF_ROW)
        each_constant<int(Pass::operands.size())>([&](auto k) SEQCELLS_LAMBDA {
            constexpr int which = k;
            each_constant<Pass::operands[which].blocks>([&](auto block) SEQCELLS_LAMBDA {
                constexpr Multiplicand operand = Pass::operands[which];
                if constexpr (operand.made_at[block] == K) row.operand(which, block, v[operand.values[block]], sub, count);
            });
        });
}

// Computes N whole vectors of units of one row, where no array is bfloat16. N = 0 stands for one vector of any kind.
template <class Pass, int K, bool BOUNDED, class Compute, int N, bool BEGINS>
SEQCELLS_INLINE void stage_units(const StageBlock<Compute>& s, int64_t of_row, bool full, int sub) {
    // A single vector has the type VectorGroup, as vectors side by side, where a pass computes these. The compiler then fuses
    // the same products and sums to one rounding.
    using V = std::conditional_t<Pass::side_by_side, VectorGroup<Vector<Compute>, N ? N : 1>, Vector<Compute>>;
    using Valid = std::conditional_t<BOUNDED, Whether, Always>;
    using Reset = std::conditional_t<BOUNDED, Whether, Never>;
    constexpr int L = LANES<Compute>;
    constexpr int NEXT = BEGINS ? K : Pass::follows[K];  // the next step's first stage, or -1
    const LayerCall& p = *s.p;
    const int64_t units = p.sizes[Pass::letter[K]];
    // Only the code for a vector of any kind (N = 0) reads bfloat16 arrays, and computes their values in float.
    constexpr bool MAY_BE_BFLOAT16 = N == 0 && std::is_same_v<Compute, float>;
    const bool is_bfloat16 = MAY_BE_BFLOAT16 && p.is_bfloat16, bfloat16_operands = MAY_BE_BFLOAT16 && s.bfloat16_operands;
    const int64_t after = BEGINS ? s.index : s.index + Pass::by;
    const StageRow<Pass, Compute> now{s, p, units, s.index, of_row, TimeOrder{p}.at(s.index), false, full, bfloat16_operands},
        next{s, p, units, after, of_row, TimeOrder{p}.at(after), true, full, bfloat16_operands};
    const int64_t count = N ? L : units - (s.unit + sub * L);
    const TimeOrder times{p};
    const auto valid = [&](const StageRow<Pass, Compute>& row) {
        if constexpr (BOUNDED) return Valid{times.valid(times.at(row.index), row.row)};
        else return Valid{};
    };
    const auto reset = [&](const StageRow<Pass, Compute>& row) {
        if constexpr (BOUNDED) return Reset{times.boundary(times.at(row.index), row.row)};
        else return Reset{};
    };
    V v[Pass::values + 1];
    if constexpr (!BEGINS) {
        read_all<Pass, K, BOUNDED, true, false>(now, v, sub, count, is_bfloat16);
        Pass::template row<K>(v, valid(now), reset(now));
        read_all<Pass, K, BOUNDED, false, false>(now, v, sub, count, is_bfloat16);
        Pass::template units<K>(v, valid(now), reset(now));
        write_all<Pass, K, BOUNDED, true, NEXT >= 0>(now, v, sub, count, is_bfloat16);
        write_all<Pass, K, BOUNDED, false, NEXT >= 0>(now, v, sub, count, is_bfloat16);
        if (NEXT < 0 || s.last) return;
        each_constant<int(Pass::onward.size())>([&](auto k) SEQCELLS_LAMBDA {
            constexpr Onward each = Pass::onward[k];
            if constexpr (each.letter == Pass::letter[K]) v[each.becomes] = v[each.value];
        });
    }
    if constexpr (NEXT >= 0) {
        read_all<Pass, NEXT, BOUNDED, true, BEGINS>(next, v, sub, count, is_bfloat16);
        Pass::template row<NEXT>(v, valid(next), reset(next));
        read_all<Pass, NEXT, BOUNDED, false, BEGINS>(next, v, sub, count, is_bfloat16);
        Pass::template units<NEXT>(v, valid(next), reset(next));
        write_all<Pass, NEXT, BOUNDED, true, false>(next, v, sub, count, is_bfloat16);
        write_all<Pass, NEXT, BOUNDED, false, false>(next, v, sub, count, is_bfloat16);
    }
}

// One vector of any kind, with or without boundaries. This code takes half of the compile time, so there is only one version
// for both.
template <class Pass, int K, class Compute, bool BEGINS>
__attribute__((noinline)) void any_units(const StageBlock<Compute>& s, int64_t row, bool full, int sub) {
    stage_units<Pass, K, true, Compute, 0, BEGINS>(s, row, full, sub);
}

// Rows past the last one stand for the first rows of the block that is likely to come next. Returns whether there is such a
// row.
template <class Compute>
SEQCELLS_INLINE bool looks_ahead(const StageBlock<Compute>& s, int64_t& row, int64_t& unit, int64_t& vectors, int64_t& index) {
    if (row < s.row1) return true;
    unit = s.next_unit, vectors = s.next_vectors, index = s.next_index;
    return unit >= 0 && (row += s.row0 - s.row1) < s.row1;
}

// Prefetches the units of a row that a stage will read and write in a step. It must be inlined: to compilers, a function that
// only prefetches has no effects.
template <class Pass, int K, class Compute>
SEQCELLS_INLINE void expect_units(const LayerCall& p, int64_t index, int64_t row, int64_t unit, int64_t count) {
    const int64_t units = p.sizes[Pass::letter[K]];
    const int64_t place = TimeOrder{p}.at(index) * p.batch + row;
    const auto ask = [&](auto of, auto writes) SEQCELLS_LAMBDA {
        constexpr Slot slot = decltype(of)::slot;
        if constexpr (slot.axes == Axes::TBH && (slot.where == Where::GIVEN || slot.where == Where::GATE))
            if (p.arrays[slot.array])
                Array<Compute>(p.arrays[slot.array], p.is_bfloat16 && !slot.working).template prefetch<writes>(place * p.widths[slot.array] + slot.column * units + unit, count);
    };
    each_constant<int(std::get<K>(Pass::reads).size())>([&](auto k) SEQCELLS_LAMBDA { ask(Read<Pass, K, k>{}, std::integral_constant<int, 0>{}); });
    each_constant<int(std::get<K>(Pass::results).size())>([&](auto k) SEQCELLS_LAMBDA { ask(Written<Pass, K, k>{}, std::integral_constant<int, 1>{}); });
}

// Prefetches what a row of a block will read and write.
template <class Pass, int K, class Compute>
SEQCELLS_INLINE void prefetch(const StageBlock<Compute>& s, int64_t row) {
    const LayerCall& p = *s.p;
    int64_t unit = s.unit, vectors = s.vectors, index = s.index;
    if (!looks_ahead(s, row, unit, vectors, index)) return;
    const int64_t rest = p.sizes[Pass::letter[K]] - unit, count = rest < vectors * LANES<Compute> ? rest : vectors * LANES<Compute>;
    expect_units<Pass, K, Compute>(p, index, row, unit, count);
    if constexpr (K < Pass::stages && Pass::follows[K] >= 0)
        if (!s.last) expect_units<Pass, Pass::follows[K], Compute>(p, index + Pass::by, row, unit, count);
}

// Whether there is code for whole vectors at all. Without that code, kernels are slow but compile in a third of the time.
#ifndef SEQCELLS_WHOLE_VECTORS
#define SEQCELLS_WHOLE_VECTORS true
#endif

template <class Pass, int K, bool BOUNDED, class Compute, bool BEGINS>
SEQCELLS_INLINE void stage_rows(const StageBlock<Compute>& s) {
    const LayerCall& p = *s.p;
    const int64_t whole = p.is_bfloat16 || s.bfloat16_operands ? 0 : (p.sizes[Pass::letter[K]] - s.unit) / LANES<Compute>;
    const int wide = whole < s.vectors ? int(whole) : s.vectors;
    for (int64_t row = s.row0; row < s.row1; ++row) {
        prefetch<Pass, K>(s, row + Pass::ahead);
        const bool full = (s.terms + row - s.row0 + 1) % SUMMED == 0;
        int sub = 0;
        // All these variants take long to compile. So there is code for whole vectors only where calls are frequent.
        if constexpr (BEGINS || !SEQCELLS_WHOLE_VECTORS) {
        } else if constexpr (Pass::side_by_side && !BOUNDED && std::is_same_v<Compute, float> && VECTOR_BYTES > 16) {
            for (; wide - sub > 1; sub += 2)
                if ((wide - sub) % 2)
                    stage_units<Pass, K, BOUNDED, Compute, 3, BEGINS>(s, row, full, sub++);
                else
                    stage_units<Pass, K, BOUNDED, Compute, 2, BEGINS>(s, row, full, sub);
            for (; sub < wide; ++sub) stage_units<Pass, K, BOUNDED, Compute, 1, BEGINS>(s, row, full, sub);
        } else if constexpr (std::is_same_v<Compute, float>) {
            for (; sub < wide; ++sub) stage_units<Pass, K, BOUNDED, Compute, 1, BEGINS>(s, row, full, sub);
        }
        for (; sub < s.vectors; ++sub) any_units<Pass, K, Compute, BEGINS>(s, row, full, sub);
    }
}

template <class Pass, int K, class Compute, bool BEGINS = false>
void run_stage(const void* stage) {
    const auto& s = *static_cast<const StageBlock<Compute>*>(stage);
    if (s.p->lengths || s.p->reset)
        stage_rows<Pass, K, true, Compute, BEGINS>(s);
    else
        stage_rows<Pass, K, false, Compute, BEGINS>(s);
}

// Whether the loop has room for a cell's row blocks, in each product and in each stage.
template <class Program>
constexpr bool has_room_for_products() {
    int sums[MAX_STAGES] = {};
    for (const Multiplied& each : Program::products) {
        const int columns = each.transposed ? 1 : each.blocks;
        if (columns > MAX_ROWS || (sums[each.stage] += columns) > MAX_BLOCKS) return false;
    }
    return true;
}

template <class Program, class Compute, int... K, int... Letter>
constexpr Pass pass_of(std::integer_sequence<int, K...>, std::integer_sequence<int, Letter...>) {
    return {Program::stages, int(Program::names.size()), int(Program::keep.size()), int(Program::operands.size()), int(Program::products.size()),
            int(Program::reductions.size()), Program::sums, int(Program::totals.size()), Program::by, Program::gates, Program::gates_at, Program::letters, Program::letter.data(),
            Program::names.data(), Program::keep.data(), Program::operands.data(), Program::products.data(), Program::reductions.data(), Program::totals.data(),
            {nullptr, run_stage<Program, K + 1, Compute>...}, {run_stage<Program, 0, Compute, true>, run_stage<Program, Program::stages + Letter, Compute, true>...}};
}
template <class Program, class Compute>
constexpr Pass pass_of() {
    static_assert(Program::names.size() <= MAX_ARRAYS, "a pass has more arrays than the loop takes");
    static_assert(Program::stages <= MAX_STAGES && Program::letters <= MAX_LETTERS, "a pass has more stages or sizes than the loop takes");
    static_assert(Program::products.size() <= MAX_PRODUCTS && Program::operands.size() <= MAX_PRODUCTS, "a pass has more products than the loop takes");
    static_assert(has_room_for_products<Program>(), "a stage has more row blocks of products than the loop takes");
    return pass_of<Program, Compute>(std::make_integer_sequence<int, Program::stages - 1>{}, std::make_integer_sequence<int, Program::letters - 1>{});
}

}  // namespace
}  // namespace seqcells
