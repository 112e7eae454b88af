// Several vectors as one value. An activation is a chain of instructions of which each waits for the one before; side by
// side, those of one vector fill the time that another waits.

#pragma once

#include <type_traits>
#include <utility>

// By force, so that no vector is ever passed in a call, whatever the target.
#define SEQCELLS_INLINE inline __attribute__((always_inline))

namespace seqcells {
namespace {

template <class V, int N>
struct Several {
    using One = std::decay_t<decltype(std::declval<V&>()[0])>;
    V part[N];

    // Part by part.
    template <class F>
    SEQCELLS_INLINE static Several each(F f) {
        Several all;
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) all.part[n] = f(n);
        return all;
    }
    // For `scalar`, which asks what a lane is of: of the first part.
    One operator[](int lane) const { return part[0][lane]; }
    // The same bits as of another type.
    template <class U>
    SEQCELLS_INLINE explicit operator Several<U, N>() const {
        return Several<U, N>::each([&](int n) { return (U)part[n]; });
    }
    SEQCELLS_INLINE Several operator-() const {
        return each([&](int n) { return -part[n]; });
    }
    template <class B>
    SEQCELLS_INLINE Several& operator+=(B b) {
        return *this = *this + b;
    }
};

#define SEQCELLS_OPERATOR(op)                                                                          \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(const Several<V, N>& a, const Several<V, N>& b) {                 \
        return Several<decltype(a.part[0] op b.part[0]), N>::each([&](int n) { return a.part[n] op b.part[n]; }); \
    }                                                                                                  \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(const Several<V, N>& a, typename Several<V, N>::One b) {          \
        return Several<decltype(a.part[0] op b), N>::each([&](int n) { return a.part[n] op b; });      \
    }                                                                                                  \
    template <class V, int N>                                                                          \
    SEQCELLS_INLINE auto operator op(typename Several<V, N>::One a, const Several<V, N>& b) {          \
        return Several<decltype(a op b.part[0]), N>::each([&](int n) { return a op b.part[n]; });      \
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
SEQCELLS_INLINE Several<V, N> choose(const Several<M, N>& condition, const Several<V, N>& a, const Several<V, N>& b) {
    return Several<V, N>::each([&](int n) { return condition.part[n] ? a.part[n] : b.part[n]; });
}

}  // namespace
}  // namespace seqcells
