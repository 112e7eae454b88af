// The cluster kernel's machine on a CPU: each thread of a cluster is a fiber, and the next fiber to run is drawn at
// random.
//
// Stores to other blocks and copies from global memory, which are asynchronous on the GPU, happen here at any later
// time. A wait is named by its line; a wait for an mbarrier is named by what it waits for. A named wait can be broken:
// it then waits for nothing. The kernel fails if all fibers wait, or if a block that has ended is written to. It also
// fails if a barrier is used that does not exist.

#pragma once

#include <ucontext.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "standard.cuh"

#define SEQCELLS_DEVICE static inline
#define SEQCELLS_INLINE inline
#define SEQCELLS_KERNEL(threads) static void
#define SEQCELLS_CONSTANT const

namespace seqcells {

namespace emulated {

struct Mbarrier {
    int pending = 1;
    int64_t bytes = 0, phase = 0;
};
struct Copy {
    char* to;
    const char* from;
    int bytes;
    bool there;
    void perform() const { there ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes); }
};
struct Meeting {
    int64_t round = 0;
    int arrived = 0;
};
struct Warp {
    Meeting meeting;
    uint32_t rows[32], a[32][4], b[32][2], loaded[32][4];
    float d[32][4];
};
struct Block {
    std::vector<char> memory;
    char* shared;
    Meeting barrier;
    std::vector<Warp> warps;
    std::map<uint32_t, Mbarrier> mbarriers;
    int left = 0;
};
struct Store {
    int block, from;
    uint32_t to, barrier;
    Chunk chunk;
};
struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    int rank, thread;
    std::function<bool()> ready;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
    bool done = false;
};

struct World {
    int blocks, threads, direction, first_block, shared_bytes;
    std::vector<Block> block;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Store> stores;
    Meeting cluster;
    std::mt19937 random;
    std::set<std::string> sites;
    std::string broken, problem;
    ucontext_t scheduler;
    Fiber* now = nullptr;
};
inline World* world;

constexpr int PEER = 20;  // the number of address bits within a block
inline Block& own_block() { return world->block[world->now->rank]; }

inline void yield(std::function<bool()> ready) {
    Fiber* self = world->now;
    self->ready = std::move(ready);
    swapcontext(&self->context, &world->scheduler);
}
inline void perhaps_yield() {
    if (world->random() % 8 == 0) yield([] { return true; });
}
inline bool is_broken(const std::string& site) {
    world->sites.insert(site);
    return site == world->broken;
}
inline void fail(const std::string& why) {
    if (world->problem.empty()) world->problem = why;
}
inline void meet(Meeting& meeting, int all) {
    const int64_t round = meeting.round;
    if (++meeting.arrived == all) {
        meeting.arrived = 0;
        ++meeting.round;
    }
    yield([&meeting, round] { return meeting.round > round; });
}
inline void check(Mbarrier& m) {
    if (m.pending == 0 && m.bytes == 0) {
        ++m.phase;
        m.pending = 1;
    }
}
inline void deliver(const Store& s) {
    Block& block = world->block[s.block];
    if (!block.left) return fail("a block was written to that had ended");
    if (!world->block[s.from].left) return fail("a block had ended whose store was under way");
    auto found = block.mbarriers.find(s.barrier);
    if (found == block.mbarriers.end()) return fail("an mbarrier was not there when bytes came");
    std::memcpy(block.shared + s.to, &s.chunk, 16);
    found->second.bytes -= 16;
    check(found->second);
}
inline void deliver_some(bool all) {
    auto& stores = world->stores;
    for (int n = all ? 1 : int(world->random() % 3); n > 0 && !stores.empty(); --n) {
        std::swap(stores[world->random() % stores.size()], stores.back());
        const Store s = stores.back();
        stores.pop_back();
        deliver(s);
    }
}
inline void copy_some(Fiber& fiber) {
    if (!fiber.groups.empty() && world->random() % 4 == 0)
        for (const Copy& copy : fiber.groups[world->random() % fiber.groups.size()])
            if (world->random() % 2) copy.perform();
}

}  // namespace emulated

