// A pass of a cell over time, forward or backward.
//
// An item of work is one block of units of one letter and some rows, in one stage. A thread gathers the products and reductions
// of its item, then runs the elementwise part. When all items of a stage are done, the operands of the next stage are complete.

#pragma once

#include "packed_products.h"
#include "row_reductions.h"
#include "stage.h"
#include "team.h"

namespace seqcells {
namespace {

// Computes in Compute; the factors of products are in Operand.
template <class Compute, class Operand = Compute>
class Loop {
    static constexpr int L = LANES<Compute>;
    static constexpr bool rounds = !std::is_same_v<Compute, Operand>;  // whether products read a rounded copy

    const Pass& pass;
    const LayerCall& p;
    const TimeOrder times;
    const int64_t B, H;  // H: the units of the widest letter
    const unsigned turn = passes.fetch_add(1, std::memory_order_relaxed);
    const int64_t group;  // steps whose inputs are projected together
    Products<Compute, Operand> multiplied;
    Parts lots;           // parts of the rows, where threads divide rows instead of units; else empty
    Buffer<Compute> kept, inputs, sums;
    Buffer<double> totals;
    Buffer<Operand> operands, input_rows;
    int64_t kept_width, operand_width[MAX_PRODUCTS], operands_before[MAX_PRODUCTS + 1] = {};  // read for every block

  public:
    Loop(const Pass& of, const LayerCall& call)
        : pass(of), p(call), times{p}, B(p.batch), H(widest(of, call)),
          group(B < BATCH ? BATCH / (B ? B : 1) : 1), multiplied(of, call), lots(0, 1), kept_width(padded<Compute>((H + L - 1) / L * L)) {
        for (int k = 0; k < pass.operands; ++k) {
            operand_width[k] = padded<Operand>(operand_units(k));
            operands_before[k + 1] = operands_before[k] + B * operand_width[k];
        }
    }

    int64_t threads() const {
        const int64_t work = B * (multiplied.work_of_row() + 8 * H), most = 1 + work / (p.steps > 1 ? 16384 : 147456);
        const int64_t count = p.threads < most ? p.threads : most, vectors = (H + L - 1) / L;
        return count < vectors ? count : vectors;
    }

    // Divides the units into blocks for `members` threads, or as the caller's packed weights are divided.
    void share_among(int64_t members) {
        multiplied.share_among(members);
        // Threads that divide rows need not meet between stages. Rows are divided if each thread has enough of them for tiles,
        // and its cache holds all weights.
        const int64_t each = B / members;
        if (members > 1 && !pass.sums && each >= 4 && weight_bytes() <= cache_bytes() && multiplied.packed() && (!p.input || input_fits()))
            lots = Parts(B, each >= 8 ? (each + 1) / 2 : each);
    }

    bool allocate() {
        if (p.input && !input_fits()) input_rows = Buffer<Operand>(group * B * filled<Operand>(p.features));
        if (p.input) inputs = Buffer<Compute>(group * B * pass.gates * of_letter(0).vectors * L);
        kept = Buffer<Compute>(2 * pass.kept * kept_by_array());
        operands = Buffer<Operand>(2 * operands_before[pass.operands]);
        sums = Buffer<Compute>(parts().count * pass.sums * H), totals = Buffer<double>(parts().count * pass.sums * H);
        if (!(multiplied.allocate() && kept.there() && inputs.there() && operands.there() && input_rows.there() && sums.there() && totals.there()))
            return false;
        for (int k = 0; k < pass.operands && rounds; ++k)
            for (int64_t row = 0; row < 2 * B; ++row)
                for (int64_t c = operand_units(k); c < filled<Operand>(operand_units(k)); ++c)
                    operand_of(row / B, k)[row % B * operand_width[k] + c] = Operand(0);
        return true;
    }

