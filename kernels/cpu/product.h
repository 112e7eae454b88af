// The recurrent product, [rows × depth] · [depth × columns], on weights packed for it.
//
// A block is `N` vectors of columns. Its weights lie depth after depth, N vectors each, so that a block is one
// stream of memory. Each column of each row is summed in one fixed order, whatever the number of threads.

#pragma once

#include <cstdint>
#include <cstring>

#include "activations.h"
#include "share.h"

namespace seqcells {
namespace {

// Set by the file that includes the engine, for the instruction set it is compiled for.
constexpr int VECTOR_BYTES = SEQCELLS_VECTOR_BYTES;
constexpr int VECTOR_REGISTERS = SEQCELLS_VECTOR_REGISTERS;

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int LANES = VECTOR_BYTES / sizeof(T);

// The first n lanes of memory, zeros after them.
template <class T>
SEQCELLS_INLINE Vector<T> load(const T* from, int64_t n = LANES<T>) {
    Vector<T> v{};
    if (__builtin_expect(n >= LANES<T>, 1))
        std::memcpy(&v, from, sizeof v);
    else
        for (int64_t lane = 0; lane < n; ++lane) v[lane] = from[lane];
    return v;
}

template <class T>
SEQCELLS_INLINE void store(T* to, Vector<T> v, int64_t n = LANES<T>) {
    if (__builtin_expect(n >= LANES<T>, 1))
        std::memcpy(to, &v, sizeof v);
    else
        for (int64_t lane = 0; lane < n; ++lane) to[lane] = v[lane];
}

// out[M][N vectors] (+)= a[M][depth] · w[depth][N vectors]. C sums in turn hide the latency of an addition
// where M · N are too few to do so. Each chunk of the depth is summed by itself: the error grows with the length of
// a chunk and the number of chunks, not with their product.
template <class T, int M, int N, int C>
SEQCELLS_INLINE void tile(const T* w, int64_t depth, const T* a, int64_t stride, T* out, int64_t out_stride, bool add) {
    using V = Vector<T>;
    constexpr int L = LANES<T>;
    V sum[C][M][N];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) sum[c][m][n] = V{};
        }
    int64_t k = 0;
    for (; k + C <= depth; k += C) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            V column[N];
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) column[n] = load(w + ((k + c) * N + n) * L);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
                const V value = a[m * stride + k + c] - V{};  // all lanes (a sum with zero would not be the value itself)
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n) sum[c][m][n] += value * column[n];
            }
        }
    }
    for (; k < depth; ++k)
        for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) sum[0][m][n] += a[m * stride + k] * load(w + (k * N + n) * L);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            V total = sum[0][m][n];
#pragma GCC unroll 4
            for (int c = 1; c < C; ++c) total += sum[c][m][n];
            if (add) total += load(out + m * out_stride + n * L);
            store(out + m * out_stride + n * L, total);
        }
}

// Rows of a tile: as many sums as there are registers for, besides one vector of values and N of weights.
template <int N>
constexpr int ROWS = (VECTOR_REGISTERS - N - 1) / N < 8 ? (VECTOR_REGISTERS - N - 1) / N : 8;
// Chunks of the depth, so that a block's share of the weights stays in the first-level cache for all rows.
template <class T, int N>
constexpr int64_t DEPTH = 32768 / (N * VECTOR_BYTES);
// Rows that are done together.
constexpr int64_t BATCH = 48;

// CHAINS: sums in turn, 0 for as many as the height of the tile asks for.
template <class T, int N, int CHAINS, int M>
void tile_of(int64_t rows, const T* w, int64_t depth, const T* a, int64_t stride, T* out, int64_t out_stride, bool add) {
    constexpr int C = CHAINS ? CHAINS : M * N >= 12 ? 1 : M * N >= 6 ? 2 : 4;
    if (rows == M)
        tile<T, M, N, C>(w, depth, a, stride, out, out_stride, add);
    else if constexpr (M > 1)
        tile_of<T, N, CHAINS, M - 1>(rows, w, depth, a, stride, out, out_stride, add);
}

