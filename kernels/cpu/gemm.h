// c = a · b + bias for whole sequences: the input's projection and the weights' gradients.
//
// No library is used, for two reasons. The order of sums, and so the bits, is the same here for any number of threads. And MKL
// takes slower kernels on other makers' processors (half the rate on an AMD EPYC with AVX-512).

#pragma once

#include "buffer.h"
#include "precision.h"
#include "panel_product.h"
#include "team.h"

namespace seqcells {

namespace {

// Transposes L columns of a (depth × columns) matrix to rows of words, which are `stride` numbers apart. Only `columns` columns
// exist.
template <class Operand, class From>
void turn(const From* from, int64_t by_depth, int64_t columns, int64_t depth, Operand* to, int64_t stride) {
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>;
    for (int64_t k = 0; k < depth; k += L * G) {
        Vector<Word<Operand>> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane) {
            const int64_t first = k + lane * G;
            rows[lane] = first < depth ? across<Operand>(from + first * by_depth, by_depth, depth - first, columns) : Vector<Word<Operand>>{};
        }
        transpose<Word<Operand>>(rows);
        for (int lane = 0; lane < L && lane < columns; ++lane) std::memcpy(to + lane * stride + k, &rows[lane], sizeof rows[lane]);
    }
}

// A product, which threads divide by row stripes of c. A thread goes through its stripe by blocks of columns.
template <class Compute, class Operand, class From>
class Product : public Job {
    static constexpr int L = LANES<Compute>;
    // Gradients are sums over many steps and rows, in which rounding errors show. So sums have three levels: chains of CHAIN
    // words, sums of CHAINS_TOGETHER chains, and the sum of those sums.
    static constexpr int64_t CHAIN = 64, CHAINS_TOGETHER = 64;
    static constexpr bool as_they_are = std::is_same_v<Operand, From> && NUMBERS<Operand> == 1, in_place = std::is_same_v<Compute, From>;

    const Gemm g;
    const int64_t depth;  // in words
    const Blocks blocks;
    const Parts stripes;          // of whole vectors of rows, because `turn` reads rows as columns
    Buffer<Word<Operand>> packed;
    std::unique_ptr<team::Progress> progress;
    int size_;

  public:
    std::atomic<bool> failed{false};

    explicit Product(const Gemm& of)
        : g(of),
          depth(words<Operand>(g.depth)),
          blocks(g.columns, L, WIDEST, 1),
          stripes((g.rows + L - 1) / L, BATCH / L),
          packed(blocks.vectors * L * depth) {
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
        const int64_t chains = (depth + CHAIN - 1) / CHAIN;
        member.each(blocks.count * chains, false, [&](int64_t item) { pack_block(blocks.of(item % blocks.count), item / blocks.count * CHAIN); });
        member.each(stripes.count, false, [&](int64_t part) { multiply(rows_of(stripes.of(part))); });
    }

  private:
    WorkRange rows_of(WorkRange vectors) const {
        return WorkRange::range(vectors.first * L, vectors.last * L < g.rows ? vectors.last * L : g.rows);
    }

    // Packed words lie chain after chain, and in each chain block after block, so that a stripe reads one stream of memory.
    Word<Operand>* place(WorkRange block, int64_t word) const {
        const int64_t here = depth - word < CHAIN ? depth - word : CHAIN;
        return packed.get() + (word * blocks.vectors + block.first * here) * L;
    }

    void pack_block(WorkRange block, int64_t word) {
        const From* b = static_cast<const From*>(g.b) + word * NUMBERS<Operand> * g.b_by_depth;
        const int64_t left = g.depth - word * NUMBERS<Operand>, here = left < CHAIN * NUMBERS<Operand> ? left : CHAIN * NUMBERS<Operand>;
        for (int64_t n = 0; n < block.count(); ++n) {
            const int64_t column = (block.first + n) * L;
            pack<Operand>(b + column * g.b_by_column, g.b_by_depth, g.b_by_column, here, g.columns - column, place(block, word) + n * L, block.count() * L);
        }
    }

