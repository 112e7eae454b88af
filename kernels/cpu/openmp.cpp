// OpenMP as torch brings it. Its functions are found at run time, by names that all OpenMP libraries for Linux have.
//
// A parallel region ends when all its threads have reached its end. Where other programs use the processors too, a thread may
// be late by a time slice of the scheduler. So a region is entered only while its threads run. After a late thread, the engine
// uses its own threads for a while.

#include "openmp.h"

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>
#endif

namespace seqcells {
namespace team {
namespace openmp {

#if defined(__linux__)
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// A time in which a running thread uses measurable time of its processor.
constexpr microseconds MOMENT{1};
// A thread that is so late at the end was not running.
constexpr microseconds LATE{200};
// How long the engine then uses its own threads, at first and at most. Each late thread doubles the time.
constexpr microseconds BRIEFLY = milliseconds{20}, LONG = std::chrono::seconds{5};

// Calls by each thread of the process before OpenMP is tried. Until then it is not known whether OpenMP has threads for that
// thread, and some threads live only briefly.
constexpr int CALLS_BEFORE = 8;

// Whether the process is a fork that has not executed a program of its own. The system is asked, because this library may have
// been loaded after the fork.
bool is_copy() {
    constexpr unsigned FORKED_WITHOUT_EXEC = 0x40;  // PF_FORKNOEXEC
    std::ifstream file("/proc/self/stat");
    std::string line;
    unsigned flags;
    const bool read = bool(std::getline(file, line)) &&
                      sscanf(line.c_str() + line.rfind(')') + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1;
    return !read || flags & FORKED_WITHOUT_EXEC;
}

// A forked process has none of OpenMP's threads, and OpenMP would wait for them.
std::atomic<bool> copied{is_copy()};
[[maybe_unused]] const int told = pthread_atfork(nullptr, nullptr, [] { copied = true; });

struct Library {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    int (*number)(), (*most)(), (*inside)();

    Library() {
        find(parallel, "GOMP_parallel"), find(number, "omp_get_thread_num");
        find(most, "omp_get_max_threads"), find(inside, "omp_in_parallel");
    }
    bool there() const { return parallel && number && most && inside; }

  private:
    template <class F>
    static void find(F& function, const char* name) {
        function = reinterpret_cast<F>(dlsym(RTLD_DEFAULT, name));
    }
};

const Library& library() {
    static const Library found;
    return found;
}

// The OpenMP threads that work for one thread of the process. OpenMP has other threads for each such thread.
class Threads {
  public:
    bool run(Job& job, int size) {
        const auto now = Clock::now();
        if (calls_ < CALLS_BEFORE) return ++calls_, false;
        if (now < others_until_ || copied || library().inside()) return false;
        if (const int all = library().most(); all != int(clocks_.size())) return learn(all), false;
        if (size > int(clocks_.size()) || !running()) return false;
        Work work{&job, size};
        library().parallel(work_of_one, &work, unsigned(clocks_.size()), 0);
        const bool late = Clock::now() - work.ended > LATE;
        if (late) others_until_ = Clock::now() + pause_;
        pause_ = std::clamp(late ? 2 * pause_ : pause_ * 9 / 10, BRIEFLY, LONG);
        return true;
    }

  private:
    struct Work {
        Job* job;
        int size;
        Clock::time_point ended{};
    };

    static void work_of_one(void* given) {
        auto& work = *static_cast<Work*>(given);
        const int member = library().number();
        if (member < work.size) work.job->run(member);
        if (member == 0) work.ended = Clock::now();
    }

    // Finds the clocks of OpenMP's threads. The threads spin afterwards, as after torch's operators; this must not be taken for
    // a sign that torch uses them.
    void learn(int all) {
        clocks_.assign(size_t(all > 1 ? all : 0), 0);
        others_until_ = Clock::now() + BRIEFLY;
        if (all < 2) return;
        const auto note = [](void* clocks) {
            const int member = library().number();
            if (pthread_getcpuclockid(pthread_self(), static_cast<clockid_t*>(clocks) + member)) static_cast<clockid_t*>(clocks)[member] = 0;
        };
        library().parallel(note, clocks_.data(), unsigned(all), 0);
    }

    // One thread stands for all, because they began to spin together. A thread that has ended has no clock.
    bool running() const {
        if (clocks_.size() < 2 || !clocks_[1]) return false;  // no thread's clock is 0
        timespec before, after;
        if (clock_gettime(clocks_[1], &before)) return false;
        for (const auto began = Clock::now(); Clock::now() - began < MOMENT;) continue;
        return !clock_gettime(clocks_[1], &after) && (after.tv_nsec != before.tv_nsec || after.tv_sec != before.tv_sec);
    }

    std::vector<clockid_t> clocks_;
    int calls_ = 0;
    Clock::time_point others_until_{};
    microseconds pause_ = BRIEFLY;
};

}  // namespace

bool run(Job& job, int size) {
    thread_local Threads threads;
    return library().there() && threads.run(job, size);
}

#else

bool run(Job&, int) { return false; }

#endif

}  // namespace openmp
}  // namespace team
}  // namespace seqcells
