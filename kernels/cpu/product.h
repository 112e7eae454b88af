// The recurrent product, [rows × depth] · [depth × columns], on weights packed for it.
//
// Packed weights are panels: up to WIDEST vectors of columns, depth after depth, so that a panel is one stream of memory. A
// tile of rows × a panel keeps its sums in registers. Each column of each row is summed in one fixed order, whatever the
// tile, the number of threads and the rows beside it.

#pragma once

#include "share.h"
#include "tiles.h"

namespace seqcells {
namespace {

// Vectors of a panel. With few registers three: four rows of three are the most sums, and read the least for each.
constexpr int WIDEST = VECTOR_REGISTERS >= 32 ? 4 : 3;
// Rows of a tile: as many sums as there are registers for, besides one vector of values and V of weights.
template <int V>
constexpr int ROWS = (VECTOR_REGISTERS - V - 1) / V < 8 ? (VECTOR_REGISTERS - V - 1) / V : 8;
// Words of the depth that are summed in one chain. The error grows with the length of a chain and the number of chains,
// not with their product. And the weights of a chain stay in the first-level cache for all rows.
constexpr int64_t TERMS = 128;
// Rows that are done together.
constexpr int64_t BATCH = 48;
// Words that a unit for tiles takes between two readings of its sums.
constexpr int64_t TILED = 128;

// out[M][V vectors] (+)= a[M][·] · w[·][V vectors], for C chains that lie one behind the other: of `depth` words, the last
// of `last` words, at most so many. Chains side by side hide the latency of an addition where M · V are too few to do so.
template <class O, int M, int V, int C>
SEQCELLS_INLINE void tile(const Word<O>* w, int64_t depth, int64_t last, const O* a, int64_t stride, Sum<O>* out,
                          int64_t out_stride, bool add) {
    using S = Vector<Sum<O>>;
    using W = Vector<Word<O>>;
    constexpr int L = LANES<O>, G = NUMBERS<O>;
    S sum[C][M][V];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[c][m][v] = S{};
    const auto add_word = [&](int c, int64_t k) SEQCELLS_INLINE_LAMBDA {
        W column[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) column[v] = load(w + ((c * depth + k) * V + v) * L);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const W value = everywhere(a + m * stride + (c * depth + k) * G);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[c][m][v] = multiply_add<O>(value, column[v], sum[c][m][v]);
        }
    };
    int64_t k = 0;
    for (; k < last; ++k)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) add_word(c, k);
    if constexpr (C > 1)
        for (; k < depth; ++k)
#pragma GCC unroll 4
            for (int c = 0; c + 1 < C; ++c) add_word(c, k);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            S total = add ? load(out + m * out_stride + v * L) + sum[0][m][v] : sum[0][m][v];
#pragma GCC unroll 4
            for (int c = 1; c < C; ++c) total += sum[c][m][v];
            store(out + m * out_stride + v * L, total);
        }
}

// Chains that are summed side by side for so many rows.
template <int M, int V>
constexpr int CHAINS = M * V >= 8 ? 1 : 2;

// All chains of M rows, or, where they are fewer, of those.
template <class O, int V, int M>
void tile_of(int64_t rows, const Word<O>* w, int64_t depth, int64_t chain, const O* a, int64_t stride, Sum<O>* out,
             int64_t out_stride, bool add) {
    if (rows < M) {
        if constexpr (M > 1) tile_of<O, V, M - 1>(rows, w, depth, chain, a, stride, out, out_stride, add);
        return;
    }
    constexpr int C = CHAINS<M, V>, L = LANES<O>, G = NUMBERS<O>;
    int64_t k = 0;
    if constexpr (C > 1)
        for (; depth - k > (C - 1) * chain; k += C * chain, add = true) {
            const int64_t last = depth - k - (C - 1) * chain;
            tile<O, M, V, C>(w + k * V * L, chain, last < chain ? last : chain, a + k * G, stride, out, out_stride, add);
        }
    for (; k < depth || !add; k += chain, add = true) {
        const int64_t here = depth - k < chain ? depth - k : chain;
        tile<O, M, V, 1>(w + k * V * L, here, here, a + k * G, stride, out, out_stride, add);
    }
}

