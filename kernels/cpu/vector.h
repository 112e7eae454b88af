// SIMD vectors of the instruction set's size, with their loads and stores.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "activations.h"

namespace seqcells {
namespace {

// The file that includes the engine sets these for its instruction set.
constexpr int VECTOR_BYTES = SEQCELLS_VECTOR_BYTES;
constexpr int VECTOR_REGISTERS = SEQCELLS_VECTOR_REGISTERS;

// Rounds a float's bits, or a vector of them, to the nearest bfloat16, ties to even. The results are the upper halves. NaN
// stays NaN.
template <class U>
SEQCELLS_INLINE U rounded(U bits) {
    const auto nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
}

// The upper half of a float. It is a format for storage and for the factors of products; all other arithmetic is in float.
struct bfloat16 {
    uint16_t bits;

    bfloat16() = default;
    bfloat16(float value) {
        uint32_t whole;
        std::memcpy(&whole, &value, sizeof whole);
        bits = uint16_t(rounded(whole) >> 16);
    }
    operator float() const {
        const uint32_t whole = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &whole, sizeof value);
        return value;
    }
};

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct VectorOf<bfloat16> : VectorOf<float> {};

// The vector in which numbers of type T are computed: float for bfloat16.
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int LANES = VECTOR_BYTES / sizeof(scalar<Vector<T>>);

// Load and store one whole vector by its element type. A copy of bytes may alias any type, so the compiler would reload other
// values after it.
template <class T>
SEQCELLS_INLINE void read(const T* from, Vector<T>& v) {
    typedef T Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T))));
    v = *reinterpret_cast<const Unaligned*>(from);
}
template <class T>
SEQCELLS_INLINE void write(T* to, Vector<T> v) {
    typedef T Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T))));
    *reinterpret_cast<Unaligned*>(to) = v;
}

typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));

SEQCELLS_INLINE void read(const bfloat16* from, Vector<float>& v) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    v = (Vector<float>)(__builtin_convertvector(halves, Vector<uint32_t>) << 16);
}
SEQCELLS_INLINE void write(bfloat16* to, Vector<float> v) {
    const Halves halves = __builtin_convertvector(rounded((Vector<uint32_t>)v) >> 16, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// Load and store a few lanes. These calls are rare, so they are never inlined; inlined, they would be most of the code. With
// SEQCELLS_MASKS one masked load reads all lanes. Stores go in pieces of 16, 8 and 4 bytes, because masked stores are slow on
// some processors.
template <class T>
__attribute__((noinline)) void read_some(const T* from, Vector<T>* v, int64_t n) {
#if defined(SEQCELLS_MASKS)
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
        n = n < 0 ? 0 : n;
        static constexpr int32_t ones[2 * VECTOR_BYTES / 4] = SEQCELLS_MASKS;
        typedef int32_t Mask __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
        typedef long long Wide __attribute__((vector_size(VECTOR_BYTES)));
        const Vector<int32_t> mask = *reinterpret_cast<const Mask*>(ones + VECTOR_BYTES / 4 - n * int64_t(sizeof(T)) / 4);
        // The compiler's builtins: the header with the standard intrinsics takes a second to compile.
        if constexpr (std::is_same_v<T, float>)
            *v = __builtin_ia32_maskloadps256(reinterpret_cast<const Vector<float>*>(from), mask);
        else
            *v = __builtin_ia32_maskloadpd256(reinterpret_cast<const Vector<double>*>(from), (Wide)mask);
        return;
    }
#endif
    *v = Vector<T>{};
    for (int64_t lane = 0; lane < n; ++lane) (*v)[lane] = from[lane];
}
template <class T>
__attribute__((noinline)) void write_some(T* to, const Vector<T>* v, int64_t n) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        for (int64_t lane = 0; lane < n; ++lane) to[lane] = (*v)[lane];
    } else {
        const char* from = reinterpret_cast<const char*>(v);
        char* at = reinterpret_cast<char*>(to);
        int64_t left = n < 0 ? 0 : n * int64_t(sizeof(T));
        for (; left >= 16; left -= 16, from += 16, at += 16) std::memcpy(at, from, 16);
        if (left & 8) std::memcpy(at, from, 8), from += 8, at += 8;
        if (left & 4) std::memcpy(at, from, 4);
    }
}

