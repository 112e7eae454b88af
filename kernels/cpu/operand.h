// The operands of products: single numbers, or pairs of bfloat16. The two products of a pair are added to one sum in float32.
//
// A word is what one lane reads of the depth at a time: one number, or one pair. A zero completes the last pair of an odd
// depth.

#pragma once

#include "vector.h"

namespace seqcells {
namespace {

template <class Operand>
struct OperandTraits {
    using Word = Operand;
    using Sum = Operand;
    static constexpr int numbers = 1;  // numbers in a word
};
template <>
struct OperandTraits<bfloat16> {
    using Word = uint32_t;  // the first number of the pair is the lower half
    using Sum = float;
    static constexpr int numbers = 2;
};

template <class Operand>
using Word = typename OperandTraits<Operand>::Word;
template <class Operand>
using Sum = typename OperandTraits<Operand>::Sum;
template <class Operand>
constexpr int NUMBERS = OperandTraits<Operand>::numbers;

template <class Operand>
constexpr int64_t words(int64_t depth) {
    return (depth + NUMBERS<Operand> - 1) / NUMBERS<Operand>;
}
// A depth, in numbers, rounded up to whole words.
template <class Operand>
constexpr int64_t filled(int64_t depth) {
    return words<Operand>(depth) * NUMBERS<Operand>;
}

template <class Operand>
SEQCELLS_INLINE Vector<Sum<Operand>> multiply_add(Vector<Word<Operand>> a, Vector<Word<Operand>> b, Vector<Sum<Operand>> sum) {
    if constexpr (NUMBERS<Operand> == 1) {
        return sum + a * b;
    } else {
#ifdef SEQCELLS_PAIRS  // set by hand: compilers need not define their own macro in time for a target pragma
        return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
        using V = Vector<float>;
        constexpr uint32_t upper = 0xffff0000u;
        return sum + (V)(a & upper) * (V)(b & upper) + (V)(a << 16) * (V)(b << 16);
#endif
    }
}

// One word in all lanes.
template <class Operand>
SEQCELLS_INLINE Vector<Word<Operand>> broadcast(const Operand* from) {
    Word<Operand> word;
    std::memcpy(&word, from, sizeof word);
    return word - Vector<Word<Operand>>{};  // word + 0 would turn -0 into +0
}

// Rounds two vectors of numbers to one vector of pairs.
SEQCELLS_INLINE Vector<uint32_t> pair_up(Vector<float> first, Vector<float> second) {
    return rounded((Vector<uint32_t>)first) >> 16 | (rounded((Vector<uint32_t>)second) & 0xffff0000u);
}

// Calls are rare, so it is never inlined.
__attribute__((noinline, unused)) void copy_some(const bfloat16* from, Vector<uint32_t>* v, int64_t n) {
    *v = Vector<uint32_t>{};
    if (n > 0) std::memcpy(v, from, n * sizeof *from);
}

// One vector of consecutive words. Only the first `depth` numbers exist; the rest of the vector is zero.
template <class Operand, class From>
SEQCELLS_INLINE Vector<Word<Operand>> along(const From* from, int64_t depth) {
    constexpr int L = LANES<From>;
    if constexpr (NUMBERS<Operand> == 1) {
        return load(from, depth);
    } else if constexpr (std::is_same_v<Operand, From>) {
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

// Copies a row as whole words of Operand.
template <class Operand, class From>
void align(const From* from, int64_t depth, Operand* to) {
    constexpr int64_t step = LANES<Operand> * NUMBERS<Operand>;
    for (int64_t k = 0; k < depth; k += step) {
        const auto row = along<Operand>(from + k, depth - k);
        std::memcpy(to + k, &row, depth - k < step ? filled<Operand>(depth - k) * sizeof(Operand) : sizeof row);
    }
}

// One word for each of `columns` neighbouring columns of a matrix. A pair's second number is at `by_depth`; it is zero if
// `depth` ends before it.
template <class Operand, class From>
SEQCELLS_INLINE Vector<Word<Operand>> across(const From* from, int64_t by_depth, int64_t depth, int64_t columns) {
    if constexpr (NUMBERS<Operand> == 1)
        return load(from, columns);
    else
        return pair_up(load(from, columns), depth > 1 ? load(from + by_depth, columns) : Vector<From>{});
}

}  // namespace
}  // namespace seqcells
