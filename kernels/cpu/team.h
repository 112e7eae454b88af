// Several threads that run one call, on a machine that they share with other programs.
//
// A call is a sequence of phases. A phase is a number of items in any order; the next phase begins when all items of the phase
// are done. A member of the team prefers its own share of the items, whose data are in its caches. Then it takes over items that
// no thread has begun, and waits only for items that are begun. So a thread that the system keeps from running costs one item's
// delay.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "ranges.h"

namespace seqcells {

// The work of one call. It is shared, because a late thread may still read it when the call is over.
struct Job {
    virtual ~Job() = default;
    virtual void run(int member) = 0;
};

namespace team {

// The progress of a sequence of phases.
class Progress {
  public:
    explicit Progress(int members) : claims_(new Claim[members]) {}

    // Claims the next item in a member's share that no thread has begun in this phase. Returns its position, or -1.
    int64_t claim(int member, uint64_t phase, int64_t count);
    // Reports that `items` more items are done, out of `target` when the phase ends. Returns whether the phase has ended.
    bool report(int64_t items, int64_t target);
    bool reached(int64_t target) const { return done_.load(std::memory_order_acquire) >= target; }
    // Spins for a moment. Returns whether the phase has ended.
    bool reached_soon(int64_t target) const;
    // Waits until the phase has ended: spins for some microseconds, then sleeps.
    void wait(int64_t target);

  private:
    struct alignas(64) Claim {
        std::atomic<uint64_t> word{0};  // a phase, and how many items of the share are begun in it
    };
    std::unique_ptr<Claim[]> claims_;
    alignas(64) std::atomic<int64_t> done_{0};  // items that are done, of all phases together
    alignas(64) std::atomic<int> asleep_{0};
    std::atomic<uint32_t> bell_{0};
};

// This thread calls the job's run(0). Threads of the engine that are free in time call run(1) to run(size - 1), or OpenMP
// threads do that torch's operators left running.
void run(const std::shared_ptr<Job>& job, int size);

}  // namespace team

namespace {

// A thread's part in a sequence of phases. All members go through the same phases with the same numbers of items.
class Member {
  public:
    // A member alone, which runs every item.
    Member() = default;
    // `me`: the member's number among `size` members; -1 for a member that has no share and only helps.
    Member(team::Progress& progress, int me, int size) : progress_(&progress), me_(me), size_(size), absent_(me < 0 ? ~0ull : 0) {}

    // Runs f(item) for this member's items out of `count`. Returns when all items are done, by any member. `back`: each share
    // from its last item on.
    template <class F>
    void each(int64_t count, bool back, F f) {
        if (!progress_) {
            for (int64_t k = 0; k < count; ++k) f(back ? count - 1 - k : k);
            return;
        }
        ++phase_, target_ += count;
        if (me_ >= 0 && take(me_, count, back, f).ended) return;
        // Members that had begun nothing lately may not be running, so their items are taken at once.
        if (progress_->reached(target_) || help(count, back, true, f) || progress_->reached_soon(target_)) return;
        if (!help(count, back, false, f)) progress_->wait(target_);
    }

  private:
    struct Taken {
        int64_t items;
        bool ended;
    };

    template <class F>
    Taken take(int member, int64_t count, bool back, F& f) {
        const WorkRange share(count, member, size_);
        Taken taken{0, false};
        for (int64_t k; (k = progress_->claim(member, phase_, share.count())) >= 0; ++taken.items)
            f(back ? share.last - 1 - k : share.first + k);
        taken.ended = taken.items && progress_->report(taken.items, target_);
        return taken;
    }

    // Runs items of other members: the absent ones, or else the rest. Returns whether the phase has ended.
    template <class F>
    bool help(int64_t count, bool back, bool absent, F& f) {
        for (int other = 0; other < size_; ++other) {
            const uint64_t bit = 1ull << (other & 63);
            if (other == me_ || bool(absent_ & bit) != absent) continue;
            const int64_t all = WorkRange(count, other, size_).count();
            const Taken taken = take(other, count, back, f);
            if (all && me_ >= 0) absent_ = taken.items == all ? absent_ | bit : absent_ & ~bit;
            if (taken.ended) return true;
        }
        return false;
    }

    team::Progress* progress_ = nullptr;
    int me_ = 0, size_ = 1;
    uint64_t phase_ = 0, absent_ = 0;  // absent_: a bit for each member that had begun nothing lately
    int64_t target_ = 0;
};

}  // namespace
}  // namespace seqcells
