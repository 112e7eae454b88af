// Sizes by which the engine divides work among threads.

#pragma once

#include <unistd.h>

#include <atomic>

#include "panel_product.h"

namespace seqcells {
namespace {

// f(first, last) for parts of the rows, of about equal size and at most BATCH each.
template <class F>
SEQCELLS_INLINE void each_batch(int64_t rows, F f) {
    const Parts parts(rows, BATCH);
    for (int64_t part = 0; part < parts.count; ++part) f(parts.of(part).first, parts.of(part).last);
}

// The number of passes so far. It alternates the order of blocks (Loop::back), also between calls of one step.
std::atomic<unsigned> passes{0};

// The bytes that weights may take of a thread's own cache, the second level: all of it.
inline int64_t cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return bytes;
#endif
    return 1 << 19;  // where the system does not tell: most processors have at least this
}

// Multiply-adds that one item of work should have: 20 to 50 µs, so that no thread waits for long.
constexpr int64_t ITEM = 1 << 21;

}  // namespace
}  // namespace seqcells
