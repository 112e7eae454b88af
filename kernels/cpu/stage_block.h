// The arguments of a stage, and where a row of it reads and writes its values.

#pragma once

#include "arrays.h"
#include "layer_call.h"
#include "step_sums.h"

namespace seqcells {
namespace {

// The arguments of a stage: rows [row0, row1), and `vectors` vectors of units from `unit` on. `products` and `inputs` begin at
// row0.
template <class Compute>
struct StageBlock {
    const LayerCall* p;
    int64_t index;              // of the step, in the order of travel
    int64_t row0, row1, unit;
    int vectors;
    bool bfloat16_operands;     // whether operands are bfloat16 instead of Compute
    bool last;                  // whether this is the last step of the pass

    const Compute* products[MAX_PRODUCTS];  // row blocks side by side, each of `vectors` vectors
    int64_t products_width[MAX_PRODUCTS];
    const Compute* inputs;            // the gates' projected inputs, laid out like products; null: they are in an array
    int64_t inputs_width;
    const Compute* numbers;           // (reductions, B)
    Compute *kept, *kept_twice[2];    // (·, B, kept_width); kept_twice: values with two buffers, of this step and of the next
    int64_t kept_width, kept_by_array;
    char* operands[2][MAX_PRODUCTS];
    int64_t operands_width[MAX_PRODUCTS];
    Compute* sums;                    // (sums, sums_width): short sums, and their float64 totals
    double* totals;
    int64_t sums_width;
    int64_t terms;              // terms in the sums so far

    int64_t next_unit;          // the block that is likely to come next, for prefetches; -1 for none
    int next_vectors;
    int64_t next_index;
};

// The conditions of boundaries: whether a sequence has not ended, and whether it is reset. A pass without boundaries has the
// constants Always and Never; a pass with boundaries has Whether.
struct Always {};
struct Never {};
struct Whether {
    bool is;
};
template <class V>
SEQCELLS_INLINE const V& where(Always, const V& a, const V&) {
    return a;
}
template <class V>
SEQCELLS_INLINE const V& where(Always, const V& a, scalar<V>) {
    return a;
}
template <class V>
SEQCELLS_INLINE V where(Always, scalar<V> a, const V&) {
    return V{} + a;
}
template <class V>
SEQCELLS_INLINE const V& where(Never, const V&, const V& b) {
    return b;
}
template <class V>
SEQCELLS_INLINE V where(Never, const V&, scalar<V> b) {
    return V{} + b;
}
template <class V>
SEQCELLS_INLINE const V& where(Never, scalar<V>, const V& b) {
    return b;
}
template <class V>
SEQCELLS_INLINE V where(Whether w, V a, V b) {
    return w.is ? a : b;
}
template <class V>
SEQCELLS_INLINE V where(Whether w, V a, scalar<V> b) {
    return w.is ? a : V{} + b;
}
template <class V>
SEQCELLS_INLINE V where(Whether w, scalar<V> a, V b) {
    return w.is ? V{} + a : b;
}

template <class Compute, class V, int N>
SEQCELLS_INLINE void add_up(const StageBlock<Compute>& s, int64_t place, const VectorGroup<V, N>& value, bool full, int64_t count) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) add_up<Compute>(s, place + n * LANES<Compute>, value.part[n], full, N == 1 ? count : LANES<Compute>);
}

constexpr bool is_of_row(Axes axes) { return axes == Axes::TB || axes == Axes::B || axes == Axes::NONE; }

// One row of a stage, or of the next step's first stage: where it reads and writes its values.
template <class Pass, class Compute>
struct StageRow {
    const StageBlock<Compute>& s;
    const LayerCall& p;
    const int64_t units;  // units of the stage's letter
    const int64_t index, row, time;  // index: of the step that the values belong to
    bool ahead;           // whether that is the step after `s.index`
    bool full;            // whether short sums are now added to the float64 totals
    bool bfloat16_operands;  // whether operands have another type than kept values