// out[rows][V vectors] (+)= a[rows][depth] · w, for a depth in words.
template <class O, int V>
void tiles(const Word<O>* w, int64_t depth, int64_t chain, const O* a, int64_t stride, int64_t rows, Sum<O>* out,
           int64_t out_stride, bool add) {
    // As few tiles as possible, all of about one height: a low one would wait for each sum.
    const Parts parts(rows, ROWS<V>);
    for (int64_t part = 0; part < parts.count; ++part) {
        const Share share = parts.of(part);
        tile_of<O, V, ROWS<V>>(share.count(), w, depth, chain, a + share.first * stride, stride, out + share.first * out_stride,
                               out_stride, add);
    }
}

// The same for a panel of any width. Few rows take all chains of the depth at once, many a chain after the other, whose
// weights then stay in the cache.
template <class O>
void panel(int vectors, const Word<O>* w, int64_t depth, int64_t chain, const O* a, int64_t stride, int64_t rows, Sum<O>* out,
           int64_t out_stride, bool add) {
    constexpr int L = LANES<O>, G = NUMBERS<O>;
#if defined(SEQCELLS_HAS_TILES)
    // A unit for them sums in another order; so the rows do not decide for whom it does.
    if constexpr (NUMBERS<O> == 2)
        if (const int64_t whole = depth / TILE_WORDS * TILE_WORDS; whole && rows >= TILE_ROWS / 4) {
            for (int64_t k = 0; k < whole; k += TILED, add = true) {
                const Word<O>* from = w + k * vectors * L;
                const int64_t count = whole - k < TILED ? whole - k : TILED;
                switch (vectors) {
                    case 1: by_tiles<1>(from, count, a + k * G, stride, rows, out, out_stride, add); break;
                    case 2: by_tiles<2>(from, count, a + k * G, stride, rows, out, out_stride, add); break;
                    case 3: by_tiles<3>(from, count, a + k * G, stride, rows, out, out_stride, add); break;
                    default: by_tiles<4>(from, count, a + k * G, stride, rows, out, out_stride, add);
                }
            }
            w += whole * vectors * L, a += whole * G, depth -= whole;
            if (!depth) return;
        }
#endif
    const auto some = [&](int64_t k, int64_t count) {
        const Word<O>* from = w + k * vectors * L;
        switch (vectors) {
            case 1: return tiles<O, 1>(from, count, chain, a + k * G, stride, rows, out, out_stride, add);
            case 2: return tiles<O, 2>(from, count, chain, a + k * G, stride, rows, out, out_stride, add);
            case 3: return tiles<O, 3>(from, count, chain, a + k * G, stride, rows, out, out_stride, add);
            default: return tiles<O, WIDEST>(from, count, chain, a + k * G, stride, rows, out, out_stride, add);
        }
    };
    if (rows <= ROWS<WIDEST>) return some(0, depth);
    for (int64_t k = 0; k < depth || k == 0; k += chain, add = true) some(k, depth - k < chain ? depth - k : chain);
}

// The words of each chain of a depth: an even number of chains, for two go side by side, and as few as TERMS allows.
SEQCELLS_INLINE int64_t chain_of(int64_t depth) {
    const int64_t pairs = (depth + 2 * TERMS - 1) / (2 * TERMS);
    return pairs ? (depth + 2 * pairs - 1) / (2 * pairs) : 1;
}

// out[rows][N vectors] = a[rows][depth] · block, for at most BATCH rows. The rows are filled with zeros to whole words.
template <class O>
void product(const Word<O>* block, int vectors, int64_t depth, const O* a, int64_t stride, int64_t rows, Sum<O>* out) {
    const int64_t count = words<O>(depth), chain = chain_of(count);
    const Parts panels(vectors, WIDEST);
    for (int64_t k = 0; k < panels.count; ++k) {
        const Share share = panels.of(k);
        panel(int(share.count()), block + share.first * count * LANES<O>, count, chain, a, stride, rows,
              out + share.first * LANES<O>, vectors * LANES<O>, false);
    }
}

