// A pass of a cell over time, forward or backward.
//
// Each item is a block of hidden units and some rows: in each stage what is gathered for them, and the elementwise part.
// When all are done, what the next stage gathers is complete.

#pragma once

#include <vector>

#include "buffer.h"
#include "stage.h"
#include "team.h"
#include "work.h"

namespace seqcells {
namespace {

// Vectors of what is gathered for a block at most.
constexpr int64_t MOST_BLOCKS = 16;

// Computed in T, by products of O.
template <class T, class O = T>
class Loop {
    static constexpr int L = LANES<T>;
    static constexpr bool rounds = !std::is_same_v<T, O>;  // whether products read a rounded copy

    const Pass& pass;
    const Call& p;
    const Times times;
    const int64_t B, H;
    const unsigned turn = passes.fetch_add(1, std::memory_order_relaxed);
    const int64_t group;  // steps whose inputs are projected together
    Blocks all;
    Parts lots;           // of the rows, where threads share out rows and not units; else none
    Buffer<Word<O>> packed_;
    Buffer<T> kept, inputs, sums;
    Buffer<double> totals;
    Buffer<O> operands, input_rows;
    Word<O>* weights[MAX_PRODUCTS + 1] = {};  // packed: of each product, and of the input's
    int64_t kept_width, operand_width[MAX_PRODUCTS], operands_before[MAX_PRODUCTS + 1] = {};  // asked for with every block

  public:
    Loop(const Pass& of, const Call& call)
        : pass(of), p(call), times{p}, B(p.batch), H(p.hidden),
          group(B < BATCH ? BATCH / (B ? B : 1) : 1), all(H, L, 1), lots(0, 1), kept_width(padded<T>(all.vectors * L)) {
        for (int k = 0; k < pass.operands; ++k) {
            operand_width[k] = padded<O>(pass.operand[k].blocks * H);
            operands_before[k + 1] = operands_before[k] + B * operand_width[k];
        }
    }

    int64_t threads() const {
        const int64_t work = B * (work_of_row(all.vectors * L) + 8 * H), most = 1 + work / (p.steps > 1 ? 16384 : 147456);
        const int64_t count = p.threads < most ? p.threads : most;
        return count < all.vectors ? count : all.vectors;
    }

    // Cuts the blocks for so many threads, or as packed weights are.
    void share_among(int64_t members) {
        const auto* cut = static_cast<const int64_t*>(p.packed);
        all = cut ? Blocks(H, L, cut[0]) : Blocks(H, L, units(), members);
        // Rows need not meet. Where they are tiles for each thread, and its cache holds all weights, they are shared out.
        const int64_t bytes = weight_bytes(), each = B / members;
        if (members > 1 && !pass.sums && each >= 4 && bytes <= cache_bytes() && packed() && (!p.input || input_fits()))
            lots = Parts(B, each >= 8 ? (each + 1) / 2 : each);
    }

    bool allocate() {
        const int64_t width = all.vectors * L;
        if (packs()) packed_ = Buffer<Word<O>>(layout(nullptr));
        if (p.input && !input_fits()) input_rows = Buffer<O>(group * B * filled<O>(p.features));
        if (p.input) inputs = Buffer<T>(group * B * pass.gates * width);
        kept = Buffer<T>(2 * pass.kept * kept_by_array());
        operands = Buffer<O>(2 * operands_before[pass.operands]);
        sums = Buffer<T>(parts().count * pass.sums * H), totals = Buffer<double>(parts().count * pass.sums * H);
        if (!(packed_.there() && kept.there() && inputs.there() && operands.there() && input_rows.there() && sums.there() && totals.there()))
            return false;
        layout(p.packed ? words_of(p.packed) : packed_.get());
        for (int k = 0; k < pass.operands && rounds; ++k)
            for (int64_t row = 0; row < 2 * B; ++row)
                for (int64_t c = pass.operand[k].blocks * H; c < filled<O>(pass.operand[k].blocks * H); ++c)
                    operand_of(row / B, k)[row % B * operand_width[k] + c] = O(0);
        return true;
    }

