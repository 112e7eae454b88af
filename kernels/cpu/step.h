// A step of a cell for some rows of a block of units: what its elementwise part is given.

#pragma once

#include "problem.h"

namespace seqcells {

// Rows [row0, row1) of `vectors` vectors of units from `unit` on. Arrays that begin at a row begin at row0.
template <class T>
struct Step {
    const Problem* p;
    int64_t index;              // of the step, in the order of travel
    int64_t row0, row1, unit;
    int vectors;
    bool pairs;                 // whether operands are of bfloat16, not of T
    int64_t next_unit;          // what is likely to come next, to be asked for ahead of time; -1 for nothing
    int next_vectors;
    int64_t next_index;

    const T* products;          // forward: of the recurrent gates, vectors side by side, from row0 on; backward: the unprojected gradient
    int64_t products_width;     // from row to row
    T* states;                  // (S, B, states_width) of the states but the first; backward: their gradients
    int64_t states_width;
    int64_t hidden_width;       // from row to row of the hidden state, or of its gradient
    void* operands;             // (B, ·), what the next product reads
    int64_t operands_width;

    // Forward.
    const T* inputs;            // of the gates, as products; null: they are in gates_x
    int64_t inputs_width;
    const T* now;               // (B, ·), the hidden state, and the next one
    T* next;
    void* unprojected;          // (B, ·), operands too: a hidden state before its projection
    int64_t unprojected_width;

    // Backward.
    T* hidden;                  // (B, ·), the gradient of the hidden state
    T* sums;                    // (G + U + rows of unit, H), the gradients of biases and of parameters in part, and in all
    double* totals;
    int64_t terms;              // summed up so far
    bool with_biases;
};

}  // namespace seqcells
