// Large blocks are kept for the next call, up to half a gigabyte of them. New pages from the system can cost more than the work
// on them: 1.5 µs each on a virtual machine. That is a third of the time of training a large layer. While another thread holds
// the lock (or held it when this process was forked), blocks come from the system and go back to it.

#include "memory_pool.h"

#include <sched.h>

#include <cstdlib>
#include <mutex>
#include <utility>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace seqcells {
namespace pool {
namespace {

constexpr int64_t SMALL = 1 << 16, MOST = 1 << 29;
constexpr int PLACES = 32;

struct Block {
    void* memory;
    int64_t bytes;
};
Block blocks[PLACES]{};
int next = 0;
int64_t kept = 0;
std::mutex mutex;

void* out_of(Block& block) {
    kept -= block.memory ? block.bytes : 0;
    return std::exchange(block.memory, nullptr);
}

}  // namespace

void* take(int64_t& bytes) {
    if (bytes >= SMALL) {
        std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
        Block* best = nullptr;
        for (Block& block : blocks)
            if (lock && block.memory && block.bytes >= bytes && block.bytes <= 2 * bytes && (!best || block.bytes < best->bytes))
                best = &block;
        if (best) {
            bytes = best->bytes;
            return out_of(*best);
        }
    }
    return std::aligned_alloc(64, bytes);
}

void give(void* memory, int64_t bytes) {
    if (bytes >= SMALL && bytes <= MOST / 2) {
        std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
        if (lock) {
            // The oldest blocks make room.
            while (blocks[next].memory || kept + bytes > MOST) {
                std::free(out_of(blocks[next]));
                if (kept + bytes > MOST) next = (next + 1) % PLACES;
            }
            blocks[next] = {memory, bytes};
            kept += bytes;
            next = (next + 1) % PLACES;
            return;
        }
    }
    std::free(memory);
}

int64_t release() {
    std::unique_lock<std::mutex> lock(mutex, std::defer_lock);
    for (int tries = 0; !lock.try_lock(); ++tries) {
        if (tries == 1000) return 0;  // the thread that holds it may be in the process that this one was forked from
        sched_yield();
    }
    const int64_t released = kept;
    for (Block& block : blocks) std::free(out_of(block));
#if defined(__GLIBC__)
    malloc_trim(0);  // otherwise the C library keeps the freed blocks
#endif
    return released;
}

}  // namespace pool
}  // namespace seqcells
