// How work is cut, whatever it is.

#pragma once

#include <unistd.h>

#include <atomic>

#include "product.h"

namespace seqcells {
namespace {

// f(first, last) for about equal parts of the rows, of at most BATCH each.
template <class F>
SEQCELLS_INLINE void each_batch(int64_t rows, F f) {
    const Parts parts(rows, BATCH);
    for (int64_t part = 0; part < parts.count; ++part) f(parts.of(part).first, parts.of(part).last);
}

// Passes so far: single steps, of one pass each, go to and fro as well.
std::atomic<unsigned> passes{0};

// What weights may take of the cache that a thread has to itself, the second level: all of it, in bytes.
inline int64_t cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return bytes;
#endif
    return 1 << 19;  // where the system does not say: the size that most have at least
}

// Multiply-adds that an item should have, so that nobody waits for long: 20 to 50 µs.
constexpr int64_t ITEM = 1 << 21;

}  // namespace
}  // namespace seqcells
