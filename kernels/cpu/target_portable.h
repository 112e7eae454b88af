// Any processor: the compiler turns vectors into the instructions that it may use.

#pragma once

#include "standard_headers.h"

#define SEQCELLS_TARGET portable
#define SEQCELLS_VECTOR_BYTES 16
#define SEQCELLS_VECTOR_REGISTERS 16