    void run(Member& member) {
        Own own(*this);
        for (int letter = 0; letter < pass.letters; ++letter)
            member.each(of_letter(letter).count, false, [&](int64_t block) {
                const WorkRange units = of_letter(letter).of(block);
                multiplied.prepare(letter, block);
                clear_sums(letter, units);
                begin(letter, units, WorkRange(B, 0, 1));
            });
        const Parts parts = this->parts();
        if (lots.count || !gathers()) {
            // One item covers some steps at a time. So no item is long, and other threads can take over the items of a late
            // thread.
            const int64_t count = lots.count ? lots.count : all(1).count * parts.count;
            const int64_t work = multiplied.work_of_row() * (lots.count ? lots.of(0).count() : 1), window = gathers() ? 1 + ITEM / (work + 1) : p.steps;
            for (int64_t first = 0; first < p.steps; first += window) {
                const int64_t last = first + window < p.steps ? first + window : p.steps;
                member.each(count, false, [&](int64_t item) {
                    for (int64_t step = first; step < last; ++step)
                        for (int k = 1; k < pass.stages; ++k)
                            if (lots.count)
                                for (int64_t n = 0; n < all(k).count; ++n)
                                    each_batch(lots.of(item).count(), [&](int64_t from, int64_t to) {
                                        const WorkRange rows = WorkRange::range(lots.of(item).first + from, lots.of(item).first + to);
                                        stage(own, step, k, back(step) ? all(k).count - 1 - n : n, rows, 0);
                                    });
                            else
                                stage(own, step, k, item / parts.count, parts.of(item % parts.count), item % parts.count);
                });
            }
        } else {
            for (int64_t step = 0; step < p.steps; ++step) {
                if (p.input && !input_fits() && step % group == 0)
                    member.each(Parts(grouped_rows(step), BATCH).count, false, [&](int64_t part) { align_inputs(step, part); });
                for (int k = 1; k < pass.stages; ++k)
                    member.each(all(k).count * parts.count, back(step), [&](int64_t item) { stage(own, step, k, item / parts.count, parts.of(item % parts.count), item % parts.count); });
            }
        }
        for (int letter = 0; letter < pass.letters; ++letter)
            member.each(of_letter(letter).count, false, [&](int64_t block) { end(letter, of_letter(letter).of(block)); });
    }

    int64_t weight_bytes() const { return multiplied.weight_bytes(); }

  private:
    // The blocks of a letter's units, and of a stage's units.
    const Blocks& of_letter(int letter) const { return multiplied.blocks(letter); }
    const Blocks& all(int stage) const { return of_letter(pass.letter[stage]); }
    // Whether stages gather values, so that threads meet between stages.
    bool gathers() const { return pass.products || pass.reductions || pass.stages > 2; }
    static int64_t widest(const Pass& pass, const LayerCall& call) {
        int64_t most = 0;
        for (int letter = 0; letter < pass.letters; ++letter) most = call.sizes[letter] > most ? call.sizes[letter] : most;
        return most;
    }
    int64_t operand_units(int k) const { return pass.operand[k].blocks * p.sizes[pass.operand[k].letter]; }
    // Threads go through the blocks in alternating order from step to step: each begins with the weights that the step before
    // left in its cache. No result depends on the order.
    bool back(int64_t step) const { return (step + turn) % 2; }
    // The index, in the direction's order of travel, of a step in the order of the pass.
    int64_t index(int64_t step) const { return pass.by > 0 ? step : p.steps - 1 - step; }

    // The rows, in parts so small that no item is long. Steps that are projected together have few rows.
    Parts parts() const {
        if (group > 1) return Parts(B, BATCH);
        const int64_t work = multiplied.work_of_row(multiplied.units(0) * L), rows = ITEM / (work ? work : 1);
        return Parts(B, rows < 16 ? 16 : rows < BATCH ? rows : BATCH);
    }

