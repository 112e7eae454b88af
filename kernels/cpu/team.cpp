// The engine's threads, and how they wait: they spin for some microseconds, then sleep, so that a long wait leaves the core to
// other threads.

#include "team.h"

#include <pthread.h>

#include <chrono>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "openmp.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#else
#include <condition_variable>
#endif

namespace seqcells {
namespace team {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds LOOKING{40};  // spinning before a thread sleeps: about what waking it costs
constexpr std::chrono::nanoseconds MOMENT{1500};  // spinning before it takes other members' items: about a short item

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until holds() or until `time` is over. Returns whether it holds. The pauses get longer, because another thread must
// write to the cache line that this one reads.
template <class Holds>
bool look(std::chrono::nanoseconds time, Holds holds) {
    Clock::time_point began{};
    for (int pauses = 1;; pauses = pauses < 16 ? 2 * pauses : 16) {
        if (holds()) return true;
        for (int k = 0; k < pauses; ++k) pause();
        const auto now = Clock::now();
        if (began == Clock::time_point{})
            began = now;
        else if (now - began > time)
            return holds();
    }
}

#if defined(__linux__)
static_assert(sizeof(std::atomic<uint32_t>) == 4, "a futex");
// Sleeps until the bell is rung, unless it was rung after `seen` was read. May return early.
void sleep(std::atomic<uint32_t>& bell, uint32_t seen) { syscall(SYS_futex, &bell, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0); }
void ring(std::atomic<uint32_t>& bell, int sleepers = INT_MAX) {
    bell.fetch_add(1, std::memory_order_seq_cst);
    syscall(SYS_futex, &bell, FUTEX_WAKE_PRIVATE, sleepers, nullptr, nullptr, 0);
}
#else
// Without futexes one condition variable serves all bells, since these ring rarely. It is never destroyed, because threads
// sleep on it until the process ends.
std::mutex& door = *new std::mutex;
std::condition_variable& any = *new std::condition_variable;
void sleep(std::atomic<uint32_t>& bell, uint32_t seen) {
    std::unique_lock<std::mutex> lock(door);
    any.wait(lock, [&] { return bell.load() != seen; });
}
void ring(std::atomic<uint32_t>& bell, int = 0) {
    {
        std::lock_guard<std::mutex> lock(door);
        bell.fetch_add(1);
    }
    any.notify_all();
}
#endif

// The places in jobs that no thread has taken yet, and the threads that take such places.
class Workers {
  public:
    void post(const std::shared_ptr<Job>& job, int size) {
        int wake;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (int member = 1; member < size; ++member) places_.push_back({job, member});
            grow(size - 1);
            open_.store(places_.size(), std::memory_order_seq_cst);
            wake = asleep_.load(std::memory_order_seq_cst);
        }
        if (wake) ring(bell_, size - 1);
    }

    // Removes the job's places that no thread has taken.
    void withdraw(const std::shared_ptr<Job>& job) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto place = places_.begin(); place != places_.end();) place = place->job == job ? places_.erase(place) : place + 1;
        open_.store(places_.size(), std::memory_order_seq_cst);
    }

  private:
    struct Place {
        std::shared_ptr<Job> job;
        int member;
    };

    // If the system has no thread to give, the caller goes on without it.
    void grow(int threads) {
        try {
            for (; threads_ < threads; ++threads_) std::thread([this] { work(); }).detach();
        } catch (const std::system_error&) {
        }
    }

    void work() {
        for (;;) {
            Place place = next();
            place.job->run(place.member);
        }
    }

    Place next() {
        for (;;) {
            if (look(LOOKING, [this] { return open_.load(std::memory_order_acquire) > 0; })) {
                std::lock_guard<std::mutex> lock(mutex_);
                if (places_.empty()) continue;
                Place place = std::move(places_.front());
                places_.pop_front();
                open_.store(places_.size(), std::memory_order_seq_cst);
                return place;
            }
            const uint32_t seen = bell_.load(std::memory_order_seq_cst);
            asleep_.fetch_add(1, std::memory_order_seq_cst);
            if (!open_.load(std::memory_order_seq_cst)) sleep(bell_, seen);
            asleep_.fetch_sub(1, std::memory_order_seq_cst);
        }
    }

    std::mutex mutex_;
    std::deque<Place> places_;
    int threads_ = 0;
    std::atomic<size_t> open_{0};
    std::atomic<int> asleep_{0};
    std::atomic<uint32_t> bell_{0};
};

// Never destroyed, because its threads sleep until the process ends. A forked process has none of these threads, and makes its
// own.
std::atomic<Workers*> workers{nullptr};
[[maybe_unused]] const int forked = pthread_atfork(nullptr, nullptr, [] { workers.store(nullptr); });

Workers& all_workers() {
    Workers* there = workers.load(std::memory_order_acquire);
    if (there) return *there;
    auto* made = new Workers;
    if (workers.compare_exchange_strong(there, made, std::memory_order_acq_rel)) return *made;
    delete made;
    return *there;
}

constexpr int COUNT_BITS = 24;  // bits of a claim's word that hold the number of items

}  // namespace

int64_t Progress::claim(int member, uint64_t phase, int64_t count) {
    std::atomic<uint64_t>& word = claims_[member].word;
    uint64_t now = word.load(std::memory_order_relaxed);
    for (;;) {
        const uint64_t of = now >> COUNT_BITS;
        const int64_t begun = of == phase ? int64_t(now & ((1u << COUNT_BITS) - 1)) : 0;
        if (of > phase || begun >= count) return -1;  // a late thread finds a later phase, and nothing to do
        if (word.compare_exchange_weak(now, phase << COUNT_BITS | uint64_t(begun + 1), std::memory_order_relaxed)) return begun;
    }
}

bool Progress::report(int64_t items, int64_t target) {
    if (done_.fetch_add(items, std::memory_order_seq_cst) + items < target) return false;
    if (asleep_.load(std::memory_order_seq_cst)) ring(bell_);
    return true;
}

bool Progress::reached_soon(int64_t target) const {
    return look(MOMENT, [&] { return reached(target); });
}

void Progress::wait(int64_t target) {
    if (look(LOOKING, [&] { return reached(target); })) return;
    for (;;) {
        const uint32_t seen = bell_.load(std::memory_order_seq_cst);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        if (done_.load(std::memory_order_seq_cst) < target) sleep(bell_, seen);
        asleep_.fetch_sub(1, std::memory_order_seq_cst);
        if (reached(target)) return;
    }
}

void run(const std::shared_ptr<Job>& job, int size) {
    if (size > 1 && openmp::run(*job, size)) return;
    if (size > 1) all_workers().post(job, size);
    job->run(0);
    if (size > 1) all_workers().withdraw(job);
}

}  // namespace team
}  // namespace seqcells
