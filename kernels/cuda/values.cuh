// Where a thread reads and writes the values of its units: one item is a unit of a sequence.

#pragma once

#include "activations.cuh"
#include "sizes.cuh"

namespace seqcells {

// A call. Arrays are in the order of the pass's names, of one direction after the other or, over time, side by side: `widths`
// from row to row and `apart` from direction to direction, in numbers.
struct Arguments {
    int64_t steps, batch, reverse;
    const int64_t* lengths;  // (B), or null
    const bool* reset;       // (T, B), or null
    float* sums;             // (D, B, sums_width)
    int64_t sums_width;
    char* arrays[MAX_ARRAYS];
    int64_t widths[MAX_ARRAYS], apart[MAX_ARRAYS];
};

// Which step comes when, of one direction, and what happens to a row before and in it.
struct Steps {
    const Arguments& a;
    bool reverse;

    SEQCELLS_INLINE int64_t at(int64_t index) const { return reverse ? a.steps - 1 - index : index; }
    SEQCELLS_INLINE bool valid(int64_t t, int64_t length) const { return t < length; }
    SEQCELLS_INLINE bool boundary(int64_t t, int64_t row, int64_t length) const {
        const int64_t flag = reverse ? t + 1 : t;
        return a.reset && flag < a.steps && flag < length && a.reset[flag * a.batch + row];
    }
};

constexpr bool is_of_steps(const Slot slot) { return slot.axes == Axes::TBH && (slot.where == Where::GATE || slot.where == Where::GIVEN || slot.where == Where::BEFORE); }
constexpr bool is_of_row(const Slot slot) { return slot.axes == Axes::TB || slot.axes == Axes::B || slot.axes == Axes::NONE; }

// An item of a thread: a sequence and a unit, and whether they are there.
template <class Program, class Form>
struct Item {
    using Z = Sizes<Form>;
    using Storage = typename Z::Storage;
    const Arguments& a;
    int local_row, local_unit;
    int64_t row, unit, direction;
    bool there;

    // The number of an array's element at `time`, where that matters.
    template <class Of>
    SEQCELLS_INLINE int64_t element(int64_t time) const {
        constexpr Slot slot = Of::slot;
        const int64_t begin = direction * a.apart[slot.array], width = a.widths[slot.array], column = is_of_row(slot) ? slot.column : slot.column * Form::H + unit;
        if constexpr (slot.axes == Axes::TBH || slot.axes == Axes::TB)
            return begin + (time * a.batch + row) * width + column;
        else if constexpr (slot.axes == Axes::BH || slot.axes == Axes::B)
            return begin + row * width + column;
        else
            return begin + column;
    }
    // Zero where the array is not given.
    template <class Of>
    SEQCELLS_INLINE float load(int64_t time) const {
        constexpr int array = Of::slot.array;
        if constexpr (!Form::given[array]) return 0.0f;
        if (!there) return 0.0f;
        if constexpr (Form::working[array])
            return reinterpret_cast<const float*>(a.arrays[array])[element<Of>(time)];
        else
            return to_float(reinterpret_cast<const Storage*>(a.arrays[array])[element<Of>(time)]);
    }
    template <class Of>
    SEQCELLS_INLINE void store(int64_t time, float value) const {
        constexpr int array = Of::slot.array;
        if constexpr (!Form::given[array]) return;
        if (!there) return;
        if constexpr (Form::working[array])
            reinterpret_cast<float*>(a.arrays[array])[element<Of>(time)] = value;
        else
            round_to(reinterpret_cast<Storage*>(a.arrays[array])[element<Of>(time)], value);
    }

    // What the ring has of a column for a step.
    template <int K>
    SEQCELLS_INLINE float from_ring(const char* ring) const {
        const int at = local_row * Form::UNITS + local_unit;
        const char* column = ring + Form::ring[K].at;
        if constexpr (Form::working[Form::ring[K].array])
            return reinterpret_cast<const float*>(column)[at];
        else
            return to_float(reinterpret_cast<const Storage*>(column)[at]);
    }
};

// The ring's column that a slot is.
template <class Form>
constexpr int ring_column_of(const Slot slot) {
    for (int k = 0; k < int(Form::ring.size()); ++k)
        if (Form::ring[k].array == slot.array && Form::ring[k].column == slot.column && Form::ring[k].before == (slot.where == Where::BEFORE)) return k;
    return -1;
}

// A slot of those that a stage reads, or writes, as a type.
template <class Program, int K, int I>
struct Read {
    static constexpr Slot slot = std::get<K>(Program::reads)[I];
};
template <class Program, int K, int I>
struct Written {
    static constexpr Slot slot = std::get<K>(Program::results)[I];
};

// A copy in the background of as many bytes as are asked for at once; of two there is none.
template <int BYTES>
SEQCELLS_DEVICE void copy(char* to, const char* from, bool there) {
    if constexpr (BYTES >= 4)
        copy_async<BYTES>(address_of(to), from, there);
    else
        *reinterpret_cast<uint16_t*>(to) = there ? *reinterpret_cast<const uint16_t*>(from) : uint16_t(0);
}

// Copies what comes from the caller's arrays for the step of that index into its place in the ring, in the background.
template <class Program, class Form>
SEQCELLS_DEVICE void copy_step(const Arguments& a, const Steps& steps, int64_t index, char* ring, int64_t first_row, int rows, int rank, int64_t direction) {
    using Z = Sizes<Form>;
    const int warp = thread_index() / 32, lane = thread_index() % 32;
    each_constant<int(Form::ring.size())>([&](auto k) {
        constexpr int K = decltype(k)::value;
        constexpr Column of = Form::ring[K];
        constexpr int SIZE = Form::working[Form::ring[K].array] ? 4 : sizeof(typename Z::Storage), COPY = larger(Form::COPY, SIZE), NUMBERS = COPY / SIZE, PER_ROW = Form::UNITS / NUMBERS;
        if (!Form::given[of.array] || warp != K % Form::WARPS) return;
        const bool initial = of.before && index == 0;
        const int array = initial ? of.initial : of.array;
        const int64_t time = steps.at(of.before ? index - 1 : index), width = a.widths[array];
        const char* from = a.arrays[array] + (direction * a.apart[array] + of.column * Form::H * (initial ? 0 : 1)) * SIZE;
        if (!initial) from += time * a.batch * width * SIZE;
        char* const to = ring + Form::ring[K].at;
#pragma unroll 1
        for (int i = lane; i < Form::ROWS * PER_ROW; i += 32) {
            const int row = i / PER_ROW, unit = i % PER_ROW * NUMBERS;
            const int64_t there = rank * Form::UNITS + unit;
            const bool is = row < rows && there < Form::H;
            copy<COPY>(to + (row * Form::UNITS + unit) * SIZE, is ? from + ((first_row + row) * width + there) * SIZE : a.arrays[array], is);
        }
    });
    copies_commit();
}

}  // namespace seqcells