// Where vector n of a block's columns begins in packed panels, and how far it is from word to word of the depth.
template <class O>
Word<O>* place(Word<O>* block, int vectors, int64_t depth, int n, int64_t& width) {
    const Parts panels(vectors, WIDEST);
    for (int64_t k = 0;; ++k) {
        const Share share = panels.of(k);
        if (n >= share.last) continue;
        width = share.count() * LANES<O>;
        return block + share.first * words<O>(depth) * LANES<O> + (n - share.first) * LANES<O>;
    }
}

// Rows of `dots` that share what they read of w, and rows of w that are streamed side by side.
constexpr int SHARING = VECTOR_REGISTERS >= 32 ? 4 : 3, SIDE_BY_SIDE = 4;

template <class O, int M, class From>
SEQCELLS_INLINE void dots_of(const From* w, int64_t columns, int64_t depth, const O* a, int64_t stride, Sum<O>* out,
                             int64_t out_stride) {
    using V = Vector<Sum<O>>;
    constexpr int L = LANES<O>, G = NUMBERS<O>, AT_ONCE = M == 1 && L > SIDE_BY_SIDE ? 2 * SIDE_BY_SIDE : L < SIDE_BY_SIDE ? L : SIDE_BY_SIDE;
    V sum[M][L];
#pragma GCC unroll 4
    for (int first = 0; first < L; first += AT_ONCE) {
        for (int64_t from = 0; from < depth || from == 0; from += TERMS * L * G) {
            const int64_t last = depth - from < TERMS * L * G ? depth : from + TERMS * L * G;
            V part[M][AT_ONCE];
#pragma GCC unroll 16
            for (int lane = 0; lane < M * AT_ONCE; ++lane) part[lane / AT_ONCE][lane % AT_ONCE] = V{};
            for (int64_t k = from; k < last; k += L * G) {
                Vector<Word<O>> value[M];
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m) value[m] = along<O>(a + m * stride + k, depth - k);
#pragma GCC unroll 16
                for (int lane = 0; lane < AT_ONCE; ++lane) {
                    const int64_t column = first + lane < columns ? first + lane : columns - 1;
                    const auto weight = along<O>(w + column * depth + k, depth - k);
#pragma GCC unroll 4
                    for (int m = 0; m < M; ++m) part[m][lane] = multiply_add<O>(value[m], weight, part[m][lane]);
                }
            }
#pragma GCC unroll 16
            for (int lane = 0; lane < M * AT_ONCE; ++lane) {
                V& all = sum[lane / AT_ONCE][first + lane % AT_ONCE];
                all = from ? all + part[lane / AT_ONCE][lane % AT_ONCE] : part[lane / AT_ONCE][lane % AT_ONCE];
            }
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int left = L; left > 1; left /= 2)
#pragma GCC unroll 16
            for (int lane = 0; lane < left / 2; ++lane)
                sum[m][lane] = every_second<Sum<O>>(sum[m][2 * lane], sum[m][2 * lane + 1], 0) +
                               every_second<Sum<O>>(sum[m][2 * lane], sum[m][2 * lane + 1], 1);
        store(out + m * out_stride, sum[m][0]);
    }
}

// out[rows][one vector] = a[rows][depth] · wᵀ on weights as they are, for so few rows that packing would not pay: the
// vector's columns are rows of w, at most `columns` of them.
template <class O, class From>
void dots(const From* w, int64_t columns, int64_t depth, const O* a, int64_t stride, int64_t rows, Sum<O>* out, int64_t out_stride) {
    const Parts parts(rows, SHARING);
    for (int64_t part = 0; part < parts.count; ++part) {
        const Share share = parts.of(part);
        const O* from = a + share.first * stride;
        Sum<O>* to = out + share.first * out_stride;
        switch (share.count()) {
            case 1: dots_of<O, 1>(w, columns, depth, from, stride, to, out_stride); break;
            case 2: dots_of<O, 2>(w, columns, depth, from, stride, to, out_stride); break;
            case 3: dots_of<O, 3>(w, columns, depth, from, stride, to, out_stride); break;
            default: dots_of<O, SHARING>(w, columns, depth, from, stride, to, out_stride);
        }
    }
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