    // Reads a value for some units, from where `Of::slot` says. `is_bfloat16`: whether the caller's arrays are bfloat16.
    template <class Of, class V>
    SEQCELLS_INLINE void read(V& value, int sub, int64_t count, bool is_bfloat16) const {
        constexpr Slot slot = Of::slot;
        constexpr int L = LANES<Compute>;
        const int64_t unit = s.unit + sub * L, place = time * p.batch + row;
        const bool own = !slot.working && is_bfloat16;
        if constexpr (slot.where == Where::GATE) {
            if (s.inputs) {
                load(s.inputs + (row - s.row0) * s.inputs_width + (slot.column * s.vectors + sub) * L, value, L);
                if (p.bias_ih) value += Array<Compute>(p.bias_ih, own).template load<V>(slot.column * units + unit, count);
            } else {
                value = Array<Compute>(p.arrays[slot.array], own).template load<V>(place * p.widths[slot.array] + slot.column * units + unit, count);
            }
        } else if constexpr (slot.where == Where::GIVEN && slot.axes == Axes::TBH) {
            value = Array<Compute>(p.arrays[slot.array], own).template load<V>(place * p.widths[slot.array] + slot.column * units + unit, count);
        } else if constexpr (slot.where == Where::GIVEN && (slot.axes == Axes::BH || slot.axes == Axes::H)) {
            const Array<Compute> array(p.arrays[slot.array], own);
            value = array ? array.template load<V>((slot.axes == Axes::H ? slot.column : row) * units + unit, count) : V{};
        } else if constexpr (slot.where == Where::GIVEN) {
            const Array<Compute> array(p.arrays[slot.array], own);
            value = V{} + array[slot.axes == Axes::TB ? place * p.widths[slot.array] + slot.column : slot.axes == Axes::B ? row : 0];
        } else if constexpr (slot.where == Where::BEFORE) {
            if (index == 0)
                value = Array<Compute>(p.arrays[slot.initial], is_bfloat16).template load<V>(row * units + unit, count);
            else
                value = Array<Compute>(p.arrays[slot.array], own).template load<V>((TimeOrder{p}.at(index - 1) * p.batch + row) * p.widths[slot.array] + slot.column * units + unit, count);
        } else if constexpr (slot.where == Where::CARRIED) {
            value = Array<Compute>(p.arrays[slot.array], is_bfloat16).template load<V>(row * units + unit, count);
        } else if constexpr (slot.where == Where::KEPT) {
            constexpr Kept one = Pass::keep[slot.column];
            if (one.operand >= 0 && !bfloat16_operands)
                load(reinterpret_cast<const Compute*>(s.operands[0][one.operand]) + row * s.operands_width[one.operand] + one.block * units + unit, value, count);
            else
                load(kept<slot.column>() + slot.column * s.kept_by_array + row * s.kept_width + unit, value, L);
        } else if constexpr (slot.where == Where::PRODUCT) {
            load(s.products[slot.array] + (row - s.row0) * s.products_width[slot.array] + (slot.column * s.vectors + sub) * L, value, L);
        } else if constexpr (slot.where == Where::NUMBER) {
            value = V{} + s.numbers[slot.column * p.batch + row];
        } else {
            value = V{} + Compute(p.sizes[slot.column]);
        }
    }

    template <class Of, class V>
    SEQCELLS_INLINE void write(const V& value, int sub, int64_t count, bool is_bfloat16) const {
        constexpr Slot slot = Of::slot;
        constexpr int L = LANES<Compute>;
        const int64_t unit = s.unit + sub * L, place = time * p.batch + row;
        const bool own = !slot.working && is_bfloat16;
        if constexpr (slot.where == Where::GIVEN) {
            const Array<Compute> array(p.arrays[slot.array], own);
            if (!array) return;
            if constexpr (is_of_row(slot.axes)) {
                const int64_t to = slot.axes == Axes::TB ? place * p.widths[slot.array] + slot.column : row;
                if (unit == 0) array.set(to, lane(value) + (slot.adds ? array[to] : Compute(0)));
            } else {
                const int64_t to = slot.axes == Axes::BH ? row * units + unit : place * p.widths[slot.array] + slot.column * units + unit;
                if constexpr (slot.adds)
                    array.store(to, array.template load<V>(to, count) + value, count);
                else
                    array.store(to, value, count);
            }
        } else if constexpr (slot.where == Where::CARRIED) {
            Array<Compute>(p.arrays[slot.array], own).store(row * units + unit, value, count);
        } else if constexpr (slot.where == Where::KEPT) {
            if (Pass::keep[slot.column].operand < 0 || bfloat16_operands)
                store(kept<slot.column>() + slot.column * s.kept_by_array + row * s.kept_width + unit, value, L);
        } else if constexpr (slot.where == Where::SUM) {
            add_up<Compute>(s, slot.column * s.sums_width + unit, value, full, count);
        }
    }

    template <class V>
    SEQCELLS_INLINE void operand(int k, int block, const V& value, int sub, int64_t count) const {
        const int64_t to = row * s.operands_width[k] + block * units + s.unit + sub * LANES<Compute>;
        char* array = s.operands[Pass::operands[k].twice && ahead][k];
        if constexpr (std::is_same_v<Compute, float> && sizeof(V) == sizeof(Vector<Compute>))
            if (s.bfloat16_operands) return store(reinterpret_cast<bfloat16*>(array) + to, value, count);
        store(reinterpret_cast<Compute*>(array) + to, value, count);
    }

    template <int K>
    SEQCELLS_INLINE Compute* kept() const {
        return Pass::keep[K].twice ? s.kept_twice[ahead] : s.kept;
    }
    static Compute lane(const Vector<Compute>& value) { return value[0]; }
    template <class V, int N>
    static Compute lane(const VectorGroup<V, N>& value) {
        return value.part[0][0];
    }
};

}  // namespace
}  // namespace seqcells