// Loads the first n lanes; the remaining lanes are zero.
template <class T>
SEQCELLS_INLINE Vector<T> load(const T* from, int64_t n = LANES<T>) {
    if (__builtin_expect(n >= LANES<T>, 1)) {
        Vector<T> v;
        read(from, v);
        return v;
    }
    Vector<T> some;
    read_some(from, &some, n);
    return some;
}

template <class T>
SEQCELLS_INLINE void store(T* to, Vector<T> v, int64_t n = LANES<T>) {
    if (__builtin_expect(n >= LANES<T>, 1)) {
        write(to, v);
    } else {
        const Vector<T> some = v;
        write_some(to, &some, n);
    }
}

// Load and store N adjacent vectors, all of them whole. Only when N is 1 does `count` limit the lanes.
template <class T, class V, int N>
SEQCELLS_INLINE void load(const T* from, VectorGroup<V, N>& v, int64_t count) {
    if constexpr (N == 1)
        v.part[0] = load(from, count);
    else
        v = VectorGroup<V, N>::each([&](int n) { return load(from + n * LANES<T>); });
}
template <class T>
SEQCELLS_INLINE void load(const T* from, Vector<T>& v, int64_t count) {
    v = load(from, count);
}
template <class V, class T>
SEQCELLS_INLINE V load_as(const T* from, int64_t count) {
    V v;
    load(from, v, count);
    return v;
}
template <class T, class V, int N>
SEQCELLS_INLINE void store(T* to, const VectorGroup<V, N>& v, int64_t count) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) store(to + n * LANES<T>, v.part[n], N == 1 ? count : LANES<T>);
}

// Every second lane of a followed by b, beginning with lane `from` (0 or 1).
template <class T, std::size_t... I>
SEQCELLS_INLINE Vector<T> every_second(Vector<T> a, Vector<T> b, int from, std::index_sequence<I...>) {
    return from ? __builtin_shufflevector(a, b, int(2 * I + 1)...) : __builtin_shufflevector(a, b, int(2 * I)...);
}
template <class T>
SEQCELLS_INLINE Vector<T> every_second(Vector<T> a, Vector<T> b, int from) {
    return every_second<T>(a, b, from, std::make_index_sequence<LANES<T>>{});
}

// Interleaves the lanes of the lower halves (half = 0) or upper halves (half = 1) of a and b.
template <class T, std::size_t... I>
SEQCELLS_INLINE Vector<T> zip(Vector<T> a, Vector<T> b, int half, std::index_sequence<I...>) {
    constexpr int L = LANES<T>;
    return half ? __builtin_shufflevector(a, b, int(I % 2 * L + I / 2 + L / 2)...)
                : __builtin_shufflevector(a, b, int(I % 2 * L + I / 2)...);
}

// Transposes L vectors as a square matrix. Interleaving the first half of the rows with the second half does it in log2 L
// rounds.
template <class T>
SEQCELLS_INLINE void transpose(Vector<T>* rows) {
    constexpr int L = LANES<T>;
    constexpr auto lanes = std::make_index_sequence<L>{};
    for (int round = 1; round < L; round *= 2) {
        Vector<T> zipped[L];
#pragma GCC unroll 16
        for (int k = 0; k < L / 2; ++k) {
            zipped[2 * k] = zip<T>(rows[k], rows[k + L / 2], 0, lanes);
            zipped[2 * k + 1] = zip<T>(rows[k], rows[k + L / 2], 1, lanes);
        }
#pragma GCC unroll 16
        for (int k = 0; k < L; ++k) rows[k] = zipped[k];
    }
}

}  // namespace
}  // namespace seqcells
