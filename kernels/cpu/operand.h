// What products multiply: numbers as they are, or bfloat16 in pairs, whose two products are added to a sum in float32.
//
// A word is what one lane takes of the depth at a time: one number, or a pair. An odd depth is filled up with a zero.

#pragma once

#include "vector.h"

namespace seqcells {
namespace {

template <class O>
struct Operand {
    using Word = O;
    using Sum = O;
    static constexpr int numbers = 1;  // of a word
};
template <>
struct Operand<bfloat16> {
    using Word = uint32_t;  // the first of the pair in the lower half
    using Sum = float;
    static constexpr int numbers = 2;
};

template <class O>
using Word = typename Operand<O>::Word;
template <class O>
using Sum = typename Operand<O>::Sum;
template <class O>
constexpr int NUMBERS = Operand<O>::numbers;

template <class O>
constexpr int64_t words(int64_t depth) {
    return (depth + NUMBERS<O> - 1) / NUMBERS<O>;
}
// A depth in whole words.
template <class O>
constexpr int64_t filled(int64_t depth) {
    return words<O>(depth) * NUMBERS<O>;
}

template <class O>
SEQCELLS_INLINE Vector<Sum<O>> multiply_add(Vector<Word<O>> a, Vector<Word<O>> b, Vector<Sum<O>> sum) {
    if constexpr (NUMBERS<O> == 1) {
        return sum + a * b;
    } else {
#ifdef SEQCELLS_PAIRS  // by hand: for a target set by pragma, compilers need not define their own macro in time
        return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
        using V = Vector<float>;
        constexpr uint32_t upper = 0xffff0000u;
        return sum + (V)(a & upper) * (V)(b & upper) + (V)(a << 16) * (V)(b << 16);
#endif
    }
}

// A word in all lanes.
template <class O>
SEQCELLS_INLINE Vector<Word<O>> everywhere(const O* from) {
    Word<O> word;
    std::memcpy(&word, from, sizeof word);
    return word - Vector<Word<O>>{};  // a sum with zero would not be the number itself
}

// Two vectors of numbers as pairs.
SEQCELLS_INLINE Vector<uint32_t> pair_up(Vector<float> first, Vector<float> second) {
    return rounded((Vector<uint32_t>)first) >> 16 | (rounded((Vector<uint32_t>)second) & 0xffff0000u);
}

// Seldom, and so never inline.
__attribute__((noinline, unused)) void copy_some(const bfloat16* from, Vector<uint32_t>* v, int64_t n) {
    *v = Vector<uint32_t>{};
    if (n > 0) std::memcpy(v, from, n * sizeof *from);
}

// The words that lie one after another, of which `depth` numbers exist.
template <class O, class From>
SEQCELLS_INLINE Vector<Word<O>> along(const From* from, int64_t depth) {
    constexpr int L = LANES<From>;
    if constexpr (NUMBERS<O> == 1) {
        return load(from, depth);
    } else if constexpr (std::is_same_v<O, From>) {
        if (__builtin_expect(depth >= 2 * L, 1)) {
            Vector<uint32_t> whole;
            std::memcpy(&whole, from, sizeof whole);
            return whole;
        }
        Vector<uint32_t> some;
        copy_some(from, &some, depth);
        return some;
    } else {
        const auto a = load(from, depth), b = depth > L ? load(from + L, depth - L) : Vector<From>{};
        return pair_up(every_second<From>(a, b, 0), every_second<From>(a, b, 1));
    }
}

// A row in whole words.
template <class O, class From>
void align(const From* from, int64_t depth, O* to) {
    constexpr int64_t step = LANES<O> * NUMBERS<O>;
    for (int64_t k = 0; k < depth; k += step) {
        const auto row = along<O>(from + k, depth - k);
        std::memcpy(to + k, &row, depth - k < step ? filled<O>(depth - k) * sizeof(O) : sizeof row);
    }
}

// The words that lie across `columns` neighbouring columns of a matrix, whose next number is at `by_depth` if it exists.
template <class O, class From>
SEQCELLS_INLINE Vector<Word<O>> across(const From* from, int64_t by_depth, int64_t depth, int64_t columns) {
    if constexpr (NUMBERS<O> == 1)
        return load(from, columns);
    else
        return pair_up(load(from, columns), depth > 1 ? load(from + by_depth, columns) : Vector<From>{});
}

}  // namespace
}  // namespace seqcells
