// Reductions over the units of a row.

#pragma once

#include "activations.h"
#include "pass.h"

namespace seqcells {
namespace {

// Of so many units, at(unit) being the vector from there on. They are taken in their order, lane by lane, and the lanes in
// float64: the sum does not depend on who asks. `mean_of_all`: of the same units, or null.
template <class T, class F>
T reduce(Reduced how, int64_t units, const T* mean_of_all, F at) {
    constexpr int L = LANES<T>;
    const auto sum = [&](auto f) {
        Vector<T> lanes{};
        double total = 0;
        const int64_t whole = units / L * L;
        for (int64_t unit = 0; unit < whole; unit += L) lanes += f(at(unit));
        for (int lane = 0; lane < L; ++lane) total += lanes[lane];
        const Vector<T> rest = whole < units ? f(at(whole)) : lanes;
        for (int64_t lane = 0; lane < units - whole; ++lane) total += rest[lane];
        return total;
    };
    const auto largest = [&] {
        T most = -std::numeric_limits<T>::infinity();
        for (int64_t unit = 0; unit < units; unit += L) {
            const Vector<T> value = at(unit);
            for (int64_t lane = 0; lane < L && unit + lane < units; ++lane)
                most = value[lane] > most || value[lane] != value[lane] ? value[lane] : most;
        }
        return most;
    };
    const auto as_it_is = [](Vector<T> value) { return value; };
    switch (how) {
        case Reduced::SUM: return T(sum(as_it_is));
        case Reduced::MEAN: return T(sum(as_it_is) / double(units));
        case Reduced::MAX: return largest();
        case Reduced::VARIANCE: {
            const T mean = mean_of_all ? *mean_of_all : T(sum(as_it_is) / double(units));
            return T(sum([mean](Vector<T> value) { return (value - mean) * (value - mean); }) / double(units));
        }
        default: {
            const T most = largest();
            return T(std::log(sum([most](Vector<T> value) { return exp(value - most); }))) + most;
        }
    }
}

}  // namespace
}  // namespace seqcells
