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

// What a precision has: its cells and its product. Without a unit for pairs of bfloat16, it is storage alone.
#define SEQCELLS_STORED(cell) row<cell, float, Product, bfloat16>(),
#ifdef SEQCELLS_PAIRS

using Product = bfloat16;
#define SEQCELLS_ROUNDED(cell) row<cell, float, Product>(),
constexpr Kernels half_precision[] = {SEQCELLS_CELLS(SEQCELLS_STORED)Kernels{}};
constexpr Kernels rounded_single[] = {SEQCELLS_CELLS(SEQCELLS_ROUNDED)Kernels{}};
extern const Precision precisions[] = {{"bfloat16", half_precision, gemm<float, Product, bfloat16>},
                                       {"float32 by bfloat16", rounded_single, gemm<float, Product>},
                                       {}};

#else

using Product = float;
#define SEQCELLS_SINGLE(cell) row<cell, float>(),
#define SEQCELLS_DOUBLE(cell) row<cell, double>(),
constexpr Kernels half_precision[] = {SEQCELLS_CELLS(SEQCELLS_STORED)Kernels{}};
constexpr Kernels single_precision[] = {SEQCELLS_CELLS(SEQCELLS_SINGLE)Kernels{}};
constexpr Kernels double_precision[] = {SEQCELLS_CELLS(SEQCELLS_DOUBLE)Kernels{}};
extern const Precision precisions[] = {{"bfloat16", half_precision, gemm<float, Product, bfloat16>},
                                       {"float32", single_precision, gemm<float>},
                                       {"float64", double_precision, gemm<double>},
                                       {}};

#endif

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
