// Memory for the length of a call.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace seqcells {
namespace {

// Large blocks are kept for the next call, up to half a gigabyte of them: to have their pages given anew can cost more than
// the work on them (1.5 µs each on a virtual machine, a third of the time of training a large layer). Where another thread
// is at it (or was, when this process was forked from it), a block is taken from the system and given back.
class Pool {
  public:
    static void* take(int64_t& bytes) {
        if (bytes >= SMALL) {
            std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
            Block* best = nullptr;
            for (Block& block : blocks)
                if (lock && block.memory && block.bytes >= bytes && block.bytes <= 2 * bytes && (!best || block.bytes < best->bytes))
                    best = &block;
            if (best) {
                bytes = best->bytes;
                kept -= bytes;
                return std::exchange(best->memory, nullptr);
            }
        }
        return std::aligned_alloc(64, bytes);
    }

    static void give(void* memory, int64_t bytes) {
        if (bytes >= SMALL && bytes <= KEPT / 2) {
            std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
            if (lock) {
                // The oldest make room.
                while (blocks[next].memory || kept + bytes > KEPT) {
                    kept -= blocks[next].memory ? blocks[next].bytes : 0;
                    std::free(std::exchange(blocks[next].memory, nullptr));
                    if (kept + bytes > KEPT) next = (next + 1) % PLACES;
                }
                blocks[next] = {memory, bytes};
                kept += bytes;
                next = (next + 1) % PLACES;
                return;
            }
        }
        std::free(memory);
    }

  private:
    static constexpr int64_t SMALL = 1 << 16, KEPT = 1 << 29;
    static constexpr int PLACES = 32;
    struct Block {
        void* memory;
        int64_t bytes;
    };
    static inline Block blocks[PLACES]{};
    static inline int next = 0;
    static inline int64_t kept = 0;
    static inline std::mutex mutex;
};

// Whole cache lines, not initialised.
template <class T>
class Buffer {
  public:
    explicit Buffer(int64_t count) : bytes_((count * sizeof(T) + 127) / 64 * 64), memory_(static_cast<T*>(Pool::take(bytes_))) {}
    Buffer(Buffer&& other) noexcept : bytes_(other.bytes_), memory_(std::exchange(other.memory_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(memory_, other.memory_);
        return *this;
    }
    ~Buffer() {
        if (memory_) Pool::give(memory_, bytes_);
    }
    T* get() const { return memory_; }

  private:
    int64_t bytes_;
    T* memory_;
};

}  // namespace
}  // namespace seqcells