    void multiply(WorkRange stripe) {
        const int64_t rows = stripe.count(), columns = g.columns, step = CHAIN * NUMBERS<Operand>, together = step * CHAINS_TOGETHER;
        const bool one_sum = g.depth <= together;
        From* c = static_cast<From*>(g.c) + stripe.first * columns;
        Buffer<Compute> part, total;
        if (!one_sum) part = Buffer<Compute>(rows * columns);
        if (!in_place) total = Buffer<Compute>(rows * columns);
        if (!part.there() || !total.there()) {
            failed = true;
            return;
        }
        Compute* all = total.get();
        if constexpr (in_place) all = c;
        alignas(64) Operand turned[BATCH * CHAIN * NUMBERS<Operand>];
        for (int64_t first = 0; first < g.depth || first == 0; first += together) {
            const int64_t last = g.depth - first < together ? g.depth : first + together;
            Compute* sums = one_sum ? all : part.get();
            for (int64_t k = first; k < last || k == first; k += step) {
                int64_t stride;
                const Operand* operand = operand_of(stripe, k, last - k < step ? last - k : step, turned, stride);
                for (int64_t block = 0; block < blocks.count; ++block) {
                    look_ahead(stripe, k + step, WorkRange(step, block, blocks.count));
                    multiply_block(blocks.of(block), k / NUMBERS<Operand>, words<Operand>(last - k < step ? last - k : step), operand, stride, rows, sums, k > first);
                }
            }
            for (int64_t k = 0; k < rows * columns && !one_sum; ++k) all[k] = first ? all[k] + sums[k] : sums[k];
        }
        const From* bias = static_cast<const From*>(g.bias);
        for (int64_t r = 0; r < rows && (bias || !in_place); ++r)
            for (int64_t u = 0; u < columns; u += L) {
                const int64_t count = columns - u;
                const Vector<Compute> sum = load(all + r * columns + u, count);
                store(c + r * columns + u, bias ? sum + load(bias + u, count) : sum, count);
            }
    }

    // Part of the depth of a stripe's rows, in the form that products read.
    const Operand* operand_of(WorkRange stripe, int64_t k, int64_t numbers, Operand* turned, int64_t& stride) const {
        const From* part = static_cast<const From*>(g.a) + stripe.first * g.a_by_row + k * g.a_by_depth;
        stride = CHAIN * NUMBERS<Operand>;
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

    // Prefetches part of the depth that the next chain reads across the matrix's rows. These reads are too far apart for the
    // hardware prefetcher.
    void look_ahead(WorkRange stripe, int64_t first, WorkRange numbers) const {
        if (g.a_by_depth == 1) return;
        const From* part = static_cast<const From*>(g.a) + stripe.first * g.a_by_row;
        for (int64_t k = first + numbers.first; k < first + numbers.last && k < g.depth; ++k)
            for (int64_t r = 0; r < stripe.count(); r += 64 / int64_t(sizeof(From))) __builtin_prefetch(part + k * g.a_by_depth + r);
    }

    void multiply_block(WorkRange block, int64_t word, int64_t count, const Operand* operand, int64_t stride, int64_t rows, Compute* sums, bool add) const {
        const Word<Operand>* w = place(block, word);
        const int vectors = int(block.count());
        const int64_t column = block.first * L, here = g.columns - column, width = vectors * L;
        if (here >= width) return seqcells::multiply(vectors, w, count, CHAIN, operand, stride, rows, sums + column, g.columns, add);
        alignas(64) Compute edge[BATCH * WIDEST * L];
        seqcells::multiply(vectors, w, count, CHAIN, operand, stride, rows, edge, width, false);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t u = 0; u < here; ++u) {
                Compute& sum = sums[r * g.columns + column + u];
                sum = add ? sum + edge[r * width + u] : edge[r * width + u];
            }
    }
};

// Sums are in Compute, factors in Operand; the matrices are in From.
template <class Compute, class Operand = Compute, class From = Compute>
int gemm(const Gemm& g) {
    const auto product = std::make_shared<Product<Compute, Operand, From>>(g);
    if (!product->failed) team::run(product, product->size());
    return product->failed ? -1 : 0;
}

}  // namespace
}  // namespace seqcells
