// Runs jobs on the OpenMP threads that torch's own operators left running.
//
// After each parallel operator, OpenMP's threads spin for some milliseconds until the next one, and do not sleep meanwhile. If
// the engine used its own threads in that time, each would find its processor taken by an OpenMP thread.

#pragma once

#include "team.h"

namespace seqcells {
namespace team {
namespace openmp {

// Runs the job by this thread and OpenMP's threads, if these spin at this moment and are enough for `size` members. Returns
// whether the job ran.
bool run(Job& job, int size);

}  // namespace openmp
}  // namespace team
}  // namespace seqcells