// out[rows][N vectors] (+)= a[rows][depth] · w, for one chunk of the depth.
template <class T, int N, int CHAINS = 0>
SEQCELLS_INLINE void tiles(const T* w, int64_t depth, const T* a, int64_t stride, int64_t rows, T* out, int64_t out_stride,
                           bool add) {
    // As few tiles as possible, all of about one height: a low one would wait for each sum.
    const int64_t count = (rows + ROWS<N> - 1) / ROWS<N>;
    for (int64_t part = 0; part < count; ++part) {
        const Share share(rows, part, count);
        tile_of<T, N, CHAINS, ROWS<N>>(share.last - share.first, w, depth, a + share.first * stride, stride,
                               out + share.first * out_stride, out_stride, add);
    }
}

// out[rows][N vectors] = a[rows][depth] · block, for at most BATCH rows.
template <class T, int N>
void product(const T* block, int64_t depth, const T* a, int64_t stride, int64_t rows, T* out) {
    constexpr int64_t width = N * LANES<T>, chunk = DEPTH<T, N>;
    for (int64_t k = 0; k < depth || k == 0; k += chunk)
        tiles<T, N>(block + k * width, depth - k < chunk ? depth - k : chunk, a + k, stride, rows, out, width, k > 0);
}

// Pairs of neighbours summed: first a's, then b's.
template <class T, std::size_t... I>
SEQCELLS_INLINE Vector<T> pairs(Vector<T> a, Vector<T> b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, int(2 * I)...) + __builtin_shufflevector(a, b, int(2 * I + 1)...);
}

// The same product on weights as they are, a row for each column of the block, for so few rows that packing would not
// pay: out[rows][vector n] = a[rows][depth] · wᵀ, the rows of w from `first` on, at most `columns` of them.
template <class T, int N>
void dots(const T* w, int64_t columns, int64_t depth, const T* a, int64_t stride, int64_t rows, T* out) {
    using V = Vector<T>;
    constexpr int L = LANES<T>;
    for (int64_t row = 0; row < rows; ++row) {
        const T* values = a + row * stride;
        V sum[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane) sum[lane] = V{};
        int64_t k = 0;
        for (; k < depth; k += L) {
            const int64_t count = depth - k;
            const V value = load(values + k, count);
#pragma GCC unroll 16
            for (int lane = 0; lane < L; ++lane)
                sum[lane] += value * load(w + (lane < columns ? lane : columns - 1) * depth + k, count);
        }
#pragma GCC unroll 8
        for (int left = L; left > 1; left /= 2)
#pragma GCC unroll 16
            for (int lane = 0; lane < left / 2; ++lane)
                sum[lane] = pairs<T>(sum[2 * lane], sum[2 * lane + 1], std::make_index_sequence<L>{});
        store(out + row * N * L, sum[0]);
    }
}

// The lanes of a's and b's halves in turn.
template <class T, std::size_t... I>
SEQCELLS_INLINE Vector<T> zip(Vector<T> a, Vector<T> b, int half, std::index_sequence<I...>) {
    constexpr int L = LANES<T>;
    return half ? __builtin_shufflevector(a, b, int(I % 2 * L + I / 2 + L / 2)...)
                : __builtin_shufflevector(a, b, int(I % 2 * L + I / 2)...);
}

// L vectors as a square matrix, transposed: zipping the first half of the rows with the second does it in log2 L rounds.
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

// One vector of a block's columns, from a matrix whose element (k, c) is at from[k * by_depth + c * by_column], where one
// of the two is 1; zeros past `columns`. The vectors are `width` apart.
template <class T>
void pack(const T* from, int64_t by_depth, int64_t by_column, int64_t depth, int64_t columns, T* to, int64_t width) {
    constexpr int L = LANES<T>;
    if (by_column == 1) {
        for (int64_t k = 0; k < depth; ++k) store(to + k * width, load(from + k * by_depth, columns));
        return;
    }
    for (int64_t k = 0; k < depth; k += L) {
        Vector<T> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane)
            rows[lane] = lane < columns ? load(from + lane * by_column + k, depth - k) : Vector<T>{};
        transpose<T>(rows);
        for (int lane = 0; lane < L && k + lane < depth; ++lane) store(to + (k + lane) * width, rows[lane]);
    }
}

}  // namespace
}  // namespace seqcells
