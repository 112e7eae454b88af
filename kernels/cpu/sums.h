// Sums over steps and rows: short ones in the type that is computed in, and of those in float64.

#pragma once

#include "vector.h"

namespace seqcells {
namespace {

constexpr int64_t SUMMED = 8;  // terms of a sum in the type that is computed in; sums of those are float64

template <class Compute>
SEQCELLS_INLINE void add_in_double(double* totals, Vector<Compute> value, int64_t count) {
    typedef double Doubles __attribute__((vector_size(LANES<Compute> * sizeof(double))));
    if (count < LANES<Compute>) {
        for (int lane = 0; lane < count; ++lane) totals[lane] += value[lane];
        return;
    }
    Doubles all;
    std::memcpy(&all, totals, sizeof all);
    all += __builtin_convertvector(value, Doubles);
    std::memcpy(totals, &all, sizeof all);
}

// A term of a sum over steps and rows: in `sums`, and in full in `totals`.
template <class Compute, class S>
SEQCELLS_INLINE void add_up(const S& s, int64_t place, Vector<Compute> value, bool full, int64_t count) {
    value += load(s.sums + place, count);
    if (full) {
        add_in_double<Compute>(s.totals + place, value, count);
        value = Vector<Compute>{};
    }
    store(s.sums + place, value, count);
}

}  // namespace
}  // namespace seqcells
