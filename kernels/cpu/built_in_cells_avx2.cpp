// The built-in cells for avx2.

#if defined(__x86_64__)
#include "target_avx2.h"

#include "built_in_cells.h"
#endif
