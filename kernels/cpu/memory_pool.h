// Memory that is kept between calls.

#pragma once

#include <cstdint>

namespace seqcells {

// One pool for the whole engine, compiled for any processor. It is not in the tables, which exist once for each instruction
// set.
namespace pool {

// Returns a block of whole cache lines, not initialised, or null when memory runs out. `bytes` becomes the block's size.
void* take(int64_t& bytes);

void give(void* memory, int64_t bytes);

// Gives all kept memory back to the system. Returns its bytes, or 0 if another thread does not release the pool's lock.
int64_t release();

}  // namespace pool
}  // namespace seqcells
