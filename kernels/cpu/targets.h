// The instruction sets that the extension is built for, and which of them this machine has.

#pragma once

#include <cstring>

#include "precision.h"
#include "processor.h"

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
#if defined(SEQCELLS_AMX)
SEQCELLS_TABLES(amxbf16)
#endif
#endif

namespace {

// An instruction set. One that adds products to another set has that set's cells, and that set's tables (`other`) where it has
// none of its own.
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

const Target targets[] = {
#if defined(__x86_64__)
#if defined(SEQCELLS_AMX)
    {"amxbf16", has_amx, avx512::cells, amxbf16::precisions, avx512::precisions},
#endif
    {"avx512bf16", has_avx512bf16, avx512::cells, avx512bf16::precisions, avx512::precisions},
    {"avx512", has_avx512, avx512::cells, avx512::precisions, nullptr},
    {"avx2", has_avx2, avx2::cells, avx2::precisions, nullptr},
#endif
    {"portable", has_portable, portable::cells, portable::precisions, nullptr},
};

// A target that this machine has, or null.
const Target* target_here(const char* name) {
    for (const Target& target : targets)
        if (!std::strcmp(target.name, name) && target.supported()) return &target;
    return nullptr;
}

}  // namespace
}  // namespace seqcells