    void run(Member& member) {
        Numbers numbers(*this);
        member.each(all.count, false, [&](int64_t block) {
            if (packs()) pack_block(all.of(block));
            clear_sums(all.of(block));
            begin(block, Share(B, 0, 1));
        });
        const Parts parts = this->parts();
        const int64_t items = all.count * parts.count;
        if (lots.count || !gathers()) {
            // For some steps at a time, so that no item is long, and threads that are late may be helped.
            const int64_t count = lots.count ? lots.count : items;
            const int64_t work = work_of_row(H) * (lots.count ? lots.of(0).count() : 1), window = gathers() ? 1 + ITEM / (work + 1) : p.steps;
            for (int64_t first = 0; first < p.steps; first += window) {
                const int64_t last = first + window < p.steps ? first + window : p.steps;
                member.each(count, false, [&](int64_t item) {
                    for (int64_t step = first; step < last; ++step)
                        for (int k = 1; k < pass.stages; ++k)
                            if (lots.count)
                                for (int64_t n = 0; n < all.count; ++n)
                                    each_batch(lots.of(item).count(), [&](int64_t from, int64_t to) {
                                        const Share rows = Share::range(lots.of(item).first + from, lots.of(item).first + to);
                                        stage(numbers, step, k, back(step) ? all.count - 1 - n : n, rows, 0);
                                    });
                            else
                                stage(numbers, step, k, item / parts.count, parts.of(item % parts.count), item % parts.count);
                });
            }
        } else {
            for (int64_t step = 0; step < p.steps; ++step) {
                if (p.input && !input_fits() && step % group == 0)
                    member.each(Parts(grouped_rows(step), BATCH).count, false, [&](int64_t part) { align_inputs(step, part); });
                for (int k = 1; k < pass.stages; ++k)
                    member.each(items, back(step), [&](int64_t item) { stage(numbers, step, k, item / parts.count, parts.of(item % parts.count), item % parts.count); });
            }
        }
        member.each(all.count, false, [&](int64_t block) { end(all.of(block)); });
    }

    // The weights packed into memory for other calls, with how they are cut; returns how many bytes they take.
    static int64_t pack(const Pass& of, const Call& call, void* memory) {
        Loop loop(of, call);
        loop.share_among(call.threads);
        const int64_t bytes = HEAD + loop.layout(nullptr) * int64_t(sizeof(Word<O>));
        if (memory) {
            static_cast<int64_t*>(memory)[0] = loop.all.count;
            loop.layout(words_of(memory));
            for (int64_t block = 0; block < loop.all.count; ++block) loop.pack_block(loop.all.of(block));
        }
        return bytes;
    }

    int64_t weight_bytes() const {
        int64_t count = p.input ? pass.gates * p.features : 0;
        for (int k = 0; k < pass.products; ++k) count += depth(k) * columns(k);
        return count * H * int64_t(sizeof(O));
    }

  private:
    static constexpr int64_t HEAD = 64;  // bytes before the words of packed memory: the number of blocks

    static Word<O>* words_of(const void* packed) {
        return reinterpret_cast<Word<O>*>(static_cast<char*>(const_cast<void*>(packed)) + HEAD);
    }

    bool gathers() const { return pass.products || pass.reductions; }
    // Shares go to and fro from step to step: each begins with the weights that the one before has left in the cache. No
    // result depends on the order.
    bool back(int64_t step) const { return (step + turn) % 2; }
    // The step in the order of travel.
    int64_t index(int64_t step) const { return pass.by > 0 ? step : p.steps - 1 - step; }

