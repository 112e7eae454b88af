// The C++ forms of the functions in seqcells/cells/activations.py, under the same names.
//
// V is a GCC/Clang vector (`__attribute__((vector_size(n)))`) of float or double, of any length. The compiler turns each line
// into instructions of the target that is in force where this is included. Each function is finite wherever its limit is, and
// accurate near zero. NaN stays NaN: comparisons are written so that NaN takes the computed side.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "vector_group.h"

namespace seqcells {
// Internal linkage: the linker must not merge copies from objects that are built for different targets.
namespace {

template <class V>
using scalar = std::decay_t<decltype(std::declval<V&>()[0])>;

// The integer vector of the same shape, which a comparison of V gives.
template <class V>
using mask = decltype(std::declval<V>() > std::declval<V>());

template <class T>
struct Format;

template <>
struct Format<float> {
    static constexpr int mantissa = 23, bias = 127;
    static constexpr int exp_terms = 7, log_terms = 7;   // terms of the series, for an error of 1/8 of a rounding
    static constexpr float lowest = -104, highest = 89;  // exp is 0 below lowest, infinite above highest
};

template <>
struct Format<double> {
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr int exp_terms = 13, log_terms = 16;
    static constexpr double lowest = -746, highest = 710;
};

// a where the condition holds, else b. Either may be a scalar.
template <class M, class V>
SEQCELLS_INLINE V where(M condition, V a, V b) {
    return choose(condition, a, b);
}
template <class M, class V>
SEQCELLS_INLINE V where(M condition, V a, scalar<V> b) {
    return choose(condition, a, V{} + b);
}
template <class M, class V>
SEQCELLS_INLINE V where(M condition, scalar<V> a, V b) {
    return choose(condition, V{} + a, b);
}

// max(x, least) and min(x, most); a NaN in x stays. Each is one instruction, because the comparison and the choice have the
// same two operands.
template <class V>
SEQCELLS_INLINE V at_least(V x, scalar<V> least) {
    const V low = V{} + least;
    return choose(x < low, low, x);
}
template <class V>
SEQCELLS_INLINE V at_most(V x, scalar<V> most) {
    const V high = V{} + most;
    return choose(x > high, high, x);
}

template <class V>
SEQCELLS_INLINE V stop(V x) {
    return x;
}

template <class V>
SEQCELLS_INLINE V maximum(V a, V b) {
    return where((a > b) | (a != a), a, b);
}

template <class V>
SEQCELLS_INLINE V absolute(V x) {
    return (V)((mask<V>)x & std::numeric_limits<scalar<mask<V>>>::max());
}

template <class V>
SEQCELLS_INLINE V with_sign_of(V x, V size) {
    return (V)(((mask<V>)x & std::numeric_limits<scalar<mask<V>>>::min()) | ((mask<V>)size & std::numeric_limits<scalar<mask<V>>>::max()));
}

template <class V>
SEQCELLS_INLINE V square_root(V x) {
#pragma GCC unroll 16
    for (std::size_t lane = 0; lane < sizeof(V) / sizeof(x[0]); ++lane) {
        if constexpr (sizeof(x[0]) == sizeof(float))
            x[lane] = __builtin_sqrtf(x[lane]);
        else
            x[lane] = __builtin_sqrt(x[lane]);
    }
    return x;
}
template <class V, int N>
SEQCELLS_INLINE VectorGroup<V, N> square_root(const VectorGroup<V, N>& x) {
    return VectorGroup<V, N>::each([&](int n) { return square_root(x.part[n]); });
}

template <class V>
SEQCELLS_INLINE V rsqrt(V x) {
    return scalar<V>(1) / square_root(x);
}

template <class V>
SEQCELLS_INLINE V floor(V x) {
    using T = scalar<V>;
    constexpr T fractions_end = T(std::int64_t(1) << Format<T>::mantissa);
    const V size = absolute(x);
    const V nearest = with_sign_of(x, (size + fractions_end) - fractions_end);
    return where(size < fractions_end, where(nearest > x, nearest - T(1), nearest), x);
}

template <class T, int N>
constexpr std::array<T, N + 1> inverse_factorials() {
    std::array<T, N + 1> values{};
    double product = 1;
    for (int k = 0; k <= N; ++k) {
        values[k] = T(1 / product);
        product *= k + 1;
    }
    return values;
}

// 2^n for an integer n, where the result is a normal number.
template <class V>
SEQCELLS_INLINE V power_of_two(mask<V> n) {
    using F = Format<scalar<V>>;
    return (V)((n + F::bias) << F::mantissa);
}

// exp(x) = 2^n (1 + rest) for lowest <= x <= highest. rest is expm1(x - n ln 2) by a Taylor series, with the terms that
// arguments up to ln 2 / 2 need.
template <class V>
SEQCELLS_INLINE V exp_parts(V x, mask<V>& n) {
    using T = scalar<V>;
    using F = Format<T>;
    constexpr T shift = T(3) * T(std::int64_t(1) << (F::mantissa - 1));  // the last bit of x + shift is worth 1
    const V shifted = x * T(1.4426950408889634) + shift;
    const V whole = shifted - shift;
    n = (mask<V>)shifted - (mask<V>)(V{} + shift);
    const V r = x - whole * T(0.693145751953125) - whole * T(1.42860682030941723212e-6);  // ln 2 in two parts; the first is exact
    constexpr auto factorials = inverse_factorials<T, F::exp_terms>();
    V series = V{} + factorials[F::exp_terms];
#pragma GCC unroll 16
    for (int k = F::exp_terms - 1; k > 0; --k) series = series * r + factorials[k];
    return r * series;
}

template <class V>
SEQCELLS_INLINE V exp(V x) {
    using F = Format<scalar<V>>;
    mask<V> n;
    const V rest = exp_parts(at_least(at_most(x, F::highest), F::lowest), n);
    // Scaled in two steps, since 2^n alone may be too large or too small for a normal number.
    return (rest + scalar<V>(1)) * power_of_two<V>(n >> 1) * power_of_two<V>(n - (n >> 1));
}

// For x <= 40. 2^n - 1 is exact where the result is small, so nothing cancels.
template <class V>
SEQCELLS_INLINE V expm1_of_small(V x) {
    using T = scalar<V>;
    mask<V> n;
    const V rest = exp_parts(at_least(x, T(-40)), n);
    const V scale = power_of_two<V>(n);
    return scale * rest + (scale - T(1));
}
template <class V>
SEQCELLS_INLINE V expm1(V x) {
    using T = scalar<V>;
    return where(x > T(40), exp(x), expm1_of_small(at_most(x, T(40))));
}

template <class V>
SEQCELLS_INLINE V sigmoid(V x) {
    return scalar<V>(1) / (exp(-x) + scalar<V>(1));
}

template <class V>
SEQCELLS_INLINE V tanh(V x) {
    const V e = expm1_of_small(absolute(x) * scalar<V>(-2));
    return with_sign_of(x, e / (e + scalar<V>(2)));
}

// log(1 + exp(x)) for x <= 0. With u = exp(x) it is 2 atanh(q), q = u / (2 + u), by the series in q² <= 1/9.
template <class V>
SEQCELLS_INLINE V log1p_exp(V x) {
    using T = scalar<V>;
    const V u = exp(x);
    const V q = u / (u + T(2)), square = q * q;
    V series = V{};
#pragma GCC unroll 32
    for (int k = Format<T>::log_terms; k >= 0; --k) series = series * square + T(1) / T(2 * k + 1);
    return q * series * T(2);
}

template <class V>
SEQCELLS_INLINE V relu(V x) {
    return where(x < scalar<V>(0), scalar<V>(0), x);
}

template <class V>
SEQCELLS_INLINE V softplus(V x) {
    return relu(x) + log1p_exp(-absolute(x));
}

template <class V>
SEQCELLS_INLINE V log_sigmoid(V x) {
    return -softplus(-x);
}

template <class V>
SEQCELLS_INLINE V softsign(V x) {
    return x / (absolute(x) + scalar<V>(1));
}

template <class V>
SEQCELLS_INLINE V leaky_relu(V x) {
    return where(x < scalar<V>(0), x * scalar<V>(0.01), x);
}

template <class V>
SEQCELLS_INLINE V elu(V x) {
    return where(x < scalar<V>(0), expm1(x), x);
}

template <class V>
SEQCELLS_INLINE V hard_sigmoid(V x) {
    using T = scalar<V>;
    const V y = (x + T(3)) / T(6);
    return where(y < T(0), T(0), where(y > T(1), T(1), y));
}

}  // namespace
}  // namespace seqcells
