// Where a thread reads and writes the values of its items. An item is one unit of one sequence.

#pragma once

#include "activations.cuh"
#include "sizes.cuh"

namespace seqcells {

// The arguments of a call. Arrays are in the order of Program::names. Directions lie side by side in arrays over time, and one
// after another in other arrays.
struct Arguments {
    int64_t steps, batch, reverse;
    const int64_t* lengths;  // (B), or null
    const bool* reset;       // (T, B), or null
    float* sums;             // (D, B, sums_columns · H)
    int64_t sums_columns;
    char* arrays[MAX_ARRAYS];
};

// The order of time steps in one direction, and where a row is reset.
struct Steps {
    const Arguments& a;
    const int count;
    const bool reverse;

    SEQCELLS_INLINE int at(int index) const { return reverse ? count - 1 - index : index; }
    SEQCELLS_INLINE bool boundary(int t, int64_t row, int length) const {
        const int flag = reverse ? t + 1 : t;
        return a.reset && flag < count && flag < length && a.reset[flag * a.batch + row];
    }
};

constexpr bool is_of_steps(const Slot slot) { return slot.axes == Axes::TBH && (slot.where == Where::GATE || slot.where == Where::GIVEN || slot.where == Where::BEFORE); }
constexpr bool is_of_row(const Slot slot) { return slot.axes == Axes::TB || slot.axes == Axes::B || slot.axes == Axes::NONE; }

// An item of a thread: a sequence and a unit, and whether both exist.
template <class Program, class Form>
struct Item {
    using Z = Sizes<Form>;
    using Storage = typename Z::Storage;
    using Index = typename Form::Index;
    const Arguments& a;
    int local_row, local_unit;
    Index row;
    int unit, direction;
    bool there;

    // The index of the item's element in one of the caller's arrays: the row's index times the row's width, plus the position
    // in the row.
    template <class Of>
    SEQCELLS_INLINE Index element(int time) const {
        constexpr Slot slot = Of::slot;
        constexpr int WIDTH = Form::columns[slot.array] * (is_of_row(slot) ? 1 : Form::H);
        const int within = is_of_row(slot) ? slot.column : slot.column * Form::H + unit;
        if constexpr (slot.axes == Axes::TBH || slot.axes == Axes::TB)
            return ((Index(time) * Index(a.batch) + row) * Form::DIRECTIONS + direction) * WIDTH + within;
        else if constexpr (slot.axes == Axes::BH || slot.axes == Axes::B)
            return (direction * Index(a.batch) + row) * WIDTH + within;
        else
            return direction * WIDTH + within;
    }
    // Zero if the array is not given, or the item does not exist.
    template <class Of>
    SEQCELLS_INLINE float load(int time) const {
        constexpr int array = Of::slot.array;
        if constexpr (!Form::given[array]) return 0.0f;
        if (!there) return 0.0f;
        if constexpr (Form::working[array])
            return reinterpret_cast<const float*>(a.arrays[array])[element<Of>(time)];
        else
            return to_float(reinterpret_cast<const Storage*>(a.arrays[array])[element<Of>(time)]);
    }
    template <class Of>
    SEQCELLS_INLINE void store(int time, float value) const {
        constexpr int array = Of::slot.array;
        if constexpr (!Form::given[array]) return;
        if (!there || (is_of_row(Of::slot) && unit != 0)) return;
        if constexpr (Form::working[array])
            reinterpret_cast<float*>(a.arrays[array])[element<Of>(time)] = value;
        else
            round_to(reinterpret_cast<Storage*>(a.arrays[array])[element<Of>(time)], value);
    }

    // The item's value in a column of the ring, for one step.
    template <int K>
    SEQCELLS_INLINE float from_ring(const char* ring) const {
        return to_float(reinterpret_cast<const Storage*>(ring + Form::ring[K].at)[local_row * Form::UNITS + local_unit]);
    }
};

// The column of the ring that holds a slot's values, or -1.
template <class Form>
constexpr int ring_column_of(const Slot slot) {
    for (int k = 0; k < int(Form::ring.size()); ++k)
        if (Form::ring[k].array == slot.array && Form::ring[k].column == slot.column && Form::ring[k].before == (slot.where == Where::BEFORE)) return k;
    return -1;
}

// The I-th slot that stage K reads, or writes, as a type.
template <class Program, int K, int I>
struct Read {
    static constexpr Slot slot = std::get<K>(Program::reads)[I];
};
template <class Program, int K, int I>
struct Written {
    static constexpr Slot slot = std::get<K>(Program::results)[I];
};

// Copies BYTES bytes asynchronously. Two bytes are copied by a thread itself, because no asynchronous copy is so small.
template <int BYTES>
SEQCELLS_DEVICE void copy(char* to, const char* from, bool there) {
    if constexpr (BYTES >= 4)
        copy_async<BYTES>(address_of(to), from, there);
    else
        *reinterpret_cast<uint16_t*>(to) = there ? *reinterpret_cast<const uint16_t*>(from) : uint16_t(0);
}

// Copies a step's values from the caller's arrays to the step's place in the ring, asynchronously. `index` is the step's index.
template <class Program, class Form>
SEQCELLS_DEVICE void copy_step(const Arguments& a, const Steps& steps, int index, char* ring, int64_t first_row, int rows, int rank, int direction) {
    using Z = Sizes<Form>;
    using Index = typename Form::Index;
    const int warp = thread_index() / 32, lane = thread_index() % 32;
    each_constant<int(Form::ring.size())>([&](auto k) {
        constexpr int K = decltype(k)::value;
        constexpr Column of = Form::ring[K];
        static_assert(!Form::working[of.array] && !(of.before && Form::working[of.initial]), "the ring has room for numbers of the storage dtype");
        constexpr int SIZE = sizeof(typename Z::Storage), COPY = larger(Form::COPY, SIZE), NUMBERS = COPY / SIZE;
        constexpr int PER_ROW = Form::UNITS / NUMBERS, WIDTH = Form::columns[of.array] * Form::H;
        if (!Form::given[of.array] || warp != K % Form::WARPS) return;
        const bool initial = of.before && index == 0;
        const Index begin = Index(steps.at(of.before ? index - 1 : index)) * Index(a.batch) + Index(first_row);
        const char* const from = a.arrays[initial ? of.initial : of.array];
#pragma unroll
        for (int first = 0; first < Form::ROWS * PER_ROW; first += 32) {
            const int i = first + lane, row = i / PER_ROW, unit = i % PER_ROW * NUMBERS, there = rank * Form::UNITS + unit;
            if (Form::ROWS * PER_ROW % 32 != 0 && i >= Form::ROWS * PER_ROW) continue;
            const bool is = row < rows && (Form::H == Form::UNITS * Form::BLOCKS || there < Form::H);
            Index element = ((begin + row) * Form::DIRECTIONS + direction) * WIDTH + of.column * Form::H + there;
            if (initial) element = (direction * Index(a.batch) + Index(first_row) + row) * Form::H + there;
            copy<COPY>(ring + of.at + (row * Form::UNITS + unit) * SIZE, from + (is ? int64_t(element) * SIZE : 0), is);
        }
    });
    copies_commit();
}

}  // namespace seqcells