    // Row blocks of a product's result, and what of the depth each takes.
    int64_t columns(int k) const { return pass.product[k].transposed ? 1 : pass.product[k].blocks; }
    int64_t depth(int k) const { return (pass.product[k].transposed ? pass.product[k].blocks : 1) * span(k); }
    // Of several heads each unit has its own's part of the depth: what those of a vector have together, and where that begins.
    int64_t units_of_head(int k) const { return H / pass.product[k].heads; }
    int64_t span(int k) const {
        const int64_t own = units_of_head(k), most = own % L ? own * ((L + own - 2) / own + 1) : own;
        return most < H ? most : H;
    }
    int64_t begin_of(int k, int64_t unit) const {
        const int64_t own = units_of_head(k), first = unit / own * own, last = H - span(k);
        return first < last ? first : last;
    }
    int64_t work_of_row(int64_t width) const {
        int64_t work = p.input ? pass.gates * width * p.features : 0;
        for (int k = 0; k < pass.products; ++k) work += columns(k) * width * depth(k);
        return work;
    }

    // Vectors of units of a block: so many that its row blocks are whole panels, and enough sums for one row.
    int units() const {
        int most = p.input ? pass.gates : 1, sum[MAX_STAGES] = {};
        for (int k = 0; k < pass.products; ++k) {
            const int all_of_stage = sum[pass.product[k].stage] += int(columns(k));
            most = columns(k) > most ? int(columns(k)) : most, most = all_of_stage > most ? all_of_stage : most;
        }
        const int wanted = VECTOR_REGISTERS >= 32 ? 8 / most : most > 3 ? 3 : 6 / most;
        return wanted < 1 || wanted * most > MOST ? 1 : wanted;
    }

    // The rows in parts of which none is long. Steps that are projected together have few rows.
    Parts parts() const {
        if (group > 1) return Parts(B, BATCH);
        const int64_t work = work_of_row(units() * L), rows = ITEM / (work ? work : 1);
        return Parts(B, rows < 16 ? 16 : rows < BATCH ? rows : BATCH);
    }

    // From row to row of the engine's own arrays: whole cache lines, for two threads at one line wait for each other, and no
    // power of two of them, for then all rows would share a few places of the first-level cache.
    template <class U>
    static int64_t padded(int64_t count) {
        constexpr int64_t line = 64 / sizeof(U);
        const int64_t whole = (count + line - 1) / line * line;
        return whole % (8 * line) ? whole : whole + line;
    }
    int64_t kept_by_array() const { return B * kept_width; }
    O* operand_of(int64_t parity, int k) const {
        return operands.get() + 2 * operands_before[k] + (pass.operand[k].twice ? parity : 0) * B * operand_width[k];
    }

    // Packing reads and writes all weights once: as long as some thirty rows take on weights as they lie.
    bool few() const {
        for (int k = 0; k < pass.products; ++k)
            if (pass.product[k].transposed || pass.product[k].heads > 1) return false;
        return p.steps * B <= 32;
    }
    bool packs() const { return !p.packed && !few(); }
    bool packed() const { return p.packed || !few(); }

    // Where packed weights lie from `at` on; returns how many words they take.
    int64_t layout(Word<O>* at) {
        const int64_t width = all.vectors * L;
        int64_t taken = 0;
        for (int k = 0; k <= pass.products; ++k) {
            if (at) weights[k] = at + taken;
            if (k < pass.products)
                taken += columns(k) * width * words<O>(depth(k));
            else if (p.input)
                taken += pass.gates * width * words<O>(p.features);
        }
        return taken;
    }
    Word<O>* of_block(int k, Share units, int64_t blocks, int64_t depth) const { return weights[k] + blocks * units.first * L * words<O>(depth); }

    // f(from) with the caller's array in the type that it is of.
    template <class F>
    SEQCELLS_INLINE void in_its_type(const void* from, F f) const {
        if constexpr (std::is_same_v<T, float>)
            if (p.halves) return f(static_cast<const bfloat16*>(from));
        f(static_cast<const T*>(from));
    }

