// The forward passes of a library for programs that run without Python: what its files for instruction sets, and the one that
// knows torch, have in common.

#pragma once

#include "call.h"

namespace seqcells {

// A cell's forward pass for one instruction set, and the loop that runs it: 0, or -1 where memory is lacking.
struct Forward {
    int (*run)(const Pass&, const Call* directions, int count);
    Pass pass;
};

// An instruction set, with the forward passes of all layers' cells.
struct Instructions {
    bool (*supported)();
    const Forward* forwards;
};

}  // namespace seqcells
