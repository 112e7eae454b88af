// The activations over plain arrays, which a test loads through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "activations.h"

// Applies f to one vector of elements at a time; the last vector is filled up with zeros.
template <class T, class F>
void over(std::int64_t n, const T* in, T* out, F f) {
    typedef T V __attribute__((vector_size(16)));
    for (std::int64_t i = 0; i < n; i += sizeof(V) / sizeof(T)) {
        const std::size_t bytes = std::min<std::size_t>(sizeof(V), (n - i) * sizeof(T));
        V x{};
        std::memcpy(&x, in + i, bytes);
        x = f(x);
        std::memcpy(out + i, &x, bytes);
    }
}

#define OVER(name, T)                                                 \
    extern "C" void name##_##T(std::int64_t n, const T* in, T* out) { \
        over(n, in, out, [](auto x) { return seqcells::name(x); });   \
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