    void pack_rows(const void* weight, int64_t first, int64_t blocks, int64_t depth, Share units, Word<O>* to) const {
        const int vectors = int(blocks * units.count());
        for (int n = 0; n < vectors; ++n) {
            const int64_t unit = (units.first + n % units.count()) * L, block = first + n / units.count();
            int64_t width;
            Word<O>* column = place<O>(to, vectors, depth, n, width);
            in_its_type(weight, [&](const auto* from) { seqcells::pack<O>(from + (block * H + unit) * depth, 1, depth, depth, H - unit, column, width); });
        }
    }
    void pack_columns(const void* weight, int64_t first, int64_t depth, Share units, Word<O>* to) const {
        for (int n = 0; n < units.count(); ++n) {
            const int64_t unit = (units.first + n) * L;
            int64_t width;
            Word<O>* column = place<O>(to, int(units.count()), depth, n, width);
            in_its_type(weight, [&](const auto* from) { seqcells::pack<O>(from + first * H * H + unit, H, 1, depth, H - unit, column, width); });
        }
    }
    void pack_block(Share units) const {
        for (int k = 0; k < pass.products; ++k) {
            const Multiplied& m = pass.product[k];
            Word<O>* to = of_block(k, units, columns(k), depth(k));
            if (m.heads > 1)
                pack_heads(k, units);
            else if (m.transposed)
                pack_columns(p.arrays[m.weight], m.first, depth(k), units, to);
            else
                pack_rows(p.arrays[m.weight], m.first, m.blocks, H, units, to);
        }
        if (p.input) pack_rows(p.weight_ih, 0, pass.gates, p.features, units, of_block(pass.products, units, pass.gates, p.features));
    }

    // Vector by vector and row block by row block; a depth that is not of a unit's head has zeros.
    Word<O>* of_vector(int k, int64_t vector, int64_t block) const {
        return weights[k] + (vector * pass.product[k].blocks + block) * words<O>(span(k)) * L;
    }
    void pack_heads(int k, Share units) const {
        const Multiplied& m = pass.product[k];
        const int64_t own = units_of_head(k), wide = span(k);
        Buffer<T> rows(L * wide);
        for (int64_t vector = units.first; vector < units.last; ++vector)
            for (int block = 0; block < m.blocks; ++block) {
                const int64_t begin = begin_of(k, vector * L), first = (m.first + block) * H;
                for (int64_t n = 0; n < L * wide; ++n) rows.get()[n] = T(0);
                const Array<T> weight(p.arrays[m.weight], p.halves);
                for (int64_t unit = vector * L, lane = 0; lane < L && unit < H; ++lane, ++unit)
                    for (int64_t n = 0, head = unit / own * own; n < own; ++n) {
                        const int64_t place = m.transposed ? (first + head + n) * own + unit - head : (first + unit) * own + n;
                        rows.get()[lane * wide + head - begin + n] = weight[place];
                    }
                seqcells::pack<O>(rows.get(), 1, wide, wide, L, of_vector(k, vector, block), L);
            }
    }
    void multiply_heads(int k, Share units, const O* from, int64_t stride, int64_t count, T* to) const {
        alignas(64) T part[BATCH * L];
        const Multiplied& m = pass.product[k];
        const int64_t width = columns(k) * units.count() * L;
        for (int64_t n = 0; n < units.count(); ++n)
            for (int block = 0; block < m.blocks; ++block) {
                const int64_t vector = units.first + n, begin = begin_of(k, vector * L);
                const O* operand = from + (m.transposed ? block * H : 0) + begin;
                product<O>(of_vector(k, vector, block), 1, span(k), operand, stride, count, part);
                T* out = to + ((m.transposed ? 0 : block) * units.count() + n) * L;
                for (int64_t row = 0; row < count; ++row) {
                    const Vector<T> value = load(part + row * L);
                    store(out + row * width, m.transposed && block ? load(out + row * width) + value : value);
                }
            }
    }

    // Whether the product can read the input where it lies.
    bool input_fits() const { return sizeof(O) == (p.halves ? sizeof(bfloat16) : sizeof(T)) && filled<O>(p.features) == p.features; }
    // Of the steps that are projected with step `step`: where it is among them in time, and the first in time.
    int64_t place_in_group(int64_t step) const { return times.at(step) - first_in_group(step - step % group); }
    int64_t first_in_group(int64_t begin) const {
        return p.reverse ? times.at(begin + group < p.steps ? begin + group - 1 : p.steps - 1) : begin;
    }
    // Of the steps that are projected with step `begin`, which come next.
    int64_t grouped_rows(int64_t begin) const { return (group < p.steps - begin ? group : p.steps - begin) * B; }

