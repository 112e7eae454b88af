// OpenMP as torch brings it: found when the process runs, by the names that all its libraries for Linux have.
//
// A region of OpenMP ends when all its threads have come to its end. Where others use the processors too, a thread may come
// late by a slice of the scheduler's time. So a region is entered only while its threads run, and after a late one the
// engine's own threads are taken for a while.

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

// A moment in which a thread that runs uses measurable time of its processor.
constexpr microseconds MOMENT{1};
// A thread that comes so late to the end was not running.
constexpr microseconds LATE{200};
// For how long others are taken then, at first and at most. Each late one doubles it.
constexpr microseconds BRIEFLY = milliseconds{20}, LONG = std::chrono::seconds{5};

// Of each of the process's threads: before that it is not known whether OpenMP has threads for it, and some live shortly.
constexpr int CALLS_BEFORE = 8;

// Whether the process began as another's copy, without a program of its own: as the system tells it, for this library may
// have been loaded later.
bool is_copy() {
    constexpr unsigned FORKED_WITHOUT_EXEC = 0x40;  // PF_FORKNOEXEC
    std::ifstream file("/proc/self/stat");
    std::string line;
    unsigned flags;
    const bool read = bool(std::getline(file, line)) &&
                      sscanf(line.c_str() + line.rfind(')') + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1;
    return !read || flags & FORKED_WITHOUT_EXEC;
}

// A copy has none of OpenMP's threads, and OpenMP would wait for them.
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

// OpenMP's threads that work for one of the process's own: each of those has others.
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

    // Which they are. They look for work afterwards, as after torch's operators: nobody should believe it.
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

    // One stands for all: they began to look together. A thread that has ended has no clock.
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
