// c = a · b + bias for whole sequences: the input's projection and the weights' gradients.
//
// Here and not in a library for two reasons. The sums' order, and so the bits, are the same for any number of threads;
// and MKL takes slower kernels on other makers' processors (half the rate on an AMD EPYC with AVX-512).

#pragma once

#include "buffer.h"
#include "problem.h"
#include "product.h"
#include "team.h"

namespace seqcells {

namespace {

// L columns of a (depth × columns) matrix as rows of words, `stride` numbers apart, of which `columns` exist.
template <class O, class From>
void turn(const From* from, int64_t by_depth, int64_t columns, int64_t depth, O* to, int64_t stride) {
    constexpr int L = LANES<O>, G = NUMBERS<O>;
    for (int64_t k = 0; k < depth; k += L * G) {
        Vector<Word<O>> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane) {
            const int64_t first = k + lane * G;
            rows[lane] = first < depth ? across<O>(from + first * by_depth, by_depth, depth - first, columns) : Vector<Word<O>>{};
        }
        transpose<Word<O>>(rows);
        for (int lane = 0; lane < L && lane < columns; ++lane) std::memcpy(to + lane * stride + k, &rows[lane], sizeof rows[lane]);
    }
}

// Sums in T of products of O; the matrices are of From.
template <class T, class O = T, class From = T>
int gemm(const Gemm& g) {
    constexpr int N = 4, L = LANES<T>;
    // Half the usual chunks: gradients are sums over many steps and rows, whose error shows.
    constexpr int64_t width = N * L, chunk = DEPTH<O, N> / 2 * NUMBERS<O>;
    constexpr bool as_they_are = std::is_same_v<O, From>&& NUMBERS<O> == 1, summed_in_place = std::is_same_v<T, From>;
    const int64_t stripe = 4 * BATCH;  // rows whose part of a, and whose sums, stay in the second-level cache
    const From *a = static_cast<const From*>(g.a), *b = static_cast<const From*>(g.b);
    const From* bias = static_cast<const From*>(g.bias);
    From* c = static_cast<From*>(g.c);
    const int64_t blocks = (g.columns + width - 1) / width, packed_depth = words<O>(g.depth);
    const bool turns = !as_they_are || g.a_by_depth != 1;
    Buffer<Word<O>> packed(blocks * packed_depth * width);
    if (!packed.get()) return -1;
    const int64_t worth = 1 + g.rows * g.columns * g.depth / 100000;
    std::atomic<bool> failed{false};
    run_teams(1, false, int(g.threads < worth ? g.threads : worth), [&](int, int member, int size, Barrier& barrier) {
        const Share mine(blocks, member, size);
        for (int64_t block = mine.first; block < mine.last; ++block)
            for (int n = 0; n < N; ++n) {
                const int64_t column = block * width + n * L;
                if (column < g.columns)
                    pack<O>(b + column * g.b_by_column, g.b_by_depth, g.b_by_column, g.depth, g.columns - column,
                            packed.get() + block * packed_depth * width + n * L, width);
            }
        Buffer<O> turned(turns ? stripe * chunk : 0);
        Buffer<T> edge(stripe * width), sums(summed_in_place ? 0 : stripe * g.columns);
        if (!turned.get() || !edge.get() || !sums.get()) failed = true;
        barrier.wait();
        if (failed) return;
        // Shares in whole tiles. One chain of sums whatever a tile's height, which depends on the shares.
        const Share tiles_mine((g.rows + ROWS<N> - 1) / ROWS<N>, member, size);
        const int64_t last = tiles_mine.last * ROWS<N> < g.rows ? tiles_mine.last * ROWS<N> : g.rows;
        for (int64_t row = tiles_mine.first * ROWS<N>; row < last; row += stripe) {
            const int64_t rows = last - row < stripe ? last - row : stripe;
            T* out = sums.get();
            if constexpr (summed_in_place) out = c + row * g.columns;
            for (int64_t k = 0; k < g.depth || k == 0; k += chunk) {
                const int64_t depth = g.depth - k < chunk ? g.depth - k : chunk;
                const From* part = a + row * g.a_by_row + k * g.a_by_depth;
                const O* operand = turned.get();
                int64_t stride = chunk;
                if (g.a_by_depth != 1)
                    for (int64_t r = 0; r < rows; r += L)
                        turn(part + r, g.a_by_depth, rows - r, depth, turned.get() + r * chunk, chunk);
                else if constexpr (as_they_are)
                    operand = part, stride = g.a_by_row;
                else
                    for (int64_t r = 0; r < rows; ++r) align(part + r * g.a_by_row, depth, turned.get() + r * chunk);
                for (int64_t block = 0; block < blocks; ++block) {
                    const Word<O>* w = packed.get() + (block * packed_depth + k / NUMBERS<O>) * width;
                    const int64_t column = block * width, count = g.columns - column;
                    if (count >= width) {
                        tiles<O, N, 1>(w, words<O>(depth), operand, stride, rows, out + column, g.columns, k > 0);
                        continue;
                    }
                    tiles<O, N, 1>(w, words<O>(depth), operand, stride, rows, edge.get(), width, false);
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t u = 0; u < count; ++u) {
                            T& sum = out[r * g.columns + column + u];
                            sum = edge.get()[r * width + u] + (k ? sum : T(0));
                        }
                }
            }
            for (int64_t r = 0; r < rows && (bias || !summed_in_place); ++r)
                for (int64_t u = 0; u < g.columns; u += L) {
                    const int64_t count = g.columns - u;
                    const Vector<T> sum = load(out + r * g.columns + u, count);
                    store(c + (row + r) * g.columns + u, bias ? sum + load(bias + u, count) : sum, count);
                }
        }
    });
    return failed ? -1 : 0;
}

}  // namespace
}  // namespace seqcells
