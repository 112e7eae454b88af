// How a printed cell describes a pass, forward or backward: its stages, and where the values of a step lie.
//
// Threads meet between stages. Every stage, but for the first stages, begins with values that are gathered over units: products
// and reductions. A stage runs over the units of one size. A letter names the size; letter 0 is H. A letter's last stage is
// followed by its first stage of the next step without a meeting, so carried values stay in registers. Letter 0
// begins with stage 0, and letter k > 0 with stage `stages` + k - 1.

#pragma once

#include <cstdint>

namespace seqcells {

// Limits of a pass. MAX_ROWS limits the row blocks of one product, MAX_BLOCKS those of one stage.
constexpr int MAX_ARRAYS = 64, MAX_STAGES = 24, MAX_PRODUCTS = 24, MAX_LETTERS = 6, MAX_ROWS = 12, MAX_BLOCKS = 16;

// T: time steps, B: sequences, H: units.
enum class Axes : uint8_t { TBH, BH, H, TB, B, NONE };

enum class Where : uint8_t {
    LOCAL,    // only inside its stage
    GIVEN,    // in one of the caller's arrays
    GATE,     // projected from the input: in an array, or made for a few steps at a time
    BEFORE,   // a state before the step, from the history of that state
    CARRIED,  // passed from step to step; before the first and after the last step in one of the caller's arrays
    KEPT,     // in the engine's own memory, from stage to stage
    PRODUCT,  // gathered: one row block of a product
    NUMBER,   // gathered: one number for each row, a reduction
    COUNT,    // the number of units that a letter stands for
    SUM       // summed over steps and rows
};

// Where a stage reads or writes a value.
struct Slot {
    int value;          // the value's number among the values of a step
    Where where;
    Axes axes;
    int array;          // the caller's array; BEFORE: the array of states after each step; PRODUCT: the product
    int column;         // column of units in the array, or row block; KEPT, NUMBER, SUM, COUNT: number of the value or letter
    int initial;        // BEFORE: the array of initial states
    bool working;       // whether the array has the working type, even where the caller's arrays are bfloat16
    bool adds;          // whether a result is added to the number in the array
};

// A value that is kept for a later stage.
struct Kept {
    bool twice;         // has two buffers: it is written for the next step while it is read for this step
    bool bounded;       // needed only in calls with lengths or resets
    int operand, block; // its place in an operand, if products read it too, else -1; not used if operands have another type
};

// The operand of products: values side by side, each made in a stage.
struct Multiplicand {
    int blocks, values[MAX_ROWS], made_at[MAX_ROWS], letter;
    bool twice;
};

// A product of an operand by `blocks` row blocks of a weight, from the row block `first` on. A transposed product multiplies
// each row block of the operand by one transposed row block of the weight, and sums over the row blocks.
struct Multiplied {
    int stage, weight, operand, first, blocks, heads;
    bool transposed;
};

enum class Reduced : uint8_t { SUM, MEAN, MAX, VARIANCE, LOGSUMEXP };
struct Reduction {
    int stage;
    Reduced how;
    Slot from;          // KEPT, or in an array (GIVEN, or GATE for all steps)
    int mean;           // VARIANCE: the earlier reduction that is the mean of the same values, or -1
    int letter;
};

struct Total {
    int array, column;
    bool units;         // whether there is one total for each unit
    int sum;
    bool varies;        // whether the summed values differ from unit to unit
    int letter;
};

// A value of a letter's last stage that is carried to the next step, and the value of the first stage that it becomes there.
struct Onward {
    int value, becomes, letter;
};

// A pass of a cell as the loop sees it. Pointers lead to constants of the printed struct.
struct Pass {
    int stages, arrays, kept, operands, products, reductions, sums, totals;
    int by;             // 1, or -1 for a pass from the last step to the first
    int gates, gates_at;  // gates of the input, and the first stage that may read them
    int letters;
    const int* letter;  // the letter of each stage, also of the stages from `stages` on
    const char* const* names;  // names of the arrays
    const Kept* keep;
    const Multiplicand* operand;
    const Multiplied* product;
    const Reduction* reduction;
    const Total* total;
    void (*run[MAX_STAGES])(const void* stage);  // the elementwise part of each stage; takes a `StageBlock` of the working type
    void (*begin[MAX_LETTERS])(const void* stage);  // each letter's first stage, for the first step
};

}  // namespace seqcells
