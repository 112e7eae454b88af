// What an instruction set has for one precision, whatever the cell.

#pragma once

#include <cstdint>

#include "call.h"

namespace seqcells {

// A product c = a · b + bias: a (rows × depth), b (depth × columns), each with one of its strides 1; c (rows × columns) and bias contiguous.
struct Gemm {
    int64_t rows, columns, depth, threads;
    const void* a;
    int64_t a_by_row, a_by_depth;
    const void* b;
    int64_t b_by_depth, b_by_column;
    const void* bias;  // (columns), or null
    void* c;
};

// The functions return 0, or -1 where memory is lacking.
struct Precision {
    const char* name;
    int (*gemm)(const Gemm&);
    // A pass over one or two directions.
    int (*loop)(const Pass&, const Call* directions, int count);
    // Packs a direction's weights into memory, if there is any, for the `packed` of many calls; returns how many bytes they take.
    int64_t (*pack)(const Pass&, const Call&, void* memory);
};

// Both passes of a cell that the extension has for one instruction set, computed in float32 and in float64.
struct Built {
    const char* key;  // of the printed struct
    Pass single[2], wide[2];
};

}  // namespace seqcells
