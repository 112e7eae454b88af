// The forward passes of a library for programs that run without Python. The library's files for each instruction set and its
// file that knows torch share these structs.

#pragma once

#include "layer_call.h"

namespace seqcells {

// A cell's forward pass for one instruction set, and the loop that runs it. The loop returns 0, or -1 when memory runs out.
struct Forward {
    int (*run)(const Pass&, const LayerCall* directions, int count);
    Pass pass;
};

// An instruction set, and the forward passes of all layers' cells for it.
struct Instructions {
    bool (*supported)();
    const Forward* forwards;
};

}  // namespace seqcells
