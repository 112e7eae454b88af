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

// L columns of a (depth × columns) matrix as rows of `stride`, of which `columns` exist.
template <class T>
void turn(const T* from, int64_t by_depth, int64_t columns, int64_t depth, T* to, int64_t stride) {
    constexpr int L = LANES<T>;
    for (int64_t k = 0; k < depth; k += L) {
        Vector<T> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane)
            rows[lane] = k + lane < depth ? load(from + (k + lane) * by_depth, columns) : Vector<T>{};
        transpose<T>(rows);
        for (int lane = 0; lane < L && lane < columns; ++lane) store(to + lane * stride + k, rows[lane], depth - k);
    }
}

template <class T>
int gemm(const Gemm& g) {
    constexpr int N = 4, L = LANES<T>;
    // Half the usual chunks: gradients are sums over many steps and rows, whose error shows.
    constexpr int64_t width = N * L, chunk = DEPTH<T, N> / 2;
    const int64_t stripe = 4 * BATCH;  // rows whose part of a, and whose sums, stay in the second-level cache
    const T *a = static_cast<const T*>(g.a), *b = static_cast<const T*>(g.b), *bias = static_cast<const T*>(g.bias);
    T* c = static_cast<T*>(g.c);
    const int64_t blocks = (g.columns + width - 1) / width;
    Buffer<T> packed(blocks * g.depth * width);
    if (!packed.get()) return -1;
    const int64_t worth = 1 + g.rows * g.columns * g.depth / 100000;
    bool failed = false;
    run_teams(1, false, int(g.threads < worth ? g.threads : worth), [&](int, int member, int size, Barrier& barrier) {
        const Share mine(blocks, member, size);
        for (int64_t block = mine.first; block < mine.last; ++block)
            for (int n = 0; n < N; ++n) {
                const int64_t column = block * width + n * L;
                if (column < g.columns)
                    pack(b + column * g.b_by_column, g.b_by_depth, g.b_by_column, g.depth, g.columns - column,
                         packed.get() + block * g.depth * width + n * L, width);
            }
        Buffer<T> turned(g.a_by_depth == 1 ? 0 : stripe * chunk), edge(stripe * width);
        if (!turned.get() || !edge.get()) failed = true;
        barrier.wait();
        if (failed) return;
        // Shares in whole tiles. One chain of sums whatever a tile's height, which depends on the shares.
        const Share tiles_mine((g.rows + ROWS<N> - 1) / ROWS<N>, member, size);
        const int64_t last = tiles_mine.last * ROWS<N> < g.rows ? tiles_mine.last * ROWS<N> : g.rows;
        for (int64_t row = tiles_mine.first * ROWS<N>; row < last; row += stripe) {
            const int64_t rows = last - row < stripe ? last - row : stripe;
            for (int64_t k = 0; k < g.depth || k == 0; k += chunk) {
                const int64_t depth = g.depth - k < chunk ? g.depth - k : chunk;
                const T* part = a + row * g.a_by_row + k * g.a_by_depth;
                int64_t stride = g.a_by_row;
                if (g.a_by_depth != 1) {
                    for (int64_t r = 0; r < rows; r += L)
                        turn(part + r, g.a_by_depth, rows - r, depth, turned.get() + r * chunk, chunk);
                    part = turned.get(), stride = chunk;
                }
                for (int64_t block = 0; block < blocks; ++block) {
                    const T* w = packed.get() + (block * g.depth + k) * width;
                    const int64_t column = block * width, count = g.columns - column;
                    if (count >= width) {
                        tiles<T, N, 1>(w, depth, part, stride, rows, c + row * g.columns + column, g.columns, k > 0);
                        continue;
                    }
                    tiles<T, N, 1>(w, depth, part, stride, rows, edge.get(), width, false);
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t u = 0; u < count; ++u) {
                            T& sum = c[(row + r) * g.columns + column + u];
                            sum = edge.get()[r * width + u] + (k ? sum : T(0));
                        }
                }
            }
            for (int64_t r = row; r < row + rows && bias; ++r)
                for (int64_t u = 0; u < g.columns; ++u) c[r * g.columns + u] += bias[u];
        }
    });
    return failed ? -1 : 0;
}

}  // namespace
}  // namespace seqcells
