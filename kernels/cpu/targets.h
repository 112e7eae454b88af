// The instruction sets that the extension is built for, and which of them this machine has.

#pragma once

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "precision.h"

namespace seqcells {

#define SEQCELLS_TABLES(target) \
    namespace target {          \
    extern const Precision precisions[]; \
    extern const Built cells[]; \
    }
SEQCELLS_TABLES(portable)
#if defined(__x86_64__)
SEQCELLS_TABLES(avx2)
SEQCELLS_TABLES(avx512)
SEQCELLS_TABLES(avx512bf16)
#if __has_include(<amxbf16intrin.h>)
#define SEQCELLS_AMX
SEQCELLS_TABLES(amxbf16)
#endif
#endif

namespace {

// An instruction set; one that adds products to another has that one's cells, and its tables where it has none of its own.
struct Target {
    const char* name;
    bool (*supported)();
    const Built* cells;
    const Precision *own, *other;

    const Precision* find(const char* precision) const {
        for (const Precision* table : {own, other})
            for (; table && table->name; ++table)
                if (!std::strcmp(table->name, precision)) return table;
        return nullptr;
    }
};

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

#if defined(SEQCELLS_AMX)
// Tiles are large, and so the system's to grant, to all threads.
bool may_use_amx() {
#if defined(__linux__)
    constexpr long request = 0x1023, data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return !syscall(SYS_arch_prctl, request, data);
#else
    return false;
#endif
}

bool has_amx() {
    constexpr unsigned tiles = 1u << 24, bfloat16 = 1u << 22;  // of what the processor says in edx
    unsigned a, b, c, d;
    return has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tiles) && (d & bfloat16) && may_use_amx();
}
#endif
#endif

const Target targets[] = {
#if defined(__x86_64__)
#if defined(SEQCELLS_AMX)
    {"amxbf16", has_amx, avx512::cells, amxbf16::precisions, avx512::precisions},
#endif
    {"avx512bf16", has_avx512bf16, avx512::cells, avx512bf16::precisions, avx512::precisions},
    {"avx512", has_avx512, avx512::cells, avx512::precisions, nullptr},
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2::cells, avx2::precisions, nullptr},
#endif
    {"portable", [] { return true; }, portable::cells, portable::precisions, nullptr},
};

// A target that this machine has, or null.
const Target* target_here(const char* name) {
    for (const Target& target : targets)
        if (!std::strcmp(target.name, name) && target.supported()) return &target;
    return nullptr;
}

}  // namespace
}  // namespace seqcells
