// Threads that torch's own operators left running.
//
// After each operator that several threads shared, OpenMP's threads look for the next one for some milliseconds, and
// never sleep meanwhile. A call of ours in that time would find each processor taken by one of them.

#pragma once

#include "team.h"

namespace seqcells {
namespace team {
namespace openmp {

// The job by this thread and OpenMP's, if these are looking for work at this moment and are as many as it asks for.
// Returns whether it ran.
bool run(Job& job, int size);

}  // namespace openmp
}  // namespace team
}  // namespace seqcells
