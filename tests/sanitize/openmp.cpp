// The part of OpenMP's runtime that the engine calls, in threads that the thread sanitizer knows: it sees nothing of what
// GNU's runtime does, and would take all that a team is given, and gives back, for a race.

#include <pthread.h>

#include <thread>
#include <vector>

namespace {

struct Team {
    int size;
    pthread_barrier_t all;
};
thread_local Team* team = nullptr;
thread_local int member = 0;

}  // namespace

extern "C" {

int omp_get_thread_num() { return member; }
int omp_get_num_threads() { return team ? team->size : 1; }

// A team inside another has one member, as is OpenMP's default.
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned) {
    Team* const outer = team;
    const int outer_member = member;
    Team mine{outer ? 1 : int(threads), {}};
    pthread_barrier_init(&mine.all, nullptr, mine.size);
    const auto join = [&](int number) { team = &mine, member = number, work(data); };
    std::vector<std::thread> others;
    for (int number = 1; number < mine.size; ++number) others.emplace_back(join, number);
    join(0);
    for (auto& other : others) other.join();
    pthread_barrier_destroy(&mine.all);
    team = outer, member = outer_member;
}

void GOMP_barrier() {
    if (team) pthread_barrier_wait(&team->all);
}

bool GOMP_single_start() { return member == 0; }

}  // extern "C"
