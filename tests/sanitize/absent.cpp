// Empty tables for the instruction sets that are not compiled in; a compiled set's table takes precedence.

#include "precision.h"

#define ABSENT(target)                                                \
    namespace seqcells::target {                                      \
    extern const Precision precisions[];                              \
    __attribute__((weak)) extern const Precision precisions[] = {{}}; \
    extern const Built cells[];                                       \
    __attribute__((weak)) extern const Built cells[] = {{}};          \
    }
ABSENT(portable)
ABSENT(avx2)
ABSENT(avx512)
ABSENT(avx512bf16)
ABSENT(amxbf16)
