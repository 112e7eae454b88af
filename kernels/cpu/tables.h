// The tables of kernels for one instruction set. A file that includes this names the set by SEQCELLS_TARGET and tells
// its registers; everything below is compiled for it.

#include "backward.h"
#include "forward.h"
#include "gemm.h"
#include "loop.h"

namespace seqcells {
namespace SEQCELLS_TARGET {

#ifdef SEQCELLS_PAIRS

// Only products have a unit for pairs of bfloat16: cells are those of the instruction set that this one adds to.
using namespace SEQCELLS_BASE;
#define SEQCELLS_PRECISION(name, From) \
    {name, single_cells, run_directions<Forward<float, bfloat16>>, run_directions<Backward<float, bfloat16>>, \
     Forward<float, bfloat16>::pack, gemm<float, bfloat16, From>, \
     run_directions<Loop<float, bfloat16>>, Products<float, bfloat16>::pack}
extern const Precision precisions[] = {SEQCELLS_PRECISION("bfloat16", bfloat16), SEQCELLS_PRECISION("float32 by bfloat16", float), {}};

#else

#define SEQCELLS_SINGLE(cell) cell_of<cell, float>(),
#define SEQCELLS_DOUBLE(cell) cell_of<cell, double>(),
extern const Cell single_cells[] = {SEQCELLS_CELLS(SEQCELLS_SINGLE)Cell{}};
const Cell double_cells[] = {SEQCELLS_CELLS(SEQCELLS_DOUBLE)Cell{}};
// Without a unit for it, bfloat16 is storage alone.
#define SEQCELLS_PRECISION(name, cells, T, From) \
    {name, cells, run_directions<Forward<T>>, run_directions<Backward<T>>, Forward<T>::pack, gemm<T, T, From>, \
     run_directions<Loop<T>>, Products<T, T>::pack}
extern const Precision precisions[] = {SEQCELLS_PRECISION("bfloat16", single_cells, float, bfloat16),
                                       SEQCELLS_PRECISION("float32", single_cells, float, float),
                                       SEQCELLS_PRECISION("float64", double_cells, double, double),
                                       {}};

#endif

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
