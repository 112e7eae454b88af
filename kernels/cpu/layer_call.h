// A call of the loop: the sizes and arrays of one layer in one direction, as Python hands them over.

#pragma once

#include <cstdint>

#include "pass_description.h"

namespace seqcells {

// T steps, B rows, F features, and the number of units of each letter, H first. Arrays are contiguous, or columns of wider
// arrays. An array that a call does not have is null.
struct LayerCall {
    int64_t steps, batch, sizes[MAX_LETTERS];
    int64_t reverse, threads, is_bfloat16;
    int64_t features;
    const void *input, *weight_ih, *bias_ih;  // (T, B, F), (G·H, F), (G·H): given in place of the gates' array
    const int64_t* lengths;                   // (B)
    const bool* reset;                        // (T, B)
    const void* packed;                       // weights that `pack` has packed; null: the call packs them itself where that pays
    const void* arrays[MAX_ARRAYS];           // in the order of Pass::names
    int64_t widths[MAX_ARRAYS];               // numbers from row to row, for arrays over time
};

}  // namespace seqcells