    void align_inputs(int64_t begin, int64_t part) const {
        const Share rows = Parts(grouped_rows(begin), BATCH).of(part);
        in_its_type(p.input, [&](const auto* from) {
            from += first_in_group(begin) * B * p.features;
            for (int64_t row = rows.first; row < rows.last; ++row)
                align(from + row * p.features, p.features, input_rows.get() + row * filled<O>(p.features));
        });
    }

    // The input's products of a block, for some rows of the steps that are projected together.
    void project_inputs(int64_t begin, Share units, Share rows, T* to) const {
        const int64_t stride = filled<O>(p.features), width = pass.gates * units.count() * L;
        const O* from = input_fits() ? static_cast<const O*>(p.input) + first_in_group(begin) * B * p.features : input_rows.get();
        each_batch(rows.count(), [&](int64_t first, int64_t last) {
            const int64_t row = rows.first + first;
            if (packed())
                product<O>(of_block(pass.products, units, pass.gates, p.features), int(pass.gates * units.count()), p.features,
                           from + row * stride, stride, last - first, to + row * width);
            else
                unpacked(p.weight_ih, 0, pass.gates, p.features, units, from + row * stride, stride, last - first, to + row * width);
        });
    }

    void unpacked(const void* weight, int64_t first, int64_t blocks, int64_t depth, Share units, const O* a, int64_t stride, int64_t rows, T* out) const {
        const int64_t width = blocks * units.count() * L;
        in_its_type(weight, [&](const auto* from) {
            for (int64_t n = 0; n < blocks * units.count(); ++n) {
                const int64_t unit = (units.first + n % units.count()) * L, block = first + n / units.count();
                dots<O>(from + (block * H + unit) * depth, H - unit, depth, a, stride, rows, out + n * L, width);
            }
        });
    }

    // What has been reduced, for the thread that asks: each computes for itself what it needs.
    struct Numbers {
        const Loop& loop;
        std::vector<T> values;        // (reductions, B)
        std::vector<int64_t> known;   // of each row up to which stage of which step

        explicit Numbers(const Loop& of) : loop(of), values(of.pass.reductions * of.B), known(of.pass.reductions ? of.B : 0, -1) {}

        void know(int64_t step, int stage, Share rows) {
            if (known.empty()) return;
            const int64_t until = step * MAX_STAGES + stage;
            for (int64_t row = rows.first; row < rows.last; ++row) {
                if (known[row] >= until) continue;
                for (int k = 0; k < loop.pass.reductions; ++k) {
                    const int64_t at = step * MAX_STAGES + loop.pass.reduction[k].stage;
                    if (at > known[row] && at <= until) values[k * loop.B + row] = loop.reduced(k, step, row);
                }
                known[row] = until;
            }
        }
    };
    T reduced(int k, int64_t step, int64_t row) const {
        const Reduction& r = pass.reduction[k];
        if (r.from.where == Where::KEPT) {
            const T* from = kept_at(step, r.from.column) + row * kept_width;
            return reduce(r.how, [&](int64_t unit) { return load(from + unit); });
        }
        const int64_t place = (times.at(index(step)) * B + row) * p.widths[r.from.array] + r.from.column * H;
        const Array<T> array(p.arrays[r.from.array], p.halves && !r.from.working);
        return reduce(r.how, [&](int64_t unit) { return array.load(place + unit, H - unit); });
    }
    // Of all units, in their order, whoever asks: lane by lane, and the lanes in float64.
    template <class F>
    T reduce(Reduced how, F at) const {
        const auto sum = [&](auto f) {
            Vector<T> lanes{};
            double total = 0;
            const int64_t whole = H / L * L;
            for (int64_t unit = 0; unit < whole; unit += L) lanes += f(at(unit));
            for (int lane = 0; lane < L; ++lane) total += lanes[lane];
            const Vector<T> rest = whole < H ? f(at(whole)) : lanes;
            for (int64_t lane = 0; lane < H - whole; ++lane) total += rest[lane];
            return total;
        };
        const auto largest = [&] {
            T most = -std::numeric_limits<T>::infinity();
            for (int64_t unit = 0; unit < H; unit += L) {
                const Vector<T> value = at(unit);
                for (int64_t lane = 0; lane < L && unit + lane < H; ++lane) most = value[lane] > most || value[lane] != value[lane] ? value[lane] : most;
            }
            return most;
        };
        const auto as_it_is = [](Vector<T> value) { return value; };
        switch (how) {
            case Reduced::SUM: return T(sum(as_it_is));
            case Reduced::MEAN: return T(sum(as_it_is) / double(H));
            case Reduced::MAX: return largest();
            case Reduced::VARIANCE: {
                const T mean = T(sum(as_it_is) / double(H));
                return T(sum([mean](Vector<T> value) { return (value - mean) * (value - mean); }) / double(H));
            }
            default: {
                const T most = largest();
                return T(std::log(sum([most](Vector<T> value) { return exp(value - most); }))) + most;
            }
        }
    }
    T* kept_at(int64_t step, int64_t array) const { return kept.get() + (pass.keep[array].twice && step % 2 ? pass.kept : 0) * kept_by_array() + array * kept_by_array(); }

