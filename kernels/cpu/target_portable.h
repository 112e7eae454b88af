// Any processor: the compiler makes of vectors what it can.

#pragma once

#include "std.h"

#define SEQCELLS_TARGET portable
#define SEQCELLS_VECTOR_BYTES 16
#define SEQCELLS_VECTOR_REGISTERS 16
