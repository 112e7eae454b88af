// The functions of an instruction set for one precision, the same for all cells.

#pragma once

#include <cstdint>

#include "layer_call.h"

namespace seqcells {

// The product c = a · b + bias of a (rows × depth) and b (depth × columns). One stride of a and one of b is 1; c (rows ×
// columns) and bias are contiguous.
struct Gemm {
    int64_t rows, columns, depth, threads;
    const void* a;
    int64_t a_by_row, a_by_depth;
    const void* b;
    int64_t b_by_depth, b_by_column;
    const void* bias;  // (columns), or null
    void* c;
};

// `gemm` and `loop` return 0, or -1 when memory runs out.
struct Precision {
    const char* name;
    int (*gemm)(const Gemm&);
    // Runs a pass over one or two directions.
    int (*loop)(const Pass&, const LayerCall* directions, int count);
    // Packs one direction's weights into `memory`, for LayerCall::packed of many calls; null memory packs nothing. Returns the bytes
    // that the packed weights take.
    int64_t (*pack)(const Pass&, const LayerCall&, void* memory);
};

// Both passes of a cell that is built into the extension, for one instruction set, in float32 (single) and in float64 (wide).
struct Built {
    const char* key;  // the hash of the printed struct
    Pass single[2], wide[2];
};

}  // namespace seqcells
