// What a call is: the arrays of one layer in one direction, as Python hands them over.

#pragma once

#include <cstdint>

namespace seqcells {

constexpr int MAX_STATES = 4;

// All arrays are contiguous, of the layer's type unless another is named; those marked * of the type that is computed in. T steps, B rows, H hidden units, P of them
// projected (P = H without a projection), G gates, R recurrent gates, S states, A saved values.
// Null where a call does not have it. gates_x, output and their gradients are columns of wider arrays.
struct Problem {
    int64_t steps, batch, hidden, projected;
    int64_t reverse, threads;
    int64_t gates_width, output_width;      // from row to row of gates_x and of output, where other directions lie between

    const void* gates_x;                    // (T, B, G·H); or null, and instead what it is made of:
    const void *input, *weight_ih, *bias_ih;  //   (T, B, F), (G·H, F), (G·H)
    int64_t features;                       //   F
    const void* initial[MAX_STATES];        // (B, P), then (B, H)
    const void* weight_hh;                  // (R·H, P)
    const void* bias_hh;                    // (R·H)
    const void* weight_hr;                  // (P, H)
    const void* unit;                       // (rows, H)
    const int64_t* lengths;                 // (B)
    const bool* reset;                      // (T, B)
    const void* reset_states[MAX_STATES];   // as initial; null for zeros

    // Written by forward, read by backward.
    void* output;                           // (T, B, P)
    void* final[MAX_STATES];                // as initial
    void* saved;                            // * (T, B, A·H)
    void* path[MAX_STATES];                 // * (T, B, H): each state after each step; the first before its projection

    // Backward only.
    const void* previous_hidden;            // (T, B, P): what the product of each step read
    const void* grad_output;                // (T, B, P)
    const void* grad_final[MAX_STATES];     // as initial
    void* grad_gates_x;                     // (T, B, G·H)
    void* grad_product;                     // (T, B, U·H): of the U recurrent gates that share no grad_gates_x
    void* grad_projected;                   // (T, B, P): of the hidden state, for the projection's weights
    void* grad_initial[MAX_STATES];         // * as initial
    void* grad_reset[MAX_STATES];           // * as initial
    void* grad_unit;                        // * (rows, H)
    void* grad_bias;                        // * (R·H): of bias_hh
};

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

// A cell's kernels for one type and instruction set. They return 0, or -1 where memory is lacking.
struct Kernels {
    const char* cell;
    int saves;                // values that forward keeps of each unit
    int recurrent_gates;
    const int* shared;        // for each recurrent gate the gate that has the same gradient, or -1
    int states;
    bool path[MAX_STATES];    // whether backward reads a state's path
    int (*forward)(const Problem* directions, int count);
    int (*backward)(const Problem* directions, int count);
};

// What an instruction set has for one precision: the cells, up to a row without a name, and the product of matrices.
struct Precision {
    const char* name;
    const Kernels* kernels;
    int (*gemm)(const Gemm&);
};

}  // namespace seqcells