    // The row stride of the engine's own arrays. It is whole cache lines, because two threads that write to one line wait for
    // each other. It is no multiple of 8 lines, because then all rows would share a few sets of the first-level cache.
    template <class U>
    static int64_t padded(int64_t count) {
        constexpr int64_t line = 64 / sizeof(U);
        const int64_t whole = (count + line - 1) / line * line;
        return whole % (8 * line) ? whole : whole + line;
    }
    int64_t kept_by_array() const { return B * kept_width; }
    Operand* operand_of(int64_t parity, int k) const {
        return operands.get() + 2 * operands_before[k] + (pass.operand[k].twice ? parity : 0) * B * operand_width[k];
    }

    // Whether products can read the input where it lies.
    bool input_fits() const { return sizeof(Operand) == (p.is_bfloat16 ? sizeof(bfloat16) : sizeof(Compute)) && filled<Operand>(p.features) == p.features; }
    // Steps are projected in groups. place_in_group: where a step is in its group, in order of time. first_in_group: the first
    // step in time of the group that the pass begins with step `begin`.
    int64_t place_in_group(int64_t step) const { return times.at(step) - first_in_group(step - step % group); }
    int64_t first_in_group(int64_t begin) const {
        return p.reverse ? times.at(begin + group < p.steps ? begin + group - 1 : p.steps - 1) : begin;
    }
    // The number of rows in the group that the pass begins with step `begin`.
    int64_t grouped_rows(int64_t begin) const { return (group < p.steps - begin ? group : p.steps - begin) * B; }

    void align_inputs(int64_t begin, int64_t part) const {
        const WorkRange rows = Parts(grouped_rows(begin), BATCH).of(part);
        multiplied.in_its_type(p.input, [&](const auto* from) {
            from += first_in_group(begin) * B * p.features;
            for (int64_t row = rows.first; row < rows.last; ++row)
                align(from + row * p.features, p.features, input_rows.get() + row * filled<Operand>(p.features));
        });
    }

    // Projects the input for one block of units, and for some rows of a group of steps.
    void project_inputs(int64_t begin, WorkRange units, WorkRange rows, Compute* to) const {
        const int64_t stride = filled<Operand>(p.features), width = pass.gates * units.count() * L;
        const Operand* from = input_fits() ? static_cast<const Operand*>(p.input) + first_in_group(begin) * B * p.features : input_rows.get();
        each_batch(rows.count(), [&](int64_t first, int64_t last) {
            const int64_t row = rows.first + first;
            multiplied.project(units, from + row * stride, stride, last - first, to + row * width);
        });
    }

    // A thread's own data: the arguments of its stage, and the reductions of the rows that it needs.
    struct Own {
        const Loop& loop;
        StageBlock<Compute> given;
        std::vector<Compute> numbers;       // (reductions, B)
        std::vector<int64_t> known;   // for each row, the step and stage up to which its reductions are known
        int64_t step = -1;            // the step of `given`

        explicit Own(const Loop& of) : loop(of), numbers(of.pass.reductions * of.B), known(of.pass.reductions ? of.B : 0, -1) {}

