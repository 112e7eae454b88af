// Which instruction sets this processor has.

#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#if __has_include(<amxbf16intrin.h>)
#define SEQCELLS_AMX
#endif
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace seqcells {

inline bool has_portable() { return true; }
#if defined(__x86_64__)
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
inline bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
inline bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

#if defined(SEQCELLS_AMX)
// The tile registers are large, so a process must ask the system for them. The permission holds for all its threads.
inline bool may_use_amx() {
#if defined(__linux__)
    constexpr long request = 0x1023, data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return !syscall(SYS_arch_prctl, request, data);
#else
    return false;
#endif
}

inline bool has_amx() {
    constexpr unsigned tiles = 1u << 24, bfloat16 = 1u << 22;  // bits of what the processor tells in edx
    unsigned a, b, c, d;
    return has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tiles) && (d & bfloat16) && may_use_amx();
}
#endif
#endif

}  // namespace seqcells
