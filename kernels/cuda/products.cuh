// Products of the weights by an operand in shared memory. Weights lie in registers; weights without room there spill to shared
// memory.

#pragma once

#include "sizes.cuh"

namespace seqcells {

// One product's weights in this thread: 4 registers, as `multiply_add` takes them, for each tile of the depth and each tile of
// 16 rows.
template <class Program, class Form, int P>
struct Weights {
    using Z = Sizes<Form>;
    using Storage = typename Z::Storage;
    static constexpr Multiplied of = Program::products[P];
    static constexpr ProductForm form = Form::product[P];
    static constexpr int TILES = form.tiles, HELD = form.held, DEPTH = 2 * form.pairs, ALL = TILES * DEPTH, NUMBERS = 4 / int(sizeof(Storage));
    uint32_t held[HELD ? HELD : 1][4];

    // The weight by which sum `row` multiplies the operand's number `k`; zero if there is none.
    SEQCELLS_DEVICE Storage at(const Storage* weight, int row, int k, int rank) {
        constexpr int UNITS = Form::UNITS, BY = form.scattered ? UNITS : UNITS * Form::BLOCKS, SIZE = Form::H / of.heads;
        const int column = row / UNITS, block = k / BY;
        // The units of the sum and of the operand, and the row block of the weight.
        const int sum = form.scattered ? row : rank * UNITS + row % UNITS, in = form.scattered ? rank * UNITS + k % UNITS : k % BY;
        const bool there = row < form.sums && k < form.depth * Z::CHUNK && sum < Form::H && in < Form::H && sum / SIZE == in / SIZE;
        const int of_row = of.transposed ? in : sum, of_column = of.transposed ? sum : in;
        const int row_block = of.first + (of.transposed ? block : column);
        Storage value{};
        if (there) round_for_product(value, to_float(weight[(int64_t(row_block) * Form::H + of_row) * SIZE + of_column % SIZE]));
        return value;
    }

    // This thread's fragment of one of its warp's tiles.
    SEQCELLS_DEVICE Chunk fragment(const Storage* weight, int index, int rank) {
        const int lane = thread_index() % 32, tile = index % TILES, depth = index / TILES;
        Chunk found;
#pragma unroll
        for (int half = 0; half < 4; ++half) {
            const int row = (first_tile() + tile) * 16 + half % 2 * 8 + lane / 4;
            const int k = (2 * (part() * DEPTH + depth) + half / 2) * Z::CHUNK + lane % 4 * NUMBERS;
            Storage numbers[NUMBERS];
#pragma unroll
            for (int n = 0; n < NUMBERS; ++n) numbers[n] = at(weight, row, k + n, rank);
            found.word[half] = bits_of(numbers);
        }
        return found;
    }

    SEQCELLS_DEVICE int first_tile() { return thread_index() / 32 / form.parts * TILES; }
    SEQCELLS_DEVICE int part() { return thread_index() / 32 % form.parts; }
    SEQCELLS_DEVICE Chunk* spill(char* shared, int index) {
        return reinterpret_cast<Chunk*>(shared + form.spilled_at) + (index - HELD) * Z::THREADS + thread_index();
    }

    // Loads some tiles at a time through shared memory that nothing else uses yet. Unrolled, so many reads into registers would
    // spill.
    SEQCELLS_INLINE void load(const Storage* weight, char* shared, int rank) {
        constexpr int ROUND = Form::BARRIERS_AT / (16 * Z::THREADS);
        Chunk* const own = reinterpret_cast<Chunk*>(shared) + thread_index();
        each_constant<(HELD + ROUND - 1) / ROUND>([&](auto round) {
            constexpr int FIRST = decltype(round)::value * ROUND, COUNT = smaller(ROUND, HELD - FIRST);
            put<COUNT>(own, weight, FIRST, rank);
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                const Chunk c = own[i * Z::THREADS];
#pragma unroll
                for (int k = 0; k < 4; ++k) held[FIRST + i][k] = c.word[k];
            }
        });
        put<ALL - HELD>(spill(shared, HELD), weight, HELD, rank);
    }

