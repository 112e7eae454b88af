// Compiles one cell's passes for the loop: the only header of this engine that the library of one cell includes. The including
// file selects the instruction set before.

#pragma once

#include "stage.h"

// Printed structs go between SEQCELLS_CELL_BEGIN and SEQCELLS_CELL_END.
#define SEQCELLS_CELL_BEGIN \
    namespace seqcells {    \
    namespace {
#define SEQCELLS_CELL_END \
    }                     \
    }

#if defined(_WIN32)
#define SEQCELLS_EXPORT extern "C" __declspec(dllexport)
#else
#define SEQCELLS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// The only symbol that a library exports: one pass of a cell, for one working type.
#define SEQCELLS_PASS(Program, T) SEQCELLS_EXPORT const seqcells::Pass seqcells_pass = seqcells::pass_of<seqcells::Program, T>();
