// The matrix unit of Intel's AMX: eight tiles of up to 16 rows of 64 bytes.
//
// A tile of weights is 16 words deep and one vector of columns wide; it has the memory layout of the blocks of panel_product.h. Tests
// emulate the unit in plain C++. SEQCELLS_TILES_EMULATED is how many of the 16 columns the emulation computes: all, or fewer,
// to prove that tests notice the missing ones.

#pragma once

#include <atomic>

#include "operand.h"

namespace seqcells {
namespace {

#if defined(SEQCELLS_TILES) || defined(SEQCELLS_TILES_EMULATED)
#define SEQCELLS_HAS_TILES
#endif

// The rows of each tile and the bytes of its rows, in the format of the instruction that sets them.
struct TileSizes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int64_t rows_of_tile) { bytes[tile] = 64, rows[tile] = uint8_t(rows_of_tile); }
};
static_assert(sizeof(TileSizes) == 64, "as the processor has it");

// These are macros, because tile numbers are part of an instruction.
#if defined(SEQCELLS_TILES)

// The empty asm makes the compiler store all of `sizes`. The intrinsic only tells it that the first bytes are read.
#define SEQCELLS_TILES_BEGIN(sizes) \
    asm volatile("" ::"m"(sizes));  \
    _tile_loadconfig(&(sizes))
#define SEQCELLS_TILES_END() _tile_release()
#define SEQCELLS_TILE_ZERO(tile) _tile_zero(tile)
#define SEQCELLS_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define SEQCELLS_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define SEQCELLS_TILE_MULTIPLY(sum, a, b) _tile_dpbf16ps(sum, a, b)

#elif defined(SEQCELLS_TILES_EMULATED)

struct TileUnit {
    TileSizes sizes;
    char data[8][16][64];

    void zero(int tile) { std::memset(data[tile], 0, sizeof data[tile]); }
    void load(int tile, const void* from, int64_t stride) {
        zero(tile);
        for (int row = 0; row < sizes.rows[tile]; ++row)
            std::memcpy(data[tile][row], static_cast<const char*>(from) + row * stride, sizes.bytes[tile]);
    }
    void store(int tile, void* to, int64_t stride) const {
        for (int row = 0; row < sizes.rows[tile]; ++row)
            std::memcpy(static_cast<char*>(to) + row * stride, data[tile][row], sizes.bytes[tile]);
    }
    void multiply(int sum, int a, int b) {
        for (int m = 0; m < sizes.rows[sum]; ++m)
            for (int n = 0; n < SEQCELLS_TILES_EMULATED; ++n) {
                float total;
                std::memcpy(&total, data[sum][m] + 4 * n, 4);
                for (int k = 0; k < 2 * sizes.rows[b]; ++k) {
                    bfloat16 x, y;
                    std::memcpy(&x, data[a][m] + 2 * k, 2);
                    std::memcpy(&y, data[b][k / 2] + 4 * n + 2 * (k % 2), 2);
                    total += float(x) * float(y);
                }
                std::memcpy(data[sum][m] + 4 * n, &total, 4);
            }
    }
};
thread_local TileUnit unit;

#define SEQCELLS_TILES_BEGIN(sizes_of) (unit.sizes = (sizes_of))
#define SEQCELLS_TILES_END() (unit.sizes = TileSizes{})
#define SEQCELLS_TILE_ZERO(tile) unit.zero(tile)
#define SEQCELLS_TILE_LOAD(tile, from, stride) unit.load(tile, from, stride)
#define SEQCELLS_TILE_STORE(tile, to, stride) unit.store(tile, to, stride)
#define SEQCELLS_TILE_MULTIPLY(sum, a, b) unit.multiply(sum, a, b)

#endif

constexpr int64_t TILE_ROWS = 16, TILE_WORDS = 16;

#if defined(SEQCELLS_HAS_TILES)
// The steps for vector n of the columns: its sums are in tile n, its weights pass through tile `b`.
#define SEQCELLS_COLUMN_BEGIN(n) \
    if constexpr (N > n) { \
        if (add) \
            SEQCELLS_TILE_LOAD(n, out + n * L, out_stride * 4); \
        else \
            SEQCELLS_TILE_ZERO(n); \
    }
#define SEQCELLS_COLUMN_STEP(n, b) \
    if constexpr (N > n) { \
        SEQCELLS_TILE_LOAD(b, w + (k * N + n) * L, N * 64); \
        SEQCELLS_TILE_MULTIPLY(n, 4, b); \
    }
#define SEQCELLS_COLUMN_END(n) \
    if constexpr (N > n) SEQCELLS_TILE_STORE(n, out + n * L, out_stride * 4);

// out[rows][N vectors] (+)= a[rows][depth] · w[depth][N vectors]. The depth counts words and must be whole tiles; strides count
// numbers.
template <int N>
void by_tiles(const uint32_t* w, int64_t depth, const bfloat16* a, int64_t stride, int64_t rows, float* out,
              int64_t out_stride, bool add) {
    static_assert(N <= 4 && LANES<float> == 16, "tiles for so many sums, a vector of columns each");
    constexpr int L = 16;
    int64_t height = 0;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler does not know which memory these instructions read
    for (int64_t row = 0; row < rows; row += TILE_ROWS, a += TILE_ROWS * stride, out += TILE_ROWS * out_stride) {
        const int64_t here = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;
        if (here != height) {
            TileSizes sizes;
            for (int tile = 0; tile < 8; ++tile) sizes.set(tile, tile < 5 ? here : TILE_WORDS);
            SEQCELLS_TILES_BEGIN(sizes);
            height = here;
        }
        SEQCELLS_COLUMN_BEGIN(0) SEQCELLS_COLUMN_BEGIN(1) SEQCELLS_COLUMN_BEGIN(2) SEQCELLS_COLUMN_BEGIN(3)
        for (int64_t k = 0; k < depth; k += TILE_WORDS) {
            SEQCELLS_TILE_LOAD(4, a + k * 2, stride * 2);
            SEQCELLS_COLUMN_STEP(0, 5) SEQCELLS_COLUMN_STEP(1, 6) SEQCELLS_COLUMN_STEP(2, 7) SEQCELLS_COLUMN_STEP(3, 5)
        }
        SEQCELLS_COLUMN_END(0) SEQCELLS_COLUMN_END(1) SEQCELLS_COLUMN_END(2) SEQCELLS_COLUMN_END(3)
    }
    SEQCELLS_TILES_END();
    std::atomic_signal_fence(std::memory_order_seq_cst);
}
#endif

}  // namespace
}  // namespace seqcells