    // Writes COUNT fragments, from `first` on, to shared memory. The reads of several fragments are in flight together.
    template <int COUNT>
    SEQCELLS_INLINE void put(Chunk* to, const Storage* weight, int first, int rank) {
        constexpr int GROUP = 4;
#pragma unroll 1
        for (int i = 0; i + GROUP <= COUNT; i += GROUP) {
            Chunk some[GROUP];
#pragma unroll
            for (int g = 0; g < GROUP; ++g) some[g] = fragment(weight, first + i + g, rank);
#pragma unroll
            for (int g = 0; g < GROUP; ++g) to[(i + g) * Z::THREADS] = some[g];
        }
#pragma unroll 1
        for (int i = COUNT / GROUP * GROUP; i < COUNT; ++i) to[i * Z::THREADS] = fragment(weight, first + i, rank);
    }

    // Writes the sums of this warp's rows, over its part of the depth, to shared memory.
    SEQCELLS_INLINE void multiply(uint32_t operand, char* shared) const {
        constexpr int NT = Z::ROW_TILES, PAIRS = form.pairs, ALONE = TILES * NT;
        constexpr int CHAINS = ALONE >= 4 ? 1 : 4 / ALONE;                // independent sums hide a product's latency
        constexpr int GROUP = smaller(PAIRS, larger(1, 8 / NT));          // reads of the operand in flight together
        const int lane = thread_index() % 32;
        float sums[TILES][NT][CHAINS][4] = {};
#pragma unroll
        for (int first = 0; first < PAIRS; first += GROUP) {
            uint32_t b[GROUP][NT][4];
#pragma unroll
            for (int g = 0; g < GROUP; ++g)
                if (first + g < PAIRS) {
#pragma unroll
                    for (int n = 0; n < NT; ++n)
                        load_matrices(b[g][n], operand + ((4 * (part() * PAIRS + first + g) + lane / 8) * Form::ROWS + n * 8 + lane % 8) * 16);
                }
#pragma unroll
            for (int g = 0; g < GROUP; ++g)
                if (first + g < PAIRS) {
#pragma unroll
                    for (int h = 0; h < 2; ++h)
#pragma unroll
                        for (int m = 0; m < TILES; ++m) {
                            const int t = 2 * (first + g) + h, i = t * TILES + m;
                            if (i < HELD) {
#pragma unroll
                                for (int n = 0; n < NT; ++n)
                                    multiply_add(Storage{}, sums[m][n][t % CHAINS], held[i < HELD ? i : 0], b[g][n][2 * h], b[g][n][2 * h + 1]);
                            } else {
                                const Chunk c = *spill(shared, i);
#pragma unroll
                                for (int n = 0; n < NT; ++n)
                                    multiply_add(Storage{}, sums[m][n][t % CHAINS], c.word, b[g][n][2 * h], b[g][n][2 * h + 1]);
                            }
                        }
                }
        }
        float* const to = reinterpret_cast<float*>(shared + form.partial_at);
        constexpr bool FULL = Form::WARPS % form.parts == 0 && (Form::WARPS / form.parts * TILES - 1) * 16 < form.sums;
#pragma unroll
        for (int m = 0; m < TILES; ++m)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    float total = sums[m][n][0][e];
#pragma unroll
                    for (int j = 1; j < CHAINS; ++j) total += sums[m][n][j][e];
                    const int sum = (first_tile() + m) * 16 + e / 2 * 8 + lane / 4, row = n * 8 + lane % 4 * 2 + e % 2;
                    if (FULL || (first_tile() + m) * 16 < form.sums) to[place(sum, row, part())] = total;
                }
    }

    // Where a sum lies: the sums of a row side by side or, if scattered, in one piece for each block.
    SEQCELLS_DEVICE int place(int sum, int row, int part) {
        if constexpr (form.scattered)
            return (sum / Form::UNITS * Form::ROWS + row) * form.pitch + sum % Form::UNITS;
        else
            return (part * Form::ROWS + row) * form.pitch + sum;
    }

  private:
    SEQCELLS_DEVICE uint32_t bits_of(const float (&one)[1]) { return bits_of_float(one[0]); }
    template <class S>
    SEQCELLS_DEVICE uint32_t bits_of(const S (&two)[2]) {
        return two[0].bits | uint32_t(two[1].bits) << 16;
    }
};

// The weights of all products of a pass.
template <class Program, class Form, int P = 0, bool THERE = (P < int(Program::products.size()))>
struct AllWeights {
    Weights<Program, Form, P> own;
    AllWeights<Program, Form, P + 1> others;
    template <int K>
    SEQCELLS_INLINE auto& get() {
        if constexpr (K == P)
            return own;
        else
            return others.template get<K>();
    }
};
template <class Program, class Form, int P>
struct AllWeights<Program, Form, P, false> {};

}  // namespace seqcells
