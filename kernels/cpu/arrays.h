// The caller's arrays, and the order of time steps.

#pragma once

#include "layer_call.h"
#include "vector.h"

namespace seqcells {
namespace {

// One of the caller's arrays. Its numbers are of type Compute, or of bfloat16 where Compute is float.
template <class Compute>
class Array {
  public:
    Array(const void* at, bool is_bfloat16) : at_(const_cast<void*>(at)), is_bfloat16_(is_bfloat16) {}

    template <class V = Vector<Compute>>
    SEQCELLS_INLINE V load(int64_t from, int64_t count = LANES<Compute>) const {
        if constexpr (std::is_same_v<Compute, float> && sizeof(V) == sizeof(Vector<Compute>))
            if (is_bfloat16_) return load_as<V>(static_cast<const bfloat16*>(at_) + from, count);
        return load_as<V>(static_cast<const Compute*>(at_) + from, count);
    }
    template <class V>
    SEQCELLS_INLINE void store(int64_t to, V value, int64_t count) const {
        if constexpr (std::is_same_v<Compute, float> && sizeof(V) == sizeof(Vector<Compute>))
            if (is_bfloat16_) return seqcells::store(static_cast<bfloat16*>(at_) + to, value, count);
        seqcells::store(static_cast<Compute*>(at_) + to, value, count);
    }
    Compute operator[](int64_t k) const {
        if constexpr (std::is_same_v<Compute, float>)
            if (is_bfloat16_) return static_cast<const bfloat16*>(at_)[k];
        return static_cast<const Compute*>(at_)[k];
    }
    void set(int64_t k, Compute value) const {
        if constexpr (std::is_same_v<Compute, float>)
            if (is_bfloat16_) {
                static_cast<bfloat16*>(at_)[k] = value;
                return;
            }
        static_cast<Compute*>(at_)[k] = value;
    }
    // Prefetches `count` numbers for reading or, if WRITE, for writing. A step touches a little of each of many arrays, too
    // little for the hardware prefetcher to foresee the next access.
    template <int WRITE>
    SEQCELLS_INLINE void prefetch(int64_t from, int64_t count) const {
        const int64_t size = is_bfloat16_ ? sizeof(bfloat16) : sizeof(Compute);
        const char *line = static_cast<const char*>(at_) + from * size, *last = line + count * size;
        for (; line < last; line += 64) __builtin_prefetch(line, WRITE, 2);
    }
    explicit operator bool() const { return at_; }

  private:
    void* at_;
    bool is_bfloat16_;
};

// The order of time steps in one direction, and where a row's sequence ends or is reset.
struct TimeOrder {
    const LayerCall& p;

    int64_t at(int64_t index) const { return p.reverse ? p.steps - 1 - index : index; }
    bool valid(int64_t t, int64_t row) const { return !p.lengths || t < p.lengths[row]; }
    // Whether the state is reset just before step t, in the direction of travel.
    bool boundary(int64_t t, int64_t row) const {
        const int64_t flag = p.reverse ? t + 1 : t;
        return p.reset && flag < p.steps && valid(flag, row) && p.reset[flag * p.batch + row];
    }
};

}  // namespace
}  // namespace seqcells
