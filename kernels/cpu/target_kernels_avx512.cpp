// The engine for avx512.

#if defined(__x86_64__)
#include "target_avx512.h"

#include "target_kernels.h"
#endif
