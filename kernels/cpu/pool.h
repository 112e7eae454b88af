// Memory that is kept between calls.

#pragma once

#include <cstdint>

namespace seqcells {

// One for the whole engine, compiled for any processor: not in the tables, of which there is one an instruction set.
namespace pool {

// A block of whole cache lines, not initialised, null where there is none; bytes becomes its size.
void* take(int64_t& bytes);

void give(void* memory, int64_t bytes);

// Give back to the system what is kept → its bytes; 0 where another thread does not let go of the pool.
int64_t release();

}  // namespace pool
}  // namespace seqcells
