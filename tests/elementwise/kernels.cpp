// The printed cells and the activations over plain arrays, for a test to load through ctypes.

#include <algorithm>
#include <cstdint>

#include "cells.h"

using namespace seqcells;

// All of `count` values at element i of arrays (count, n), the others of the vector left at zero.
template <class V, class T>
void load(V* to, const T* from, int count, std::int64_t n, std::int64_t i) {
    for (int k = 0; k < count; ++k)
        for (std::size_t lane = 0; lane < sizeof(V) / sizeof(T); ++lane)
            to[k][lane] = i + std::int64_t(lane) < n ? from[k * n + i + lane] : T(0);
}

template <class V, class T>
void store(T* to, const V* from, int count, std::int64_t n, std::int64_t i) {
    for (int k = 0; k < count; ++k)
        for (std::size_t lane = 0; lane < sizeof(V) / sizeof(T) && i + std::int64_t(lane) < n; ++lane)
            to[k * n + i + lane] = from[k][lane];
}

template <class C, class T>
void run(std::int64_t size, const T* const* in, T* const* out) {
    typedef T V __attribute__((vector_size(16)));
    constexpr int most = 8;
    for (std::int64_t i = 0; i < size; i += sizeof(V) / sizeof(T)) {
        V x[most], r[most], s[most], p[most], d[most], n[most], saved[most];
        V dx[most]{}, dr[most]{}, ds[most]{}, dp[most]{};
        load(x, in[0], C::gates, size, i);
        load(r, in[1], C::recurrent_gates, size, i);
        load(s, in[2], C::states, size, i);
        load(p, in[3], C::parameters, size, i);
        load(d, in[4], C::states, size, i);
        C::forward(x, r, s, p, n, saved);
        store(out[0], n, C::states, size, i);
        // What backward says it does not read may be anything.
        for (int k = 0; k < C::states; ++k) {
            if (!C::previous[k]) s[k] = V{} + std::numeric_limits<T>::quiet_NaN();
            if (!C::next[k]) n[k] = V{} + std::numeric_limits<T>::quiet_NaN();
        }
        C::backward(saved, s, n, p, d, dx, dr, ds, dp);
        store(out[1], dx, C::gates, size, i);
        store(out[2], dr, C::recurrent_gates, size, i);
        store(out[3], ds, C::states, size, i);
        store(out[4], dp, C::parameters, size, i);
    }
}

#define CELL(C)                                                                                                       \
    extern "C" void C##_float(std::int64_t n, const float* const* in, float* const* out) { run<C>(n, in, out); }      \
    extern "C" void C##_double(std::int64_t n, const double* const* in, double* const* out) { run<C>(n, in, out); }
SEQCELLS_CELLS(CELL)

#define OVER(name, T)                                                              \
    extern "C" void name##_##T(std::int64_t n, const T* in, T* out) {              \
        typedef T V __attribute__((vector_size(16)));                              \
        for (std::int64_t i = 0; i < n; i += sizeof(V) / sizeof(T)) {              \
            V x, y;                                                                \
            load(&x, in, 1, n, i);                                                 \
            y = seqcells::name(x);                                                 \
            store(out, &y, 1, n, i);                                               \
        }                                                                          \
    }
#define ACTIVATION(name) OVER(name, float) OVER(name, double)
ACTIVATION(exp)
ACTIVATION(expm1)
ACTIVATION(rsqrt)
ACTIVATION(floor)
ACTIVATION(sigmoid)
ACTIVATION(tanh)
ACTIVATION(softsign)
ACTIVATION(log_sigmoid)
ACTIVATION(softplus)
ACTIVATION(relu)
ACTIVATION(leaky_relu)
ACTIVATION(elu)
ACTIVATION(hard_sigmoid)
