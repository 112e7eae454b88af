// The engine for avx2.

#if defined(__x86_64__)
#include "target_avx2.h"

#include "target_kernels.h"
#endif
