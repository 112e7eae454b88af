// Memory that lives for one call.

#pragma once

#include <cstdint>
#include <utility>

#include "memory_pool.h"

namespace seqcells {
namespace {

// An array of whole cache lines from the pool, not initialised.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t count) : bytes_((count * sizeof(T) + 127) / 64 * 64), memory_(static_cast<T*>(pool::take(bytes_))) {}
    Buffer(Buffer&& other) noexcept : bytes_(other.bytes_), memory_(std::exchange(other.memory_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(memory_, other.memory_);
        return *this;
    }
    ~Buffer() {
        if (memory_) pool::give(memory_, bytes_);
    }
    T* get() const { return memory_; }
    // False if the allocation failed. A buffer that asked for nothing is true.
    bool there() const { return memory_ || !bytes_; }

  private:
    int64_t bytes_ = 0;
    T* memory_ = nullptr;
};

}  // namespace
}  // namespace seqcells
