// The recurrent product, [rows × depth] · [depth × columns], on weights packed for it.
//
// A block is `N` vectors of columns. Its weights lie depth after depth, N vectors each, so that a block is one
// stream of memory. Each column of each row is summed in one fixed order, whatever the number of threads.

#pragma once

#include "share.h"
#include "tiles.h"

namespace seqcells {
namespace {

// out[M][N vectors] (+)= a[M][depth] · w[depth][N vectors]. C sums in turn hide the latency of an addition
// where M · N are too few to do so. Each chunk of the depth is summed by itself: the error grows with the length of
// a chunk and the number of chunks, not with their product.
template <class O, int M, int N, int C>
SEQCELLS_INLINE void tile(const Word<O>* w, int64_t depth, const O* a, int64_t stride, Sum<O>* out, int64_t out_stride,
                          bool add) {
    using V = Vector<Sum<O>>;
    using W = Vector<Word<O>>;
    constexpr int L = LANES<O>, G = NUMBERS<O>;
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
            W column[N];
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) column[n] = load(w + ((k + c) * N + n) * L);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
                const W value = everywhere(a + m * stride + (k + c) * G);
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n) sum[c][m][n] = multiply_add<O>(value, column[n], sum[c][m][n]);
            }
        }
    }
    for (; k < depth; ++k)
        for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n)
                sum[0][m][n] = multiply_add<O>(everywhere(a + m * stride + k * G), load(w + (k * N + n) * L), sum[0][m][n]);
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
// Chunks of the depth in words, so that a block's share of the weights stays in the first-level cache for all rows.
template <class T, int N>
constexpr int64_t DEPTH = 32768 / (N * VECTOR_BYTES);
// Rows that are done together.
constexpr int64_t BATCH = 48;

// CHAINS: sums in turn, 0 for as many as the height of the tile asks for.
template <class O, int N, int CHAINS, int M>
void tile_of(int64_t rows, const Word<O>* w, int64_t depth, const O* a, int64_t stride, Sum<O>* out, int64_t out_stride,
             bool add) {
    constexpr int C = CHAINS ? CHAINS : M * N >= 12 ? 1 : M * N >= 6 ? 2 : 4;
    if (rows == M)
        tile<O, M, N, C>(w, depth, a, stride, out, out_stride, add);
    else if constexpr (M > 1)
        tile_of<O, N, CHAINS, M - 1>(rows, w, depth, a, stride, out, out_stride, add);
}

// out[rows][N vectors] (+)= a[rows][depth] · w, for one chunk of the depth, in words.
template <class O, int N, int CHAINS = 0>
SEQCELLS_INLINE void tiles(const Word<O>* w, int64_t depth, const O* a, int64_t stride, int64_t rows, Sum<O>* out,
                           int64_t out_stride, bool add) {
#if defined(SEQCELLS_HAS_TILES)
    // A unit for them sums in another order. Where the rows depend on the number of threads (CHAINS), they do not decide.
    if constexpr (NUMBERS<O> == 2 && N <= 4)
        if (const int64_t whole = depth / TILE_WORDS * TILE_WORDS; whole && (CHAINS || rows >= TILE_ROWS / 4)) {
            by_tiles<N>(w, whole, a, stride, rows, out, out_stride, add);
            w += whole * N * LANES<O>, a += whole * NUMBERS<O>, depth -= whole, add = true;
            if (!depth) return;
        }
#endif
    // As few tiles as possible, all of about one height: a low one would wait for each sum.
    const int64_t count = (rows + ROWS<N> - 1) / ROWS<N>;
    for (int64_t part = 0; part < count; ++part) {
        const Share share(rows, part, count);
        tile_of<O, N, CHAINS, ROWS<N>>(share.last - share.first, w, depth, a + share.first * stride, stride,
                                       out + share.first * out_stride, out_stride, add);
    }
}

// out[rows][N vectors] = a[rows][depth] · block, for at most BATCH rows. The rows are filled with zeros to whole words.
template <class O, int N>
void product(const Word<O>* block, int64_t depth, const O* a, int64_t stride, int64_t rows, Sum<O>* out) {
    constexpr int64_t width = N * LANES<O>, chunk = DEPTH<O, N>;
    const int64_t count = words<O>(depth);
    for (int64_t k = 0; k < count || k == 0; k += chunk)
        tiles<O, N>(block + k * width, count - k < chunk ? count - k : chunk, a + k * NUMBERS<O>, stride, rows, out, width,
                    k > 0);
}