    // What a stage is given, of a step in the order of the pass.
    Stage<T> stage_of(int64_t step, int64_t block, Share rows, int64_t part) const {
        const Share units = all.of(block);
        Stage<T> s;  // of its arrays only what the pass has is set
        s.p = &p, s.index = index(step), s.row0 = rows.first, s.row1 = rows.last, s.pairs = rounds, s.last = step + 1 == p.steps;
        s.unit = units.first * L, s.vectors = int(units.count());
        s.kept = kept.get(), s.kept_width = kept_width, s.kept_by_array = kept_by_array();
        for (int ahead = 0; ahead < 2; ++ahead) {
            const int64_t parity = (step + ahead) % 2;
            s.kept_twice[ahead] = kept.get() + parity * pass.kept * kept_by_array();
            for (int k = 0; k < pass.operands; ++k) s.operands[ahead][k] = reinterpret_cast<char*>(operand_of(parity, k));
        }
        for (int k = 0; k < pass.operands; ++k) s.operands_width[k] = operand_width[k];
        s.sums = sums.get() + part * pass.sums * H, s.totals = totals.get() + part * pass.sums * H;
        s.terms = step * rows.count();
        s.inputs = nullptr, s.inputs_width = 0, s.numbers = nullptr;
        s.next_unit = -1, s.next_vectors = 0, s.next_index = s.index;
        return s;
    }

    // The first stage of the first step.
    void begin(int64_t block, Share rows) const {
        if (!p.steps) return;
        Stage<T> s = stage_of(0, block, rows, 0);
        for (int ahead = 0; ahead < 2; ++ahead) {  // it is the next of one that is not there
            s.kept_twice[ahead] = kept.get();
            for (int k = 0; k < pass.operands; ++k) s.operands[ahead][k] = reinterpret_cast<char*>(operand_of(0, k));
        }
        pass.begin(&s);
    }

    void stage(Numbers& numbers, int64_t step, int k, int64_t block, Share rows, int64_t part) const {
        alignas(64) T products[BATCH * MOST_BLOCKS * L];
        const Share units = all.of(block);
        Stage<T> s = stage_of(step, block, rows, part);
        if (p.input) gather_inputs(s, step, k, units, rows);
        int64_t last = rows.last;  // what lies behind the last row that has not ended needs no products
        while (last > rows.first && !times.valid(times.at(s.index), last - 1)) --last;
        T* to = products;
        for (int m = 0; m < pass.products; ++m) {
            if (pass.product[m].stage != k) continue;
            const int64_t width = columns(m) * units.count() * L, count = last - rows.first;
            s.products[m] = to, s.products_width[m] = width;
            if (count > 0) multiply(m, step, units, rows.first, count, to);
            if (count < rows.count()) std::memset(static_cast<void*>(to + count * width), 0, (rows.count() - count) * width * sizeof(T));
            to += rows.count() * width;
        }
        numbers.know(step, k, rows);
        s.numbers = numbers.values.data();
        const int64_t next = block + (back(step) ? -1 : 1);
        if (next >= 0 && next < all.count) s.next_unit = all.of(next).first * L, s.next_vectors = int(all.of(next).count());
        pass.run[k](&s);
    }