SEQCELLS_DEVICE int thread_index() { return emulated::world->now->thread; }
SEQCELLS_DEVICE int block_index() { return emulated::world->first_block + emulated::world->now->rank; }
SEQCELLS_DEVICE int direction_index() { return emulated::world->direction; }
SEQCELLS_DEVICE int cluster_rank() { return emulated::world->now->rank; }
SEQCELLS_DEVICE char* shared_memory() { return emulated::own_block().shared; }
SEQCELLS_DEVICE uint32_t address_of(const void* place) {
    return uint32_t(static_cast<const char*>(place) - emulated::own_block().shared) | uint32_t(cluster_rank()) << emulated::PEER;
}
SEQCELLS_DEVICE uint32_t peer(uint32_t address, int rank) { return (address & ((1u << emulated::PEER) - 1)) | uint32_t(rank) << emulated::PEER; }

SEQCELLS_DEVICE void block_barrier(int line = __builtin_LINE()) {
    if (!emulated::is_broken("block_barrier " + std::to_string(line))) emulated::meet(emulated::own_block().barrier, emulated::world->threads);
}
SEQCELLS_DEVICE void cluster_barrier(int line = __builtin_LINE()) {
    if (!emulated::is_broken("cluster_barrier " + std::to_string(line))) emulated::meet(emulated::world->cluster, emulated::world->threads * emulated::world->blocks);
}

SEQCELLS_DEVICE void mbarrier_init(uint32_t barrier) { emulated::own_block().mbarriers[barrier & ((1u << emulated::PEER) - 1)] = {}; }
SEQCELLS_DEVICE void mbarriers_are_there() {}
SEQCELLS_DEVICE emulated::Mbarrier* own_mbarrier(uint32_t barrier) {
    auto& all = emulated::own_block().mbarriers;
    auto found = all.find(barrier & ((1u << emulated::PEER) - 1));
    if (found == all.end()) emulated::fail("an mbarrier was not there");
    return found == all.end() ? nullptr : &found->second;
}
SEQCELLS_DEVICE void mbarrier_announce(uint32_t barrier, int bytes) {
    if (auto* m = own_mbarrier(barrier)) {
        m->bytes += bytes;
        --m->pending;
        emulated::check(*m);
    }
    emulated::perhaps_yield();
}
SEQCELLS_DEVICE void mbarrier_wait(uint32_t barrier, int parity) {
    const auto& all = emulated::own_block().mbarriers;
    const int exchange = all.empty() ? 0 : int((barrier & ((1u << emulated::PEER) - 1)) - all.begin()->first) / 16;
    if (emulated::is_broken("mbarrier_wait of exchange " + std::to_string(exchange))) return;
    auto* m = own_mbarrier(barrier);
    if (m) emulated::yield([m, parity] { return (m->phase & 1) != parity; });
}
SEQCELLS_DEVICE void store_async(uint32_t to, uint32_t barrier, const Chunk& chunk) {
    const uint32_t within = (1u << emulated::PEER) - 1;
    emulated::world->stores.push_back({int(to >> emulated::PEER), cluster_rank(), to & within, barrier & within, chunk});
    emulated::perhaps_yield();
}

template <int BYTES>
SEQCELLS_DEVICE void copy_async(uint32_t to, const void* from, bool there) {
    emulated::world->now->open.push_back({emulated::own_block().shared + (to & ((1u << emulated::PEER) - 1)), static_cast<const char*>(from), BYTES, there});
}
SEQCELLS_DEVICE void copies_commit() {
    auto* fiber = emulated::world->now;
    fiber->groups.push_back(std::move(fiber->open));
    fiber->open.clear();
    emulated::perhaps_yield();
}
template <int PENDING>
SEQCELLS_DEVICE void copies_wait(int line = __builtin_LINE()) {
    auto* fiber = emulated::world->now;
    if (emulated::is_broken("copies_wait " + std::to_string(line))) return;
    while (int(fiber->groups.size()) > PENDING) {
        for (const auto& copy : fiber->groups.front()) copy.perform();
        fiber->groups.erase(fiber->groups.begin());
    }
}

