// Reductions over the units of a row.

#pragma once

#include "activations.h"
#include "pass_description.h"

namespace seqcells {
namespace {

// Reduces `units` units of a row; at(unit) is the vector that begins at that unit. Each lane sums its units in order, and the
// lanes are added in float64: the sum does not depend on which thread computes it. `mean_of_all`: the mean of the same units,
// or null.
template <class Compute, class F>
Compute reduce(Reduced how, int64_t units, const Compute* mean_of_all, F at) {
    constexpr int L = LANES<Compute>;
    const auto sum = [&](auto f) {
        Vector<Compute> lanes{};
        double total = 0;
        const int64_t whole = units / L * L;
        for (int64_t unit = 0; unit < whole; unit += L) lanes += f(at(unit));
        for (int lane = 0; lane < L; ++lane) total += lanes[lane];
        const Vector<Compute> rest = whole < units ? f(at(whole)) : lanes;
        for (int64_t lane = 0; lane < units - whole; ++lane) total += rest[lane];
        return total;
    };
    const auto largest = [&] {
        Compute most = -std::numeric_limits<Compute>::infinity();
        for (int64_t unit = 0; unit < units; unit += L) {
            const Vector<Compute> value = at(unit);
            for (int64_t lane = 0; lane < L && unit + lane < units; ++lane)
                most = value[lane] > most || value[lane] != value[lane] ? value[lane] : most;
        }
        return most;
    };
    const auto as_it_is = [](Vector<Compute> value) { return value; };
    switch (how) {
        case Reduced::SUM: return Compute(sum(as_it_is));
        case Reduced::MEAN: return Compute(sum(as_it_is) / double(units));
        case Reduced::MAX: return largest();
        case Reduced::VARIANCE: {
            const Compute mean = mean_of_all ? *mean_of_all : Compute(sum(as_it_is) / double(units));
            return Compute(sum([mean](Vector<Compute> value) { return (value - mean) * (value - mean); }) / double(units));
        }
        default: {
            const Compute most = largest();
            return Compute(std::log(sum([most](Vector<Compute> value) { return exp(value - most); }))) + most;
        }
    }
}

}  // namespace
}  // namespace seqcells
