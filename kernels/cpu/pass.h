// What a printed cell tells of a pass, forward or backward: its stages, and where the values of a step are.
//
// Between stages threads meet; each but the first ones begins with what is gathered over units. A stage is for the units of
// one size, known by its letter, H for letter 0. After the last one of a letter comes the first one of the next step, so what
// is carried passes in registers. First ones are stage 0 and, of other letters, those from `stages` on.

#pragma once

#include <cstdint>

namespace seqcells {

// What a pass may have at most; of row blocks one product, and one stage.
constexpr int MAX_ARRAYS = 64, MAX_STAGES = 24, MAX_PRODUCTS = 24, MAX_LETTERS = 6, MAX_ROWS = 12, MAX_BLOCKS = 16;

// Axes: time, sequences, units.
enum class Axes : uint8_t { TBH, BH, H, TB, B, NONE };

enum class Where : uint8_t {
    LOCAL,    // nowhere but in its stage
    GIVEN,    // in an array of the caller's
    GATE,     // of the input's product: in an array, or made for a few steps at a time
    BEFORE,   // in the history of a state, as it was before the step
    CARRIED,  // passed on; before the first step, and after the last, in an array of the caller's
    KEPT,     // in memory of the engine's, from stage to stage
    PRODUCT,  // gathered: a row block of a product
    NUMBER,   // gathered: a number of each row
    COUNT,    // how many units a letter stands for
    SUM       // summed up over steps and rows
};

// Where a value is read, or written.
struct Slot {
    int value;          // its number among the values of a step
    Where where;
    Axes axes;
    int array;          // of the caller's; BEFORE: of the values after steps; PRODUCT: which product
    int column;         // of units, of an array or among row blocks; else the number of what is kept, reduced, summed up, a letter
    int initial;        // BEFORE: the array of initial states
    bool working;       // whether the array is of the type that is computed in, where the caller's own may be of bfloat16
    bool adds;          // a result: to what the array holds
};

// What a later stage reads.
struct Kept {
    bool twice;         // written for the next step while it is read for this one
    bool bounded;       // needed where there are boundaries alone
    int operand, block; // where products read it too, unless in another type; or -1
};

// What products read: values side by side, each made in a stage.
struct Multiplicand {
    int blocks, values[MAX_ROWS], made_at[MAX_ROWS], letter;
    bool twice;
};

// Row blocks from `first` on of a weight, applied to an operand; transposed, to the operand's row blocks.
struct Multiplied {
    int stage, weight, operand, first, blocks, heads;
    bool transposed;
};

enum class Reduced : uint8_t { SUM, MEAN, MAX, VARIANCE, LOGSUMEXP };
struct Reduction {
    int stage;
    Reduced how;
    Slot from;          // KEPT, or GIVEN or GATE for all steps
    int mean;           // the reduction before this one that is the mean of the same; or -1
    int letter;
};

struct Total {
    int array, column;
    bool units;         // whether it is one of each unit
    int sum;
    bool varies;        // whether what is summed up differs from unit to unit
    int letter;
};

// A value of the last stage that is carried on, and that of the first one that it becomes.
struct Onward {
    int value, becomes, letter;
};

// A pass of a cell as the loop sees it. Pointers are to constants of the printed struct.
struct Pass {
    int stages, arrays, kept, operands, products, reductions, sums, totals;
    int by;             // 1, or -1 for one that goes back
    int gates, gates_at;  // of the input, and the first stage that may read them
    int letters;
    const int* letter;  // of each stage, also of those from `stages` on
    const char* const* names;  // of the arrays
    const Kept* keep;
    const Multiplicand* operand;
    const Multiplied* product;
    const Reduction* reduction;
    const Total* total;
    void (*run[MAX_STAGES])(const void* stage);  // the elementwise part, of a `Stage` of the type
    void (*begin[MAX_LETTERS])(const void* stage);  // the first stage of the first step, of each letter
};

}  // namespace seqcells
