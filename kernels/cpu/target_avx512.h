// avx512, with the extensions that servers have.

#pragma once

#include "standard_headers.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define SEQCELLS_TARGET avx512
#define SEQCELLS_VECTOR_BYTES 64
#define SEQCELLS_VECTOR_REGISTERS 32
