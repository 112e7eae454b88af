// The built-in cells for any processor.

#include "target_portable.h"

#include "built_in_cells.h"
