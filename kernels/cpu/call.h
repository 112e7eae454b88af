// What a call of the loop is: the arrays of one layer in one direction, as Python hands them over.

#pragma once

#include <cstdint>

#include "pass.h"

namespace seqcells {

// T steps, B rows, F features, and the number of units that each letter stands for, H the first. Arrays are contiguous but for
// columns of wider ones, and null where a call has none.
struct Call {
    int64_t steps, batch, sizes[MAX_LETTERS];
    int64_t reverse, threads, halves;
    int64_t features;
    const void *input, *weight_ih, *bias_ih;  // (T, B, F), (G·H, F), (G·H): what makes the gates' array, in its place
    const int64_t* lengths;                   // (B)
    const bool* reset;                        // (T, B)
    const void* packed;                       // the weights as the pass multiplies them, made by `pack`; null: it packs them itself
    const void* arrays[MAX_ARRAYS];           // in the order of the pass's names
    int64_t widths[MAX_ARRAYS];               // of arrays over time, from row to row
};

}  // namespace seqcells
