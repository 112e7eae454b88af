// Large blocks are kept for the next call, up to half a gigabyte of them: to have their pages given anew can cost more than
// the work on them (1.5 µs each on a virtual machine, a third of the time of training a large layer). Where another thread
// is at it (or was, when this process was forked from it), a block is taken from the system and given back.

#include "pool.h"

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
            // The oldest make room.
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
        if (tries == 1000) return 0;  // whoever has it may have stayed behind when this process was forked
        sched_yield();
    }
    const int64_t released = kept;
    for (Block& block : blocks) std::free(out_of(block));
#if defined(__GLIBC__)
    malloc_trim(0);  // or the C library keeps what it was given
#endif
    return released;
}

}  // namespace pool
}  // namespace seqcells
