// The engine for avx2.

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma")
#define SEQCELLS_TARGET avx2
#define SEQCELLS_MASKS {-1, -1, -1, -1, -1, -1, -1, -1}
#define SEQCELLS_VECTOR_BYTES 32
#define SEQCELLS_VECTOR_REGISTERS 16
#include "tables.h"
#endif
