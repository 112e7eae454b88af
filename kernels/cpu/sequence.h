// What the passes over a sequence share: the sizes, the order of the steps, the blocks.

#pragma once

#include "buffer.h"
#include "cells.h"
#include "problem.h"
#include "product.h"
#include "team.h"

namespace seqcells {
namespace {

// Which step comes when, and what happens to a row before and in it.
struct Times {
    const Problem& p;

    int64_t at(int64_t index) const { return p.reverse ? p.steps - 1 - index : index; }
    bool valid(int64_t t, int64_t row) const { return !p.lengths || t < p.lengths[row]; }
    // Whether the state is reset just before step t, in the direction of travel.
    bool boundary(int64_t t, int64_t row) const {
        const int64_t flag = p.reverse ? t + 1 : t;
        return p.reset && flag < p.steps && valid(flag, row) && p.reset[flag * p.batch + row];
    }
};

// f(first, last) for about equal parts of the rows, of at most BATCH each.
template <class F>
SEQCELLS_INLINE void each_batch(int64_t rows, F f) {
    const int64_t count = (rows + BATCH - 1) / BATCH;
    for (int64_t part = 0; part < count; ++part) {
        const Share share(rows, part, count);
        f(share.first, share.last);
    }
}

// Passes so far: single steps, of one pass each, go to and fro as well.
std::atomic<unsigned> passes{0};

constexpr int64_t CACHE_BYTES = 1 << 19;  // of a second-level cache, what weights may take

// Computed in T, by products of O; the caller's arrays are of Stored, besides those that only the engine reads.
template <class Cell, class T, class O, class Stored>
class Sequence {
  protected:
    using V = Vector<T>;
    static constexpr int L = LANES<T>;
    static constexpr int R = Cell::recurrent_gates, S = Cell::states;
    static constexpr int WIDE = 4;  // vectors of a block of a product that belongs to no gate
    static constexpr bool rounds = !std::is_same_v<T, O>;  // whether products read a rounded copy

    const Problem& p;
    const Times times;
    const int64_t B, H, P;
    const unsigned turn = passes.fetch_add(1, std::memory_order_relaxed);

    explicit Sequence(const Problem& problem)
        : p(problem), times{problem}, B(p.batch), H(p.hidden), P(p.projected) {}

    // f(block) for all of a member's, to and fro from step to step: each begins with the weights that the one before has
    // left in the cache. No result depends on the order.
    template <class F>
    SEQCELLS_INLINE void each_block(int64_t index, Share mine, F f) const {
        for (int64_t k = mine.first; k < mine.last; ++k) f(back(index) ? mine.first + mine.last - 1 - k : k);
    }
    bool back(int64_t index) const { return (index + turn) % 2; }

    static Stored* as(const void* pointer) { return static_cast<Stored*>(const_cast<void*>(pointer)); }
    static T* in_full(const void* pointer) { return static_cast<T*>(const_cast<void*>(pointer)); }

    // Asks for some numbers before they are read or, WRITE, written. A step touches a little of each of many arrays, too
    // little for the hardware to foresee the next.
    template <int WRITE, class U>
    static void expect(const U* from, int64_t count) {
        const char *line = reinterpret_cast<const char*>(from), *last = reinterpret_cast<const char*>(from + count);
        for (; line < last; line += 64) __builtin_prefetch(line, WRITE, 2);
    }

    // The rows up to the last that has not ended: what lies behind them needs no products.
    int64_t present(int64_t t) const {
        int64_t rows = B;
        while (rows && !times.valid(t, rows - 1)) --rows;
        return rows;
    }

    template <class... Buffers>
    static bool there(const Buffers&... buffers) {
        return (buffers.there() && ...);
    }

    // The numbers that fill rows of products' operands up to whole words.
    static void fill_up(O* rows, int64_t count, int64_t depth) {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t k = depth; k < filled<O>(depth); ++k) rows[row * filled<O>(depth) + k] = O(0);
    }

    static int64_t blocks_of(int64_t columns, int vectors) { return (columns + vectors * L - 1) / (vectors * L); }

    // For so many items and so much work in a step, which must be worth a barrier; a single one must be worth the team.
    int threads(int64_t items, int64_t work) const {
        const int64_t worth = 1 + work / (p.steps > 1 ? 16384 : 147456);
        const int64_t count = p.threads < items ? p.threads : items;
        return int(count < worth ? count : worth);
    }

  public:
    int64_t weight_bytes() const { return R * H * P * int64_t(sizeof(O)); }

  protected:
    // What a state becomes at a boundary.
    V fresh(int state, int64_t row, int64_t unit, int64_t count) const {
        return p.reset_states[state] ? load(as(p.reset_states[state]) + row * (state ? H : P) + unit, count) : V{};
    }
};

// A pass over all directions of a layer. Two run at once, each on half of the threads, so that fewer meet at a barrier,
// if a direction's weights fit in the cache that a thread has to itself; else one after another, each thread with its share.
template <class Pass>
int run_directions(const Problem* directions, int count) {
    std::vector<Pass> passes;
    passes.reserve(count);
    int threads = 0;
    for (int d = 0; d < count; ++d) {
        passes.emplace_back(directions[d]);
        if (!passes.back().allocate()) return -1;
        threads += passes.back().threads();
    }
    if (threads > directions->threads) threads = directions->threads;
    const bool at_once = passes[0].weight_bytes() <= CACHE_BYTES;
    run_teams(count, at_once, threads, [&](int d, int member, int size, Barrier& barrier) { passes[d].run(member, size, barrier); });
    return 0;
}

}  // namespace
}  // namespace seqcells
