// Empty tables in place of those of instruction sets that are not compiled with this; those that are go before.

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
