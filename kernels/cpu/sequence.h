// What the passes over a sequence share: the sizes, the order of the blocks, the call that several threads are at.

#pragma once

#include <vector>

#include "buffer.h"
#include "cell.h"
#include "team.h"
#include "work.h"

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
    int64_t weight_bytes() const { return R * H * P * int64_t(sizeof(O)); }
};

// A pass over all directions of a layer. Two run at once, each on half of the threads, so that fewer meet at a step, if a
// direction's weights fit in the cache that a thread has to itself; else one after another, each thread with its share.
template <class Pass>
class Directions : public Job {
  public:
    Directions(const Cell& cell, const Problem* directions, int count) : problems_(directions, directions + count) {
        passes_.reserve(count);
        int64_t threads = 0;
        for (const Problem& problem : problems_) threads += passes_.emplace_back(cell, problem).threads();
        if (threads > directions->threads) threads = directions->threads;
        size_ = int(threads < 1 ? 1 : threads);
        at_once_ = passes_[0].weight_bytes() <= cache_bytes() && size_ >= count;
        for (int d = 0; d < count; ++d) {
            const int members = at_once_ ? int(Share(size_, d, count).count()) : size_;
            passes_[d].share_among(members);
            if (size_ > 1) progress_.emplace_back(new team::Progress(members));
        }
    }
    int size() const { return size_; }
    bool allocate() {
        for (Pass& pass : passes_)
            if (!pass.allocate()) return false;
        return true;
    }
    void run(int worker) override {
        const int count = int(passes_.size());
        int home = 0;
        while (at_once_ && worker >= Share(size_, home, count).last) ++home;
        for (int k = 0; k < count; ++k) {
            const int d = (home + k) % count;
            if (size_ == 1) {
                Member alone;
                passes_[d].run(alone);
                continue;
            }
            const Share members = at_once_ ? Share(size_, d, count) : Share(size_, 0, 1);
            const bool here = worker >= members.first && worker < members.last;
            Member member(*progress_[d], here ? worker - int(members.first) : -1, int(members.count()));
            passes_[d].run(member);
        }
    }

  private:
    const std::vector<Problem> problems_;
    std::vector<Pass> passes_;
    std::vector<std::unique_ptr<team::Progress>> progress_;
    int size_ = 1;
    bool at_once_ = false;
};

template <class Pass>
int run_directions(const Cell& cell, const Problem* directions, int count) {
    const auto job = std::make_shared<Directions<Pass>>(cell, directions, count);
    if (!job->allocate()) return -1;
    team::run(job, job->size());
    return 0;
}

}  // namespace
}  // namespace seqcells
