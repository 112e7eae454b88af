// A team of threads for a whole sequence, and the barrier they meet at every step.

#pragma once

#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "share.h"

namespace seqcells {
namespace {

// Threads spin: a step takes microseconds. One that waits for long gives its core away, since whoever it waits for
// may want that core.
class Barrier {
  public:
    explicit Barrier(int size) : size_(size) {}

    void wait() {
        if (size_ == 1) return;
        const int round = round_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins < 4096)
                pause();
            else
                sched_yield();
        }
    }

  private:
    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    const int size_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

// Whether this process was forked from one that had the engine. Its calling thread may then still count on a team of
// OpenMP's whose threads stayed behind, and would wait for them for ever; a new thread has a team of its own.
bool forked = false;
[[maybe_unused]] const int watch = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// work(team, member, size, barrier) of each team, on at most so many threads together: teams side by side, if that is
// wished and OpenMP gives enough threads (inside another of its teams it gives one), or one after another on all.
template <class Work>
void run_teams(int teams, bool side_by_side, int threads, Work work) {
    if (threads <= 1) {
        Barrier alone(1);
        for (int team = 0; team < teams; ++team) work(team, 0, 1, alone);
        return;
    }
    const auto run = [&] {
        std::vector<std::unique_ptr<Barrier>> barriers;
#pragma omp parallel num_threads(threads)
        {
            const int present = omp_get_num_threads(), member = omp_get_thread_num();
            const bool at_once = side_by_side && present >= teams;
#pragma omp single
            for (int team = 0; team < teams; ++team)
                barriers.emplace_back(new Barrier(at_once ? Share(present, team, teams).count() : present));
            for (int team = 0; team < teams; ++team) {
                const Share members = at_once ? Share(present, team, teams) : Share(present, 0, 1);
                if (member >= members.first && member < members.last)
                    work(team, int(member - members.first), int(members.count()), *barriers[team]);
            }
        }
    };
    if (forked)
        std::thread(run).join();
    else
        run();
}

}  // namespace
}  // namespace seqcells
