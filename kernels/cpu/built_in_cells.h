// The cells that are built into the extension, for one instruction set. The including file selects the set before.

#include "cells.h"
#include "precision.h"

namespace seqcells {
namespace SEQCELLS_TARGET {

#define SEQCELLS_BOTH(Cell, T) {pass_of<Cell::Forward, T>(), pass_of<Cell::Backward, T>()}
#define SEQCELLS_BUILT(key, Cell) {key, SEQCELLS_BOTH(Cell, float), SEQCELLS_BOTH(Cell, double)},
extern const Built cells[] = {SEQCELLS_CELLS(SEQCELLS_BUILT) {}};

}  // namespace SEQCELLS_TARGET
}  // namespace seqcells
