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

// A row stripe of c, block after block of its columns: how a product is shared out.
template <class T, class O, class From>
class Product : public Job {
    static constexpr int L = LANES<T>;
    static constexpr int64_t WIDTH = WIDEST * L;
    // Gradients are sums over many steps and rows, whose error shows: short chains, sums of so many of them, sums of those.
    static constexpr int64_t CHAIN = 64, CHAINS_TOGETHER = 64;
    static constexpr bool as_they_are = std::is_same_v<O, From> && NUMBERS<O> == 1, in_place = std::is_same_v<T, From>;

    const Gemm g;
    const int64_t blocks, depth;  // depth in words
    const Parts stripes;
    Buffer<Word<O>> packed;
    std::unique_ptr<team::Progress> progress;
    int size_;

  public:
    std::atomic<bool> failed{false};

    explicit Product(const Gemm& of)
        : g(of), blocks((g.columns + WIDTH - 1) / WIDTH), depth(words<O>(g.depth)), stripes(g.rows, BATCH), packed(blocks * depth * WIDTH) {
        const int64_t worth = 1 + g.rows * g.columns * g.depth / 100000, most = stripes.count > 1 ? stripes.count : 1;
        const int64_t threads = g.threads < worth ? g.threads : worth;
        size_ = int(threads < 1 ? 1 : threads < most ? threads : most);
        if (size_ > 1) progress.reset(new team::Progress(size_));
        failed = !packed.get();
    }
    int size() const { return size_; }

    void run(int me) override {
        Member member;
        if (size_ > 1) member = Member(*progress, me, size_);
        member.each(blocks, false, [&](int64_t block) { pack_block(block); });
        member.each(stripes.count, false, [&](int64_t part) { multiply(stripes.of(part)); });
    }

  private:
    void pack_block(int64_t block) {
        const From* b = static_cast<const From*>(g.b);
        for (int n = 0; n < WIDEST; ++n) {
            const int64_t column = block * WIDTH + n * L;
            if (column < g.columns)
                pack<O>(b + column * g.b_by_column, g.b_by_depth, g.b_by_column, g.depth, g.columns - column,
                        packed.get() + block * depth * WIDTH + n * L, WIDTH);
        }
    }

    void multiply(Share stripe) {
        const int64_t rows = stripe.count(), columns = g.columns, step = CHAIN * NUMBERS<O>, together = step * CHAINS_TOGETHER;
        const bool one_sum = g.depth <= together;
        From* c = static_cast<From*>(g.c) + stripe.first * columns;
        Buffer<T> part, total;
        if (!one_sum) part = Buffer<T>(rows * columns);
        if (!in_place) total = Buffer<T>(rows * columns);
        if (!part.there() || !total.there()) {
            failed = true;
            return;
        }
        T* all = total.get();
        if constexpr (in_place) all = c;
        alignas(64) O turned[BATCH * CHAIN * NUMBERS<O>];
        for (int64_t first = 0; first < g.depth || first == 0; first += together) {
            const int64_t last = g.depth - first < together ? g.depth : first + together;
            T* sums = one_sum ? all : part.get();
            for (int64_t k = first; k < last || k == first; k += step) {
                int64_t stride;
                const O* operand = operand_of(stripe, k, last - k < step ? last - k : step, turned, stride);
                for (int64_t block = 0; block < blocks; ++block)
                    multiply_block(block, k / NUMBERS<O>, words<O>(last - k < step ? last - k : step), operand, stride, rows, sums, k > first);
            }
            for (int64_t k = 0; k < rows * columns && !one_sum; ++k) all[k] = first ? all[k] + sums[k] : sums[k];
        }
        const From* bias = static_cast<const From*>(g.bias);
        for (int64_t r = 0; r < rows && (bias || !in_place); ++r)
            for (int64_t u = 0; u < columns; u += L) {
                const int64_t count = columns - u;
                const Vector<T> sum = load(all + r * columns + u, count);
                store(c + r * columns + u, bias ? sum + load(bias + u, count) : sum, count);
            }
    }

    // Some numbers of the depth of a stripe's rows, as products read them.
    const O* operand_of(Share stripe, int64_t k, int64_t numbers, O* turned, int64_t& stride) const {
        const From* part = static_cast<const From*>(g.a) + stripe.first * g.a_by_row + k * g.a_by_depth;
        stride = CHAIN * NUMBERS<O>;
        if (g.a_by_depth != 1) {
            for (int64_t r = 0; r < stripe.count(); r += L) turn(part + r, g.a_by_depth, stripe.count() - r, numbers, turned + r * stride, stride);
            return turned;
        }
        if constexpr (as_they_are) {
            stride = g.a_by_row;
            return part;
        }
        for (int64_t r = 0; r < stripe.count(); ++r) align(part + r * g.a_by_row, numbers, turned + r * stride);
        return turned;
    }

    void multiply_block(int64_t block, int64_t word, int64_t count, const O* operand, int64_t stride, int64_t rows, T* sums, bool add) const {
        const Word<O>* w = packed.get() + (block * depth + word) * WIDTH;
        const int64_t column = block * WIDTH, here = g.columns - column;
        if (here >= WIDTH) return seqcells::multiply(WIDEST, w, count, CHAIN, operand, stride, rows, sums + column, g.columns, add);
        alignas(64) T edge[BATCH * WIDTH];
        seqcells::multiply(WIDEST, w, count, CHAIN, operand, stride, rows, edge, WIDTH, false);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t u = 0; u < here; ++u) {
                T& sum = sums[r * g.columns + column + u];
                sum = add ? sum + edge[r * WIDTH + u] : edge[r * WIDTH + u];
            }
    }
};

// Sums in T of products of O; the matrices are of From.
template <class T, class O = T, class From = T>
int gemm(const Gemm& g) {
    const auto product = std::make_shared<Product<T, O, From>>(g);
    if (!product->failed) team::run(product, product->size());
    return product->failed ? -1 : 0;
}

}  // namespace
}  // namespace seqcells