        StageBlock<Compute>& at(int64_t of_step) {
            if (step != of_step) loop.give(given, step = of_step, numbers.data());
            return given;
        }
        void know(int stage, WorkRange rows) {
            if (known.empty()) return;
            const int64_t until = step * MAX_STAGES + stage;
            for (int64_t row = rows.first; row < rows.last; ++row) {
                if (known[row] >= until) continue;
                for (int k = 0; k < loop.pass.reductions; ++k) {
                    const Reduction& one = loop.pass.reduction[k];
                    const int64_t at = step * MAX_STAGES + one.stage;
                    if (at <= known[row] || at > until) continue;
                    numbers[k * loop.B + row] = loop.reduced(k, step, row, one.mean < 0 ? nullptr : &numbers[one.mean * loop.B + row]);
                }
                known[row] = until;
            }
        }
    };
    Compute reduced(int k, int64_t step, int64_t row, const Compute* mean) const {
        const Reduction& r = pass.reduction[k];
        const int64_t units = p.sizes[r.letter];
        if (r.from.where == Where::KEPT) {
            const Compute* from = kept_of(step, r.from.column, row, units);
            return reduce<Compute>(r.how, units, mean, [&](int64_t unit) { return load(from + unit, units - unit); });
        }
        // The values are of each step (TBH), of each sequence (BH), or one row for all (H).
        const int64_t there = r.from.axes == Axes::TBH ? (times.at(index(step)) * B + row) * p.widths[r.from.array] : 0;
        const int64_t place = r.from.axes == Axes::BH ? row * units : there + r.from.column * units;
        const Array<Compute> array(p.arrays[r.from.array], p.is_bfloat16 && !r.from.working);
        return reduce<Compute>(r.how, units, mean, [&](int64_t unit) { return array.load(place + unit, units - unit); });
    }
    // A kept value of a row. If products read it too, it lies in their operand, unless operands have another type.
    const Compute* kept_of(int64_t step, int column, int64_t row, int64_t units) const {
        const Kept& one = pass.keep[column];
        if constexpr (!rounds)
            if (one.operand >= 0) return operand_of(step % 2, one.operand) + row * operand_width[one.operand] + one.block * units;
        return kept_at(step, column) + row * kept_width;
    }
    Compute* kept_at(int64_t step, int64_t array) const { return kept.get() + (pass.keep[array].twice && step % 2 ? pass.kept : 0) * kept_by_array() + array * kept_by_array(); }

    // Sets the arguments that all blocks of a step share. Steps count in the order of the pass. Array entries that the pass
    // does not use are not set.
    void give(StageBlock<Compute>& s, int64_t step, const Compute* numbers) const {
        s.p = &p, s.index = index(step), s.bfloat16_operands = rounds, s.last = step + 1 == p.steps;
        s.kept = kept.get(), s.kept_width = kept_width, s.kept_by_array = kept_by_array();
        for (int ahead = 0; ahead < 2; ++ahead) {
            const int64_t parity = (step + ahead) % 2;
            s.kept_twice[ahead] = kept.get() + parity * pass.kept * kept_by_array();
            for (int k = 0; k < pass.operands; ++k) s.operands[ahead][k] = reinterpret_cast<char*>(operand_of(parity, k));
        }
        for (int k = 0; k < pass.operands; ++k) s.operands_width[k] = operand_width[k];
        s.inputs = nullptr, s.inputs_width = 0, s.numbers = numbers;
        s.next_unit = -1, s.next_vectors = 0, s.next_index = s.index;
    }
    // Sets the arguments of one block of units and some rows.
    void narrow(StageBlock<Compute>& s, int64_t step, WorkRange units, WorkRange rows, int64_t part) const {
        s.row0 = rows.first, s.row1 = rows.last, s.unit = units.first * L, s.vectors = int(units.count());
        s.sums = sums.get() + part * pass.sums * H, s.totals = totals.get() + part * pass.sums * H;
        s.sums_width = H, s.terms = step * rows.count();
    }

    // Runs a letter's first stage of the first step.
    void begin(int letter, WorkRange units, WorkRange rows) const {
        if (!p.steps) return;
        StageBlock<Compute> s;
        give(s, 0, nullptr), narrow(s, 0, units, rows, 0);
        for (int ahead = 0; ahead < 2; ++ahead) {  // a first stage writes to the next step's buffers; here these are step 0's
            s.kept_twice[ahead] = kept.get();
            for (int k = 0; k < pass.operands; ++k) s.operands[ahead][k] = reinterpret_cast<char*>(operand_of(0, k));
        }
        pass.begin[letter](&s);
    }

