// The tables of kernels for one instruction set. A file that includes this names the set by SEQCELLS_TARGET and tells
// its registers; everything below is compiled for it.

#include "backward.h"
#include "forward.h"
#include "gemm.h"

namespace seqcells {
namespace SEQCELLS_TARGET {

template <class Cell, class T>
constexpr Kernels row() {
    Kernels kernels{Cell::name, Cell::saves, Cell::recurrent_gates, Cell::shared.data(), Cell::states, {},
                    run_directions<Forward<Cell, T>>, run_directions<Backward<Cell, T>>};
    for (int state = 1; state < Cell::states; ++state) kernels.path[state] = Cell::previous[state] || Cell::next[state];
    return kernels;
}

#define SEQCELLS_ROW(cell, T) row<cell, T>(),
#define SEQCELLS_FLOAT(cell) SEQCELLS_ROW(cell, float)
#define SEQCELLS_DOUBLE(cell) SEQCELLS_ROW(cell, double)

extern const Kernels float32[] = {SEQCELLS_CELLS(SEQCELLS_FLOAT)Kernels{}};
extern const Kernels float64[] = {SEQCELLS_CELLS(SEQCELLS_DOUBLE)Kernels{}};

extern int (*const gemm32)(const Gemm&) = gemm<float>;
extern int (*const gemm64)(const Gemm&) = gemm<double>;

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