// M rows of `dots`, two of them sharing what they read of w.
template <class O, int N, int M, class From>
SEQCELLS_INLINE void dots_of(const From* w, int64_t columns, int64_t depth, const O* a, int64_t stride, Sum<O>* out) {
    using V = Vector<Sum<O>>;
    constexpr int L = LANES<O>, AT_ONCE = L / M < 8 ? L / M : 8;  // rows of w that are streamed side by side
    V sum[M][L];
#pragma GCC unroll 2
    for (int first = 0; first < L; first += AT_ONCE) {
        V part[M][AT_ONCE];
#pragma GCC unroll 16
        for (int lane = 0; lane < M * AT_ONCE; ++lane) part[lane / AT_ONCE][lane % AT_ONCE] = V{};
        for (int64_t k = 0; k < depth; k += L * NUMBERS<O>) {
            Vector<Word<O>> value[M];
#pragma GCC unroll 2
            for (int m = 0; m < M; ++m) value[m] = along<O>(a + m * stride + k, depth - k);
#pragma GCC unroll 16
            for (int lane = 0; lane < AT_ONCE; ++lane) {
                const int64_t column = first + lane < columns ? first + lane : columns - 1;
                const auto weight = along<O>(w + column * depth + k, depth - k);
#pragma GCC unroll 2
                for (int m = 0; m < M; ++m) part[m][lane] = multiply_add<O>(value[m], weight, part[m][lane]);
            }
        }
#pragma GCC unroll 16
        for (int lane = 0; lane < M * AT_ONCE; ++lane) sum[lane / AT_ONCE][first + lane % AT_ONCE] = part[lane / AT_ONCE][lane % AT_ONCE];
    }
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int left = L; left > 1; left /= 2)
#pragma GCC unroll 16
            for (int lane = 0; lane < left / 2; ++lane)
                sum[m][lane] = every_second<Sum<O>>(sum[m][2 * lane], sum[m][2 * lane + 1], 0) +
                               every_second<Sum<O>>(sum[m][2 * lane], sum[m][2 * lane + 1], 1);
        store(out + m * N * L, sum[m][0]);
    }
}

// The same product on weights as they are, a row for each column of the block, for so few rows that packing would not
// pay: out[rows][vector n] = a[rows][depth] · wᵀ, the rows of w from `first` on, at most `columns` of them.
template <class O, int N, class From>
void dots(const From* w, int64_t columns, int64_t depth, const O* a, int64_t stride, int64_t rows, Sum<O>* out) {
    constexpr int64_t width = N * LANES<O>;
    int64_t row = 0;
    for (; row + 1 < rows; row += 2) dots_of<O, N, 2>(w, columns, depth, a + row * stride, stride, out + row * width);
    if (row < rows) dots_of<O, N, 1>(w, columns, depth, a + row * stride, stride, out + row * width);
}

// One vector of a block's columns, from a matrix whose element (k, c) is at from[k * by_depth + c * by_column], where one
// of the two is 1; zeros past `columns`. The vectors are `width` apart.
template <class O, class From>
void pack(const From* from, int64_t by_depth, int64_t by_column, int64_t depth, int64_t columns, Word<O>* to, int64_t width) {
    constexpr int L = LANES<O>, G = NUMBERS<O>;
    const int64_t count = words<O>(depth);
    if (by_column == 1) {
        for (int64_t k = 0; k < count; ++k)
            store(to + k * width, across<O>(from + k * G * by_depth, by_depth, depth - k * G, columns));
        return;
    }
    for (int64_t k = 0; k < count; k += L) {
        Vector<Word<O>> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane)
            rows[lane] = lane < columns ? along<O>(from + lane * by_column + k * G, depth - k * G) : Vector<Word<O>>{};
        transpose<Word<O>>(rows);
        for (int lane = 0; lane < L && k + lane < count; ++lane) store(to + (k + lane) * width, rows[lane]);
    }
}

}  // namespace
}  // namespace seqcells
