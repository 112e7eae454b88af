// The engine for any processor.

#include "target_portable.h"

#include "target_kernels.h"
