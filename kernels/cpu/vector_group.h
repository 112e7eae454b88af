// Several vectors as one value. An activation is a chain of instructions, each of which waits for the one before. Side by side,
// one vector's instructions fill the latency of another's.

#pragma once

#include <type_traits>
#include <utility>

// Always inlined, so that no call passes a vector, on any target.
#define SEQCELLS_INLINE inline __attribute__((always_inline))

namespace seqcells {
namespace {

template <class V, int N>
struct VectorGroup {
    using One = std::decay_t<decltype(std::declval<V&>()[0])>;
    V part[N];

    // Makes part n by f(n).
    template <class F>
    SEQCELLS_INLINE static VectorGroup each(F f) {
        VectorGroup all;
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) all.part[n] = f(n);
        return all;
    }
    // A lane of the first part. `scalar` asks for the type of a lane by this.
    One operator[](int lane) const { return part[0][lane]; }
    // The same bits, as vectors of another type.
    template <class U>
    SEQCELLS_INLINE explicit operator VectorGroup<U, N>() const {
        return VectorGroup<U, N>::each([&](int n) { return (U)part[n]; });
    }
    SEQCELLS_INLINE VectorGroup operator-() const {
        return each([&](int n) { return -part[n]; });
    }
    template <class B>
    SEQCELLS_INLINE VectorGroup& operator+=(B b) {
        return *this = *this + b;
    }
};

#define SEQCELLS_OPERATOR(op)                                                                          \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(const VectorGroup<V, N>& a, const VectorGroup<V, N>& b) {                 \
        return VectorGroup<decltype(a.part[0] op b.part[0]), N>::each([&](int n) { return a.part[n] op b.part[n]; }); \
    }                                                                                                  \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(const VectorGroup<V, N>& a, typename VectorGroup<V, N>::One b) {          \
        return VectorGroup<decltype(a.part[0] op b), N>::each([&](int n) { return a.part[n] op b; });      \
    }                                                                                                  \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(typename VectorGroup<V, N>::One a, const VectorGroup<V, N>& b) {          \
        return VectorGroup<decltype(a op b.part[0]), N>::each([&](int n) { return a op b.part[n]; });      \
    }
SEQCELLS_OPERATOR(+)
SEQCELLS_OPERATOR(-)
SEQCELLS_OPERATOR(*)
SEQCELLS_OPERATOR(/)
SEQCELLS_OPERATOR(<)
SEQCELLS_OPERATOR(>)
SEQCELLS_OPERATOR(<=)
SEQCELLS_OPERATOR(>=)
SEQCELLS_OPERATOR(==)
SEQCELLS_OPERATOR(!=)
SEQCELLS_OPERATOR(&)
SEQCELLS_OPERATOR(|)
SEQCELLS_OPERATOR(<<)
SEQCELLS_OPERATOR(>>)
#undef SEQCELLS_OPERATOR

// a where the condition holds, else b.
template <class M, class V>
SEQCELLS_INLINE V choose(M condition, V a, V b) {
    return condition ? a : b;
}
template <class M, class V, int N>
SEQCELLS_INLINE VectorGroup<V, N> choose(const VectorGroup<M, N>& condition, const VectorGroup<V, N>& a, const VectorGroup<V, N>& b) {
    return VectorGroup<V, N>::each([&](int n) { return condition.part[n] ? a.part[n] : b.part[n]; });
}

}  // namespace
}  // namespace seqcells
