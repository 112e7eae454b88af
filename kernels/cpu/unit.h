// A cell's passes for the loop, compiled alone: what a library of one cell is made of. The file that includes this names the
// instruction set before.

#pragma once

#include "stage.h"

// Structs that are printed, between SEQCELLS_UNIT_BEGIN and SEQCELLS_UNIT_END.
#define SEQCELLS_UNIT_BEGIN \
    namespace seqcells {    \
    namespace {
#define SEQCELLS_UNIT_END \
    }                     \
    }

#if defined(_WIN32)
#define SEQCELLS_EXPORT extern "C" __declspec(dllexport)
#else
#define SEQCELLS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// The library's one name: a pass of a cell in a type.
#define SEQCELLS_PASS(Program, T) SEQCELLS_EXPORT const seqcells::Pass seqcells_pass = seqcells::pass_of<seqcells::Program, T>();
