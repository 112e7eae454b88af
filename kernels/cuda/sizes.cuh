// How a cluster divides a layer: numbers that the host chooses (division.py), all known when the kernel is compiled.
//
// Each block has UNITS hidden units of ROWS sequences. A product over all units is computed in one of two ways:
//
// * gathered: each block sends its units' part of the operand to all blocks. It multiplies the whole operand by its own rows of
//   the weight.
// * scattered: each block multiplies its own units' part of the operand by all rows of the weight. It sends each block that
//   block's part of the sums.

#pragma once

#include "../cpu/pass_description.h"
#include "ptx.cuh"

namespace seqcells {

constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int smaller(int a, int b) { return a < b ? a : b; }

template <int K>
struct Constant {
    static constexpr int value = K;
};
// Calls f with each number below N, as a compile-time constant.
template <int N, int K = 0, class F>
SEQCELLS_DEVICE void each_constant(F f) {
    if constexpr (K < N) {
        f(Constant<K>{});
        each_constant<N, K + 1>(f);
    }
}

// A product in one block: `sums` rows of sums, and a `depth` in chunks of 16 bytes. A warp has `tiles` tiles of 16 rows, for
// one of `parts` parts of the depth, which is `pairs` pairs of tiles deep. Registers hold `held` of the warp's tiles, and
// shared memory the remaining tiles.
struct ProductForm {
    bool scattered;
    int sums, depth, parts, tiles, pairs, held;
    int pitch;         // floats from row to row of sums; scattered: from row to row of one block's piece
    int partial_at;    // where this block's sums lie
    int received_at;   // where scattered sums from all blocks lie, in two buffers
    int spilled_at;    // where weights without room in registers lie
};

// An operand, which is complete after stage `made_at`. own_at: the chunks of this block's units. gathered_at: the chunks of all
// units, in two buffers.
struct OperandForm {
    bool scattered;
    int made_at, own_at, gathered_at, gathered_bytes;
};

// A column of the ring, which holds each step's values from the caller's arrays. If `before`, the values are of the step
// before; for the first step they come from array `initial`.
struct Column {
    int array, column;
    bool before;
    int initial, at;
};

// The host prints `Form` (source.py). It has
//
// * the types Storage, of numbers that products read, and Index, of positions in arrays;
// * DIRECTIONS, H, UNITS a block, BLOCKS a cluster, ROWS, WARPS, STEPS of input in the ring, and the bytes of a COPY;
// * whether lengths or resets make the layer BOUNDED;
// * for each array: whether it is `given`, whether it is `working` (always float32), and its number of `columns`, of units or
//   numbers;
// * for each weight: `apart`, the numbers from direction to direction;
// * `product`, `operand` and `ring` as above, and `sum_column`: for each sum its column of Arguments::sums, or -1;
// * places in shared memory: RING_AT, with RING_BYTES for a step, and BARRIERS_AT;
// * if rows are reduced, also REDUCED_AT, PARTIAL_AT, NUMBERS_AT and, for each stage, `merged_at` (reductions.cuh).
template <class Form>
struct Sizes {
    using Storage = typename Form::Storage;
    static constexpr int THREADS = 32 * Form::WARPS, ITEMS = (Form::UNITS * Form::ROWS + THREADS - 1) / THREADS;
    static constexpr int ROW_TILES = Form::ROWS / 8, CHUNK = 16 / sizeof(Storage);  // numbers in 16 bytes
    static constexpr int CHUNKS = Form::UNITS / CHUNK, ALL_CHUNKS = Form::BLOCKS * CHUNKS;
    static constexpr int PRODUCTS = int(Form::product.size()), OPERANDS = int(Form::operand.size());
    static constexpr int RECEIVED_BYTES = 4 * Form::BLOCKS * Form::ROWS * Form::UNITS;
    // There is room for two mbarriers for each operand, each product and, if rows are reduced, each stage. Gathered operands,
    // scattered products and stages with reductions use them.
    static constexpr int EXCHANGES = OPERANDS + PRODUCTS + int(Form::merged_at.size());
    static constexpr int barrier_at(int exchange, int parity) { return Form::BARRIERS_AT + 8 * (2 * exchange + parity); }
    // The bytes that a block receives for one row by an exchange, of an operand or of a product's sums.
    static constexpr int bytes_of_row(int exchange, int blocks_of_operand) {
        if (exchange < OPERANDS) return Form::operand[exchange].scattered ? 0 : blocks_of_operand * ALL_CHUNKS * 16;
        if (exchange >= OPERANDS + PRODUCTS) return 0;
        return Form::product[exchange - OPERANDS].scattered ? Form::BLOCKS * Form::UNITS * 4 : 0;
    }
};

}  // namespace seqcells
