// The arrays that a printed cell's pass reads and writes, and how many numbers each has at least: what its tables say.

#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "stage.h"

namespace seqcells {
namespace {

// How many units each letter stands for.
using Sizes = std::array<int64_t, MAX_LETTERS>;

// An array of the caller's.
struct Wanted {
    Axes axes;
    bool working;        // of the type that is computed in, where the caller's own may be of bfloat16
    int64_t width = 0;   // numbers of a row, or of all where there are no rows
    bool whole = false;  // whether the pass writes all of it

    bool over_time() const { return axes == Axes::TBH || axes == Axes::TB; }
    int64_t rows(int64_t steps, int64_t batch) const {
        return over_time() ? steps * batch : axes == Axes::BH || axes == Axes::B ? batch : 1;
    }
};
using Arrays = std::map<std::string, Wanted>;

// f(slot, stage) for each place that the stages read, or write.
template <class Lists, class F>
void each_slot(const Lists& lists, F f) {
    int stage = 0;
    const auto of_stage = [&](const auto& slots) {
        for (const Slot& slot : slots) f(slot, stage);
        ++stage;
    };
    std::apply([&](const auto&... slots) { (of_stage(slots), ...); }, lists);
}

template <class Program>
Arrays arrays_of(const Sizes& sizes) {
    Arrays found;
    const auto want = [&](int array, Axes axes, int64_t width, bool working, bool whole = false) {
        Wanted& one = found.try_emplace(Program::names[array], Wanted{axes, working}).first->second;
        one.width = std::max(one.width, width), one.whole |= whole;
    };
    const auto want_slot = [&](const Slot& slot, int64_t size, bool whole) {
        const bool columns = slot.axes == Axes::TBH || slot.axes == Axes::H || slot.axes == Axes::TB;
        const int64_t width = (columns ? slot.column + 1 : 1) * (is_of_row(slot.axes) ? 1 : size);
        if (slot.where == Where::BEFORE) want(slot.initial, Axes::BH, size, false);
        if (slot.where == Where::GIVEN || slot.where == Where::GATE || slot.where == Where::BEFORE || slot.where == Where::CARRIED)
            want(slot.array, slot.axes, width, slot.working, whole);
    };
    each_slot(Program::reads, [&](const Slot& slot, int stage) { want_slot(slot, sizes[Program::letter[stage]], false); });
    each_slot(Program::results, [&](const Slot& slot, int stage) { want_slot(slot, sizes[Program::letter[stage]], !slot.adds); });
    for (const Reduction& each : Program::reductions) want_slot(each.from, sizes[each.letter], false);
    for (const Multiplied& each : Program::products) {
        const int64_t rows = sizes[Program::letter[each.stage]], columns = sizes[Program::operands[each.operand].letter];
        want(each.weight, Axes::H, (each.first + each.blocks) * rows * columns / each.heads, false);
    }
    for (const Total& each : Program::totals)
        want(each.array, Axes::H, each.units ? (each.column + 1) * sizes[each.letter] : 1, true, true);
    return found;
}

// Heads are of so many units each: how many heads there are.
template <class Program>
int64_t heads_of() {
    int most = 1;
    for (const Multiplied& each : Program::products) most = std::max(most, each.heads);
    return most;
}

// Whether the loop may project the input: no reduction reads its gates, and no stage that runs with the step before.
template <class Program>
bool projects() {
    bool may = Program::gates > 0;
    each_slot(Program::reads, [&](const Slot& slot, int stage) {
        if (slot.where != Where::GATE) return;
        may &= stage > 0 && stage < Program::stages;
        for (const Multiplicand& each : Program::operands) may &= std::count(each.values, each.values + each.blocks, slot.value) == 0;
    });
    for (const Reduction& each : Program::reductions) may &= each.from.where != Where::GATE;
    return may;
}

}  // namespace
}  // namespace seqcells
