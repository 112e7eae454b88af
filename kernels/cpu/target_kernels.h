// What one instruction set has for all cells. The including file names the set by SEQCELLS_TARGET and tells its registers.
// Everything below is compiled for that set.

#include "directions.h"
#include "gemm.h"
#include "loop.h"
#include "precision.h"

namespace seqcells {
namespace SEQCELLS_TARGET {

#ifdef SEQCELLS_PAIRS

// The unit for pairs of bfloat16 serves products only. The cells are those of the instruction set that this one extends.
#define SEQCELLS_PRECISION(name, From) \
    {name, gemm<float, bfloat16, From>, run_directions<Loop<float, bfloat16>>, Products<float, bfloat16>::pack}
extern const Precision precisions[] = {SEQCELLS_PRECISION("bfloat16", bfloat16), SEQCELLS_PRECISION("float32 by bfloat16", float), {}};

#else

// Without such a unit, bfloat16 is only a format for storage.
#define SEQCELLS_PRECISION(name, T, From) {name, gemm<T, T, From>, run_directions<Loop<T>>, Products<T, T>::pack}
extern const Precision precisions[] = {SEQCELLS_PRECISION("bfloat16", float, bfloat16),
                                       SEQCELLS_PRECISION("float32", float, float),
                                       SEQCELLS_PRECISION("float64", double, double),
                                       {}};

#endif

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
