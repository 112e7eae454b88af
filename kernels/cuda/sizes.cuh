// How a cluster divides a layer: numbers that the host has chosen (division.py), all known when the kernel is compiled.
//
// Each block has UNITS hidden units of ROWS sequences. A product that all units enter is made in one of two ways:
//
// * gathered: each block sends its units' operand to all, and multiplies the whole of it by its own rows of the weight;
// * scattered: each block multiplies its own units' operand by all rows, and sends each block that block's part of the sums.

#pragma once

#include "../cpu/pass.h"
#include "machine.cuh"

namespace seqcells {

constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int smaller(int a, int b) { return a < b ? a : b; }

template <int K>
struct Constant {
    static constexpr int value = K;
};
// f of each number below N, as a constant.
template <int N, int K = 0, class F>
SEQCELLS_DEVICE void each_constant(F f) {
    if constexpr (K < N) {
        f(Constant<K>{});
        each_constant<N, K + 1>(f);
    }
}

// A product: rows of its sums in a block, and chunks of 16 bytes of its depth. A warp has `tiles` of 16 rows for one of `parts` of
// the depth, which is `pairs` of tiles deep. Registers have `held` of all these, shared memory the others.
struct ProductForm {
    bool scattered;
    int sums, depth, parts, tiles, pairs, held;
    int pitch;         // of a row of sums, in floats; of scattered ones of a row of a block's
    int partial_at;    // sums of this block's products
    int received_at;   // scattered sums that came from all blocks, twice
    int spilled_at;    // weights without room in registers
};

// An operand, which is whole when stage `made_at` is done: the chunks of this block's units, and those of all, twice.
struct OperandForm {
    bool scattered;
    int made_at, own_at, gathered_at, gathered_bytes;
};

// A column of what comes from the caller's arrays for each step; `before` a step earlier, for the first one from `initial`.
struct Column {
    int array, column;
    bool before;
    int initial, at;
};

// `Form` is printed. It has
//
// * the types Storage, of what products read, and Index, of elements of arrays;
// * DIRECTIONS, H, UNITS a block, BLOCKS a cluster, ROWS, WARPS, STEPS of input in the ring, bytes of a COPY;
// * whether lengths or resets make the layer BOUNDED;
// * of each array whether it is `given`, whether it is `working`, of float32, its `columns` of units or numbers, and of a weight how
//   many numbers lie from direction to direction, `apart`;
// * `product`, `operand` and `ring` as above, and the column of `sums` of each sum, or -1;
// * places in shared memory: RING_AT, RING_BYTES of a step, BARRIERS_AT; where rows are reduced REDUCED_AT, PARTIAL_AT, NUMBERS_AT and,
//   for each stage, `merged_at` (reductions.cuh).
template <class Form>
struct Sizes {
    using Storage = typename Form::Storage;
    static constexpr int THREADS = 32 * Form::WARPS, ITEMS = (Form::UNITS * Form::ROWS + THREADS - 1) / THREADS;
    static constexpr int ROW_TILES = Form::ROWS / 8, CHUNK = 16 / sizeof(Storage);  // numbers of 16 bytes
    static constexpr int CHUNKS = Form::UNITS / CHUNK, ALL_CHUNKS = Form::BLOCKS * CHUNKS;
    static constexpr int PRODUCTS = int(Form::product.size()), OPERANDS = int(Form::operand.size());
    static constexpr int RECEIVED_BYTES = 4 * Form::BLOCKS * Form::ROWS * Form::UNITS;
    // Two mbarriers for each operand that is gathered, for each product that is scattered, and for each stage that reduces rows.
    static constexpr int EXCHANGES = OPERANDS + PRODUCTS + int(Form::merged_at.size());
    static constexpr int barrier_at(int exchange, int parity) { return Form::BARRIERS_AT + 8 * (2 * exchange + parity); }
    // What a block receives of a row by an exchange: of an operand, or of a product's sums.
    static constexpr int bytes_of_row(int exchange, int blocks_of_operand) {
        if (exchange < OPERANDS) return Form::operand[exchange].scattered ? 0 : blocks_of_operand * ALL_CHUNKS * 16;
        if (exchange >= OPERANDS + PRODUCTS) return 0;
        return Form::product[exchange - OPERANDS].scattered ? Form::BLOCKS * Form::UNITS * 4 : 0;
    }
};

}  // namespace seqcells
