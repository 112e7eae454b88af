// Memory for the length of a call.

#pragma once

#include <cstdint>
#include <utility>

#include "pool.h"

namespace seqcells {
namespace {

// Whole cache lines, not initialised.
template <class T>
class Buffer {
  public:
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

  private:
    int64_t bytes_;
    T* memory_;
};

}  // namespace
}  // namespace seqcells
