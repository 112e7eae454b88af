// The built-in cells for avx512.

#if defined(__x86_64__)
#include "target_avx512.h"

#include "built_in_cells.h"
#endif