// Work that a warp does together: the lane that arrives last does it for all lanes.
template <class F>
SEQCELLS_DEVICE void together(F work) {
    auto& warp = emulated::own_block().warps[thread_index() / 32];
    if (warp.meeting.arrived == 31) work(warp);
    emulated::meet(warp.meeting, 32);
}
SEQCELLS_DEVICE void load_matrices(uint32_t (&to)[4], uint32_t row) {
    const int lane = thread_index() % 32;
    auto& warp = emulated::own_block().warps[thread_index() / 32];
    warp.rows[lane] = row & ((1u << emulated::PEER) - 1);
    together([](auto& w) {
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) std::memcpy(&w.loaded[l][i], emulated::own_block().shared + w.rows[8 * i + l / 4] + l % 4 * 4, 4);
    });
    std::memcpy(to, warp.loaded[lane], 16);
}

SEQCELLS_DEVICE uint32_t bits_of_float(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
SEQCELLS_DEVICE float float_of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
SEQCELLS_DEVICE float to_float(Bfloat16 x) { return float_of_bits(uint32_t(x.bits) << 16); }
SEQCELLS_DEVICE float to_float(Half x) {
    _Float16 y;
    std::memcpy(&y, &x, 2);
    return float(y);
}
SEQCELLS_DEVICE float to_float(float x) { return x; }
SEQCELLS_DEVICE void round_to(Bfloat16& to, float x) {
    const uint32_t bits = bits_of_float(x);
    to.bits = x != x ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
SEQCELLS_DEVICE void round_to(Half& to, float x) {
    const _Float16 y = _Float16(x);
    std::memcpy(&to, &y, 2);
}
SEQCELLS_DEVICE void round_to(float& to, float x) { to = x; }
// float32 is not rounded to TF32 either: products are exact, so results are near the reference's.
template <class S>
SEQCELLS_DEVICE void round_for_product(S& to, float x) {
    if (emulated::world->random() % 64 == 0) emulated::perhaps_yield();
    round_to(to, x);
}

template <class S>
SEQCELLS_DEVICE float number(uint32_t bits, int n) {
    if constexpr (sizeof(S) == 4) return float_of_bits(bits);
    else return to_float(S{uint16_t(bits >> 16 * n)});
}
template <class S>
SEQCELLS_DEVICE void multiply_add(S, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    constexpr int NUMBERS = 4 / sizeof(S);
    const int lane = thread_index() % 32;
    auto& warp = emulated::own_block().warps[thread_index() / 32];
    std::memcpy(warp.a[lane], a, 16);
    std::memcpy(warp.d[lane], d, 16);
    warp.b[lane][0] = b0, warp.b[lane][1] = b1;
    together([](auto& w) {
        for (int l = 0; l < 32; ++l)
            for (int e = 0; e < 4; ++e) {
                const int row = l / 4, column = l % 4 * 2 + e % 2;
                double sum = w.d[l][e];
                for (int half = 0; half < 2; ++half)
                    for (int k = 0; k < 4; ++k)
                        for (int n = 0; n < NUMBERS; ++n) sum += double(number<S>(w.a[row * 4 + k][2 * half + e / 2], n)) * number<S>(w.b[column * 4 + k][half], n);
                w.d[l][e] = float(sum);
            }
    });
    std::memcpy(d, warp.d[lane], 16);
}

SEQCELLS_DEVICE float exp_fast(float x) { return std::exp(x); }
SEQCELLS_DEVICE float divide_fast(float a, float b) { return a / b; }
SEQCELLS_DEVICE float logarithm(float x) { return std::log(x); }
SEQCELLS_DEVICE float square_root(float x) { return std::sqrt(x); }
SEQCELLS_DEVICE float round_down(float x) { return std::floor(x); }
SEQCELLS_DEVICE float absolute(float x) { return std::fabs(x); }
SEQCELLS_DEVICE float with_sign_of(float x, float size) { return std::copysign(size, x); }

namespace emulated {

// Runs all fibers of a cluster to their end, or until none can continue.
inline void run_cluster(const std::function<void()>& kernel) {
    static std::function<void()> body;
    body = kernel;
    World& w = *world;
    for (int k = 0; k < w.blocks; ++k) {
        w.block.emplace_back();
        auto& block = w.block.back();
        block.memory.assign(w.shared_bytes + 256, char(0xff));
        block.shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(block.memory.data()) + 127) / 128 * 128);
        block.warps.resize(w.threads / 32);
        block.left = w.threads;
        for (int t = 0; t < w.threads; ++t) {
            auto fiber = std::make_unique<Fiber>();
            fiber->rank = k, fiber->thread = t, fiber->ready = [] { return true; };
            fiber->stack.reset(new char[96 << 10]);
            getcontext(&fiber->context);
            fiber->context.uc_stack.ss_sp = fiber->stack.get();
            fiber->context.uc_stack.ss_size = 96 << 10;
            fiber->context.uc_link = &w.scheduler;
            makecontext(&fiber->context, +[] { body(); world->now->done = true; --own_block().left; }, 0);
            w.fibers.push_back(std::move(fiber));
        }
    }
    // Warps are drawn at random; the lanes of a warp run in order, as far as they can.
    const int warps = w.threads / 32 * w.blocks;
    while (w.problem.empty()) {
        bool alive = false, moved = false;
        const int first = int(w.random() % warps);
        const int some = 1 + int(w.random() % warps);
        for (int n = 0; n < warps; ++n) {
            const int warp = (first + n) % warps;
            bool of_warp = false;
            for (int l = 0; l < 32; ++l) {
                Fiber& fiber = *w.fibers[warp * 32 + l];
                if (fiber.done) continue;
                alive = true;
                if (!fiber.ready()) continue;
                w.now = &fiber;
                copy_some(fiber);
                swapcontext(&w.scheduler, &fiber.context);
                moved = of_warp = true;
            }
            if (of_warp && n >= some) break;
        }
        deliver_some(!moved);
        if (!alive && w.stores.empty()) break;
        if (!moved && w.stores.empty() && alive) {
            bool ready = false;
            for (auto& fiber : w.fibers) ready |= !fiber->done && fiber->ready();
            if (!ready) fail("all threads wait");
        }
    }
}

}  // namespace emulated
}  // namespace seqcells

