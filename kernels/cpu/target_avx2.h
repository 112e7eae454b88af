// avx2, with the extension that all its processors have, fma.

#pragma once

#include "standard_headers.h"

#pragma GCC target("avx2,fma")
#define SEQCELLS_TARGET avx2
#define SEQCELLS_MASKS {-1, -1, -1, -1, -1, -1, -1, -1}
#define SEQCELLS_VECTOR_BYTES 32
#define SEQCELLS_VECTOR_REGISTERS 16
