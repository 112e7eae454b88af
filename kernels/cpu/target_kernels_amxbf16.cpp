// The engine for AMX, whose unit multiplies tiles of bfloat16.

#include "standard_headers.h"

#if defined(__x86_64__) && __has_include(<amxbf16intrin.h>)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,fma")
#define SEQCELLS_TARGET amxbf16
#define SEQCELLS_PAIRS
#define SEQCELLS_TILES
#define SEQCELLS_VECTOR_BYTES 64
#define SEQCELLS_VECTOR_REGISTERS 32

#include "target_kernels.h"
#endif
