// The part of the standard library that the kernel uses, since NVRTC comes without one, and types that are the same for all
// machines.

#pragma once

#if defined(__CUDACC_RTC__)
using int8_t = signed char;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;

namespace std {

template <class T, unsigned long long N>
struct array {
    T items[N ? N : 1];
    __device__ constexpr const T& operator[](unsigned long long k) const { return items[k]; }
    __device__ constexpr unsigned long long size() const { return N; }
};

template <class... T>
struct tuple {};
template <class Head, class... Tail>
struct tuple<Head, Tail...> {
    Head head;
    tuple<Tail...> tail;
};
__device__ constexpr tuple<> make_tuple() { return {}; }
template <class Head, class... Tail>
__device__ constexpr tuple<Head, Tail...> make_tuple(Head head, Tail... tail) {
    return {head, make_tuple(tail...)};
}
template <int K, class Head, class... Tail>
__device__ constexpr auto get(const tuple<Head, Tail...>& values) {
    if constexpr (K == 0) return values.head;
    else return get<K - 1>(values.tail);
}

template <bool IS, class A, class B>
struct conditional {
    using type = A;
};
template <class A, class B>
struct conditional<false, A, B> {
    using type = B;
};
template <bool IS, class A, class B>
using conditional_t = typename conditional<IS, A, B>::type;

}  // namespace std
#else
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#endif

namespace seqcells {

struct alignas(16) Chunk {
    uint32_t word[4];
};
struct Bfloat16 {
    uint16_t bits;
};
struct Half {
    uint16_t bits;
};

}  // namespace seqcells