// The function that tests call: it runs all clusters one after the other. Returns 0, or 1 with the reason in `said`.
// Without a problem, `said` has the names of all waits, a line each.
#define SEQCELLS_EMULATE(kernel)                                                                                                        \
    extern "C" int emulate(const void* arguments, int blocks, int directions, int cluster, int threads, int bytes, unsigned seed,       \
                           const char* broken, char* said, int room) {                                                                  \
        using namespace seqcells::emulated;                                                                                             \
        std::set<std::string> sites;                                                                                                    \
        for (int d = 0; d < directions; ++d)                                                                                            \
            for (int first = 0; first < blocks; first += cluster) {                                                                     \
                World all;                                                                                                              \
                all.blocks = cluster, all.threads = threads, all.direction = d, all.first_block = first, all.shared_bytes = bytes;      \
                all.broken = broken, all.random.seed(seed + 7919 * first + d);                                                          \
                world = &all;                                                                                                           \
                run_cluster([&] { kernel(*static_cast<const seqcells::Arguments*>(arguments)); });                                      \
                sites.insert(all.sites.begin(), all.sites.end());                                                                       \
                if (!all.problem.empty()) return std::snprintf(said, room, "%s", all.problem.c_str()), 1;                               \
            }                                                                                                                           \
        std::string lines;                                                                                                              \
        for (const auto& site : sites) lines += site + "\n";                                                                            \
        return std::snprintf(said, room, "%s", lines.c_str()), 0;                                                                       \
    }
