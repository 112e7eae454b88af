// The tables of kernels for one instruction set. A file that includes this names the set by SEQCELLS_TARGET and tells
// its registers; everything below is compiled for it.

#include "backward.h"
#include "forward.h"
#include "gemm.h"

namespace seqcells {
namespace SEQCELLS_TARGET {

template <class Cell, class T, class O = T, class Stored = T>
constexpr Kernels row() {
    Kernels kernels{Cell::name, Cell::saves, Cell::recurrent_gates, Cell::shared.data(), Cell::states, {},
                    run_directions<Forward<Cell, T, O, Stored>>, run_directions<Backward<Cell, T, O, Stored>>};
    for (int state = 1; state < Cell::states; ++state) kernels.path[state] = Cell::previous[state] || Cell::next[state];
    return kernels;
}

// What a precision has: its cells and its product.
#ifdef SEQCELLS_PAIRS

#define SEQCELLS_STORED(cell) row<cell, float, bfloat16, bfloat16>(),
#define SEQCELLS_ROUNDED(cell) row<cell, float, bfloat16>(),
constexpr Kernels in_bfloat16[] = {SEQCELLS_CELLS(SEQCELLS_STORED)Kernels{}};
constexpr Kernels in_float32[] = {SEQCELLS_CELLS(SEQCELLS_ROUNDED)Kernels{}};
extern const Precision precisions[] = {{"bfloat16", in_bfloat16, gemm<float, bfloat16, bfloat16>},
                                       {"float32 by bfloat16", in_float32, gemm<float, bfloat16>},
                                       {}};

#else

#define SEQCELLS_SINGLE(cell) row<cell, float>(),
#define SEQCELLS_DOUBLE(cell) row<cell, double>(),
constexpr Kernels single_precision[] = {SEQCELLS_CELLS(SEQCELLS_SINGLE)Kernels{}};
constexpr Kernels double_precision[] = {SEQCELLS_CELLS(SEQCELLS_DOUBLE)Kernels{}};
extern const Precision precisions[] = {
    {"float32", single_precision, gemm<float>}, {"float64", double_precision, gemm<double>}, {}};

#endif

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
