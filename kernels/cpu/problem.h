// What a call is: the arrays of one layer in one direction, as Python hands them over, and what the engine has for it.

#pragma once

#include <cstdint>

#include "call.h"

namespace seqcells {

constexpr int MAX_STATES = 4;

// T steps, B rows, H hidden units, P of them projected (P = H without a projection), F features, G gates, R recurrent gates,
// U of them that share no gradient with a gate, S states, A saved values.
// All arrays are contiguous. Those marked * are of the type that is computed in; the others are too, or of bfloat16 where
// `halves`. Null where a call does not have one. gates_x, output and their gradients are columns of wider arrays.
struct Problem {
    int64_t steps, batch, hidden, projected;
    int64_t reverse, threads, halves;
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
    const void* packed;                     // the weights as forward multiplies them, made by `pack`; null: it packs them itself

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
    void* grad_product;                     // (T, B, U·H)
    void* grad_projected;                   // (T, B, P): of the hidden state, for the projection's weights
    void* grad_initial[MAX_STATES];         // * as initial
    void* grad_reset[MAX_STATES];           // * as initial
    void* grad_unit;                        // * (rows, H)
    void *grad_bias_ih, *grad_bias_hh;      // * (G·H), (R·H)
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

// A cell's elementwise part for one type and instruction set.
struct Cell {
    const char* name;
    int gates, recurrent_gates, states, parameters;
    int saves;                    // values that forward keeps of each unit
    const int* shared;            // for each recurrent gate the gate that has the same gradient, or -1
    const bool *previous, *next;  // which states backward reads, of before and after a step
    void (*forward)(const void* step), (*backward)(const void* step);  // of a `Step` of the type

    // How many recurrent gates have gradients of their own.
    int unshared() const {
        int count = 0;
        for (int gate = 0; gate < recurrent_gates; ++gate) count += shared[gate] < 0;
        return count;
    }
};

// What an instruction set has for one precision. The functions return 0, or -1 where memory is lacking.
struct Precision {
    const char* name;
    const Cell* cells;  // up to one without a name
    int (*forward)(const Cell&, const Problem* directions, int count);
    int (*backward)(const Cell&, const Problem* directions, int count);
    // Packs a direction's weights into memory, if there is any, for the `packed` of many calls; returns how many bytes they take.
    int64_t (*pack)(const Cell&, const Problem&, void* memory);
    int (*gemm)(const Gemm&);
    // The loop over a pass of a cell, of one or two directions; and its weights packed, likewise.
    int (*loop)(const Pass&, const Call* directions, int count);
    int64_t (*pack_for_loop)(const Pass&, const Call&, void* memory);
};

}  // namespace seqcells
