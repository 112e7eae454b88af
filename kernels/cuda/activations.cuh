// The functions of seqcells/cells/activations.py for a float, under the same names. Each is finite wherever its limit is, and
// accurate near zero. NaN stays NaN.

#pragma once

#include "ptx.cuh"

namespace seqcells {

template <class V>
using scalar = V;

// The conditions of boundaries: whether a sequence has not ended, and whether it is reset.
struct Whether {
    bool is;
};
struct Always {
    static constexpr bool is = true;
};
struct Never {
    static constexpr bool is = false;
};
template <class W>
SEQCELLS_DEVICE float where(W w, float a, float b) {
    return w.is ? a : b;
}
SEQCELLS_DEVICE float where(bool condition, float a, float b) { return condition ? a : b; }

SEQCELLS_DEVICE float stop(float x) { return x; }
SEQCELLS_DEVICE float maximum(float a, float b) { return a > b || a != a ? a : b; }
SEQCELLS_DEVICE float exp(float x) { return exp_fast(x); }
SEQCELLS_DEVICE float rsqrt(float x) { return 1.0f / square_root(x); }
SEQCELLS_DEVICE float floor(float x) { return round_down(x); }
// Uses the Taylor series where exp(x) - 1 would lose digits.
SEQCELLS_DEVICE float expm1(float x) {
    float series = 1.0f;
#pragma unroll
    for (int k = 11; k > 1; --k) series = 1.0f + x * series * (1.0f / k);
    return x > -0.5f && x < 1.1f ? x * series : exp_fast(x) - 1.0f;
}
SEQCELLS_DEVICE float sigmoid(float x) { return divide_fast(1.0f, 1.0f + exp_fast(-x)); }
// Uses Cephes' polynomial below 0.625.
SEQCELLS_DEVICE float tanh(float x) {
    const float square = x * x, e = exp_fast(-2.0f * absolute(x));
    const float series = ((-5.70498872745e-3f * square + 2.06390887954e-2f) * square - 5.37397155531e-2f) * square + 1.33314422036e-1f;
    const float small = x + x * square * (series * square - 3.33332819422e-1f);
    const float large = with_sign_of(x, divide_fast(1.0f - e, 1.0f + e));
    return absolute(x) < 0.625f ? small : large;
}
// log(1 + exp(x)) for x <= 0, as 2 atanh(u / (2 + u)) with u = exp(x).
SEQCELLS_DEVICE float log1p_exp(float x) {
    const float u = exp_fast(x), ratio = divide_fast(u, 2.0f + u), square = ratio * ratio;
    float series = 0.0f;
#pragma unroll
    for (int k = 7; k >= 0; --k) series = series * square + 1.0f / (2 * k + 1);
    return 2.0f * ratio * series;
}
SEQCELLS_DEVICE float relu(float x) { return x < 0.0f ? 0.0f : x; }
SEQCELLS_DEVICE float softplus(float x) { return relu(x) + log1p_exp(-absolute(x)); }
SEQCELLS_DEVICE float log_sigmoid(float x) { return -softplus(-x); }
SEQCELLS_DEVICE float softsign(float x) { return x / (1.0f + absolute(x)); }  // divide_fast gives 0 for divisors beyond 2^126
SEQCELLS_DEVICE float leaky_relu(float x) { return x < 0.0f ? 0.01f * x : x; }
SEQCELLS_DEVICE float elu(float x) { return x < 0.0f ? expm1(x) : x; }
SEQCELLS_DEVICE float hard_sigmoid(float x) {
    const float y = (x + 3.0f) * (1.0f / 6.0f);
    return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
}

}  // namespace seqcells
