// What the passes over a sequence share: the sizes, the order of the blocks, the call that several threads are at.

#pragma once

#include <vector>

#include "buffer.h"
#include "cell.h"
#include "directions.h"

namespace seqcells {
namespace {

// Computed in T, by products of O.
template <class T, class O>
class Sequence {
  protected:
    static constexpr int L = LANES<T>;
    static constexpr int WIDE = VECTOR_REGISTERS >= 32 ? 4 : 6;  // vectors of a block of a product that belongs to no gate
    static constexpr bool rounds = !std::is_same_v<T, O>;        // whether products read a rounded copy

    const Cell& cell;
    const Problem& p;
    const Times times;
    const int64_t B, H, P, G, R, S;
    const unsigned turn = passes.fetch_add(1, std::memory_order_relaxed);

    Sequence(const Cell& of, const Problem& problem)
        : cell(of), p(problem), times{p}, B(p.batch), H(p.hidden), P(p.projected), G(of.gates), R(of.recurrent_gates), S(of.states) {}

    // Shares go to and fro from step to step: each begins with the weights that the one before has left in the cache. No
    // result depends on the order.
    bool back(int64_t index) const { return (index + turn) % 2; }

    Array<T> as(const void* pointer) const { return {pointer, bool(p.halves)}; }
    static T* in_full(const void* pointer) { return static_cast<T*>(const_cast<void*>(pointer)); }

    // The last of some rows that has not ended: what lies behind it needs no products.
    int64_t present(int64_t t, Share rows) const {
        int64_t last = rows.last;
        while (last > rows.first && !times.valid(t, last - 1)) --last;
        return last;
    }

    template <class... Buffers>
    static bool there(const Buffers&... buffers) {
        return (buffers.there() && ...);
    }

    // From row to row of the engine's own arrays: whole cache lines, for two threads at one line wait for each other, and no
    // power of two of them, for then all rows would share a few places of the first-level cache.
    template <class U>
    static int64_t padded(int64_t columns) {
        constexpr int64_t line = 64 / sizeof(U);
        const int64_t whole = (columns + line - 1) / line * line;
        return whole % (8 * line) ? whole : whole + line;
    }

    // The numbers that fill rows of products' operands up to whole words.
    static void fill_up(O* rows, int64_t count, int64_t depth) {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t k = depth; k < filled<O>(depth); ++k) rows[row * padded<O>(depth) + k] = O(0);
    }

    // f(from) with the caller's array in the type that it is of.
    template <class F>
    SEQCELLS_INLINE void in_its_type(const void* from, F f) const {
        if constexpr (std::is_same_v<T, float>)
            if (p.halves) return f(static_cast<const bfloat16*>(from));
        f(static_cast<const T*>(from));
    }

    // The rows in parts of which none is long, for so many multiply-adds of a row in a block.
    Parts parts_of(int64_t work) const {
        const int64_t rows = ITEM / (work ? work : 1);
        return Parts(B, rows < 16 ? 16 : rows < BATCH ? rows : BATCH);
    }

    // For so much work in a step, which must be worth meeting; a single one must be worth the team.
    int64_t worth(int64_t work) const {
        const int64_t most = 1 + work / (p.steps > 1 ? 16384 : 147456);
        return p.threads < most ? p.threads : most;
    }

  public:
    using What = Cell;
    using Arrays = Problem;

    int64_t weight_bytes() const { return R * H * P * int64_t(sizeof(O)); }
};

}  // namespace
}  // namespace seqcells