    void stage(Own& own, int64_t step, int k, int64_t block, WorkRange rows, int64_t part) const {
        alignas(64) Compute products[BATCH * MAX_BLOCKS * L];
        const WorkRange units = all(k).of(block);
        StageBlock<Compute>& s = own.at(step);
        narrow(s, step, units, rows, part);
        if (p.input && !pass.letter[k]) gather_inputs(s, step, k, units, rows);
        int64_t last = rows.last;  // rows after the last one that has not ended need no products
        while (last > rows.first && !times.valid(times.at(s.index), last - 1)) --last;
        Compute* to = products;
        for (int m = 0; m < pass.products; ++m) {
            if (pass.product[m].stage != k) continue;
            const int64_t width = multiplied.columns(m) * units.count() * L, count = last - rows.first;
            s.products[m] = to, s.products_width[m] = width;
            if (count > 0) multiply(m, step, units, rows.first, count, to);
            if (count < rows.count()) std::memset(static_cast<void*>(to + count * width), 0, (rows.count() - count) * width * sizeof(Compute));
            to += rows.count() * width;
        }
        own.know(k, rows);
        const int64_t next = block + (back(step) ? -1 : 1);
        const WorkRange coming = next >= 0 && next < all(k).count ? all(k).of(next) : WorkRange(0, 0, 1);
        s.next_unit = coming.count() ? coming.first * L : -1, s.next_vectors = int(coming.count());
        pass.run[k](&s);
    }

    void multiply(int m, int64_t step, WorkRange units, int64_t row, int64_t count, Compute* to) const {
        const int k = pass.product[m].operand;
        multiplied.multiply(m, units, operand_of(step % 2, k) + row * operand_width[k], operand_width[k], count, to);
    }

    void gather_inputs(StageBlock<Compute>& s, int64_t step, int k, WorkRange units, WorkRange rows) const {
        const int64_t width = pass.gates * units.count() * L;
        Compute* to = inputs.get() + units.first * L * pass.gates * group * B;
        // Projects the whole group with its first step, or without groups each step's own rows.
        if (k == pass.gates_at) {
            if (group > 1 && step % group == 0 && !lots.count) project_inputs(step, units, WorkRange(grouped_rows(step), 0, 1), to);
            for (int64_t place = 0; group > 1 && step % group == 0 && lots.count && place * B < grouped_rows(step); ++place)
                project_inputs(step, units, WorkRange::range(place * B + rows.first, place * B + rows.last), to);
            if (group == 1) project_inputs(step, units, rows, to);
        }
        s.inputs = to + (place_in_group(step) * B + rows.first) * width, s.inputs_width = width;
    }

    void clear_sums(int letter, WorkRange units) const {
        const int64_t size = p.sizes[letter], first = units.first * L, last = units.last * L < size ? units.last * L : size;
        for (int k = 0; k < pass.totals; ++k) {
            if (pass.total[k].letter != letter) continue;
            for (int64_t part = 0; part < parts().count && first < last; ++part) {
                const int64_t place = (part * pass.sums + pass.total[k].sum) * H + first;
                std::memset(static_cast<void*>(sums.get() + place), 0, (last - first) * sizeof(Compute));
                std::memset(static_cast<void*>(totals.get() + place), 0, (last - first) * sizeof(double));
            }
        }
    }
    void end(int letter, WorkRange units) const {
        const int64_t size = p.sizes[letter], first = units.first * L, last = units.last * L < size ? units.last * L : size;
        for (int k = 0; k < pass.totals; ++k) {
            const Total& total = pass.total[k];
            if (total.letter != letter) continue;
            Compute* to = static_cast<Compute*>(const_cast<void*>(p.arrays[total.array]));
            if (!to) continue;
            if (total.units)
                for (int64_t unit = first; unit < last; ++unit) to[total.column * size + unit] = Compute(sum_of(total.sum, unit));
            else if (!first)
                *to = Compute(sum_of_units(total));
        }
    }
    double sum_of(int64_t which, int64_t unit) const {
        double total = 0;
        for (int64_t part = 0; part < parts().count; ++part) {
            const int64_t place = (part * pass.sums + which) * H + unit;
            total += totals.get()[place] + double(sums.get()[place]);
        }
        return total;
    }
    double sum_of_units(const Total& total) const {
        double sum = 0;
        for (int64_t unit = 0; unit < (total.varies ? p.sizes[total.letter] : 1); ++unit) sum += sum_of(total.sum, unit);
        return sum;
    }
};

}  // namespace
}  // namespace seqcells