    void gather_inputs(Stage<T>& s, int64_t step, int k, Share units, Share rows) const {
        const int64_t width = pass.gates * units.count() * L;
        T* to = inputs.get() + units.first * L * pass.gates * group * B;
        // The rows of the whole group with its first step, or each step's own.
        if (k == 1) {
            if (group > 1 && step % group == 0 && !lots.count) project_inputs(step, units, Share(grouped_rows(step), 0, 1), to);
            for (int64_t place = 0; group > 1 && step % group == 0 && lots.count && place * B < grouped_rows(step); ++place)
                project_inputs(step, units, Share::range(place * B + rows.first, place * B + rows.last), to);
            if (group == 1) project_inputs(step, units, rows, to);
        }
        s.inputs = to + (place_in_group(step) * B + rows.first) * width, s.inputs_width = width;
    }

    void multiply(int m, int64_t step, Share units, int64_t row, int64_t count, T* to) const {
        const Multiplied& one = pass.product[m];
        const O* from = operand_of(step % 2, one.operand) + row * operand_width[one.operand];
        if (one.heads > 1)
            multiply_heads(m, units, from, operand_width[one.operand], count, to);
        else if (packed())
            product<O>(of_block(m, units, columns(m), depth(m)), int(columns(m) * units.count()), depth(m), from, operand_width[one.operand], count, to);
        else
            unpacked(p.arrays[one.weight], one.first, one.blocks, H, units, from, operand_width[one.operand], count, to);
    }

    void clear_sums(Share units) const {
        const int64_t first = units.first * L, last = units.last * L < H ? units.last * L : H;
        for (int64_t k = 0; k < parts().count * pass.sums && first < last; ++k) {
            std::memset(static_cast<void*>(sums.get() + k * H + first), 0, (last - first) * sizeof(T));
            std::memset(static_cast<void*>(totals.get() + k * H + first), 0, (last - first) * sizeof(double));
        }
    }
    void end(Share units) const {
        const int64_t first = units.first * L, last = units.last * L < H ? units.last * L : H;
        for (int k = 0; k < pass.totals; ++k) {
            const Total& total = pass.total[k];
            T* to = static_cast<T*>(const_cast<void*>(p.arrays[total.array]));
            if (!to) continue;
            if (total.units)
                for (int64_t unit = first; unit < last; ++unit) to[total.column * H + unit] = T(sum_of(total.sum, unit));
            else if (!first)
                *to = T(sum_of_units(total));
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
        for (int64_t unit = 0; unit < (total.varies ? H : 1); ++unit) sum += sum_of(total.sum, unit);
        return sum;
    }
};

template <class Program, class T, int... K>
constexpr Pass pass_of(std::integer_sequence<int, K...>) {
    return {Program::stages, int(Program::names.size()), int(Program::keep.size()), int(Program::operands.size()), int(Program::products.size()),
            int(Program::reductions.size()), Program::sums, int(Program::totals.size()), Program::by, Program::gates,
            Program::names.data(), Program::keep.data(), Program::operands.data(), Program::products.data(), Program::reductions.data(), Program::totals.data(),
            {nullptr, run_stage<Program, K + 1, T>...}, run_stage<Program, 0, T, true>};
}
template <class Program, class T>
constexpr Pass pass_of() {
    return pass_of<Program, T>(std::make_integer_sequence<int, Program::stages - 1>{});
}

}  // namespace
}  // namespace seqcells
