// Sums over steps and rows: short sums in the working type, and float64 totals of the short sums.

#pragma once

#include "vector.h"

namespace seqcells {
namespace {

constexpr int64_t SUMMED = 8;  // terms of a short sum, in the working type; totals of short sums are float64

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

// Adds a term to a short sum in `sums`. If `full`, the short sum then moves to its float64 total.
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
