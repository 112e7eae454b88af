// The engine for avx512.

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
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define SEQCELLS_TARGET avx512
#define SEQCELLS_VECTOR_BYTES 64
#define SEQCELLS_VECTOR_REGISTERS 32
#include "tables.h"
#endif
