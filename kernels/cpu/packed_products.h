// The products of a pass by its weights, one block of units at a time.

#pragma once

#include "arrays.h"
#include "buffer.h"
#include "layer_call.h"
#include "work_sizes.h"

namespace seqcells {
namespace {

// Sums are in Compute, factors in Operand. Weights are packed, each block's together, or read where the caller has them.
template <class Compute, class Operand>
class Products {
    static constexpr int L = LANES<Compute>;
    static constexpr int64_t HEAD = 64;  // bytes before the words in weights packed for other calls: each letter's number of blocks

    const Pass& pass;
    const LayerCall& p;
    std::vector<Blocks> all;  // one for each letter
    Buffer<Word<Operand>> own;
    Word<Operand>* weights[MAX_PRODUCTS + 1] = {};  // packed: for each product, then for the input's projection

  public:
    Products(const Pass& of, const LayerCall& call) : pass(of), p(call) {
        for (int letter = 0; letter < pass.letters; ++letter) all.push_back(Blocks(p.sizes[letter], L, 1));
    }

    const Blocks& blocks(int letter) const { return all[letter]; }
    // Divides the units of each letter into blocks for `members` threads, or as the caller's packed weights are divided.
    void share_among(int64_t members) {
        const auto* cut = static_cast<const int64_t*>(p.packed);
        for (int letter = 0; letter < pass.letters; ++letter)
            all[letter] = cut ? Blocks(p.sizes[letter], L, cut[letter]) : Blocks(p.sizes[letter], L, units(letter), members);
    }
    // Allocates memory for packed weights, if this call packs them. Returns false when memory runs out.
    bool allocate() {
        if (packs()) own = Buffer<Word<Operand>>(layout(nullptr));
        if (!own.there()) return false;
        layout(p.packed ? words_of(p.packed) : own.get());
        return true;
    }
    // Packs one block of units, if this call packs weights.
    void prepare(int letter, int64_t block) const {
        if (packs()) pack_block(letter, all[letter].of(block));
    }

    // Packs weights into `memory` for other calls, with the numbers of blocks; null memory packs nothing. Returns the bytes
    // that they take.
    static int64_t pack(const Pass& of, const LayerCall& call, void* memory) {
        Products products(of, call);
        products.share_among(call.threads);
        const int64_t bytes = HEAD + products.layout(nullptr) * int64_t(sizeof(Word<Operand>));
        if (memory) {
            products.layout(words_of(memory));
            for (int letter = 0; letter < of.letters; ++letter) {
                const Blocks& blocks = products.all[letter];
                static_cast<int64_t*>(memory)[letter] = blocks.count;
                for (int64_t block = 0; block < blocks.count; ++block) products.pack_block(letter, blocks.of(block));
            }
        }
        return bytes;
    }

    // columns: the row blocks of a product's result. depth: the numbers of the operand that one of them sums over.
    int64_t columns(int k) const { return pass.product[k].transposed ? 1 : pass.product[k].blocks; }
    int64_t depth(int k) const { return (pass.product[k].transposed ? pass.product[k].blocks : 1) * span(k); }
    // Multiply-adds for one row, with at most `most` units of each letter.
    int64_t work_of_row(int64_t most = std::numeric_limits<int64_t>::max()) const {
        int64_t work = projects() ? pass.gates * std::min(most, p.sizes[0]) * p.features : 0;
        for (int k = 0; k < pass.products; ++k) work += columns(k) * std::min(most, rows(k)) * depth(k);
        return work;
    }

    int64_t weight_bytes() const { return work_of_row() * int64_t(sizeof(Operand)); }

    // Vectors of units in a block: enough to fill whole panels of row blocks, and to have enough sums for one row.
    int units(int letter) const {
        int most = projects() && !letter ? pass.gates : 1, sum[MAX_STAGES] = {};
        for (int k = 0; k < pass.products; ++k) {
            if (letter_of(k) != letter) continue;
            const int all_of_stage = sum[pass.product[k].stage] += int(columns(k));
            most = columns(k) > most ? int(columns(k)) : most, most = all_of_stage > most ? all_of_stage : most;
        }
        const int wanted = VECTOR_REGISTERS >= 32 ? 8 / most : most > 3 ? 3 : 6 / most;
        return wanted < 1 || wanted * most > MOST ? 1 : wanted;
    }

    bool packed() const { return p.packed || !few(); }

    // Multiplies `rows` rows of an operand, `stride` apart, for a block of units. In each row of the result, its vectors are
    // side by side.
    void multiply(int k, WorkRange units, const Operand* from, int64_t stride, int64_t rows, Compute* to) const {
        const Multiplied& one = pass.product[k];
        if (one.heads > 1)
            multiply_heads(k, units, from, stride, rows, to);
        else if (packed())
            product<Operand>(of_block(k, units, columns(k), depth(k)), int(columns(k) * units.count()), depth(k), from, stride, rows, to);
        else
            unpacked(p.arrays[one.weight], this->rows(k), one.first, one.blocks, operand_size(k), units, from, stride, rows, to);
    }
    // Projects rows of the input to the gates, likewise.
    void project(WorkRange units, const Operand* from, int64_t stride, int64_t rows, Compute* to) const {
        if (packed())
            product<Operand>(of_block(pass.products, units, pass.gates, p.features), int(pass.gates * units.count()), p.features, from, stride, rows, to);
        else
            unpacked(p.weight_ih, p.sizes[0], 0, pass.gates, p.features, units, from, stride, rows, to);
    }

    // Calls f(from), with the caller's array as a pointer to its own type.
    template <class F>
    SEQCELLS_INLINE void in_its_type(const void* from, F f) const {
        if constexpr (std::is_same_v<Compute, float>)
            if (p.is_bfloat16) return f(static_cast<const bfloat16*>(from));
        f(static_cast<const Compute*>(from));
    }

  private:
    // Whether the loop projects the input. The condition does not test p.input, because weights may be packed before an input
    // exists.
    bool projects() const { return p.weight_ih && p.features; }

    // letter_of: the letter of a product's results. rows: the units of that letter. operand_size: the units of the operand's
    // letter.
    int letter_of(int k) const { return pass.letter[pass.product[k].stage]; }
    int64_t rows(int k) const { return p.sizes[letter_of(k)]; }
    int64_t operand_size(int k) const { return p.sizes[pass.operand[pass.product[k].operand].letter]; }

    static Word<Operand>* words_of(const void* packed) {
        return reinterpret_cast<Word<Operand>*>(static_cast<char*>(const_cast<void*>(packed)) + HEAD);
    }

    // Packing reads and writes all weights once. It takes as long as some thirty rows on unpacked weights.
    bool few() const {
        for (int k = 0; k < pass.products; ++k)
            if (pass.product[k].transposed || pass.product[k].heads > 1) return false;
        return p.steps * p.batch <= 32;
    }
    bool packs() const { return !p.packed && !few(); }

    // With several heads, a unit sums only over its own head's part of the depth. span: the depth that the units of one vector
    // need together. begin_of: where that depth begins.
    int64_t units_of_head(int k) const { return operand_size(k) / pass.product[k].heads; }
    int64_t span(int k) const {
        if (pass.product[k].heads == 1) return operand_size(k);
        const int64_t own = units_of_head(k), most = own % L ? own * ((L + own - 2) / own + 1) : own;
        return most < operand_size(k) ? most : operand_size(k);
    }
    int64_t begin_of(int k, int64_t unit) const {
        const int64_t own = units_of_head(k), first = unit / own * own, last = operand_size(k) - span(k);
        return first < last ? first : last;
    }

    // Words that the weights of one lane take. With several heads, the depth of each row block is filled up to whole words.
    int64_t words_of_lane(int k) const {
        return pass.product[k].heads > 1 ? pass.product[k].blocks * words<Operand>(span(k)) : columns(k) * words<Operand>(depth(k));
    }

    // Places the packed weights from `at` on; null places nothing. Returns the words that they take.
    int64_t layout(Word<Operand>* at) {
        int64_t taken = 0;
        for (int k = 0; k <= pass.products; ++k) {
            if (at) weights[k] = at + taken;
            if (k < pass.products)
                taken += all[letter_of(k)].vectors * L * words_of_lane(k);
            else if (projects())
                taken += pass.gates * all[0].vectors * L * words<Operand>(p.features);
        }
        return taken;
    }
    Word<Operand>* of_block(int k, WorkRange units, int64_t blocks, int64_t depth) const { return weights[k] + blocks * units.first * L * words<Operand>(depth); }

    // Packs row blocks of a weight, each of `rows` units, from the row block `first` on.
    void pack_rows(const void* weight, int64_t rows, int64_t first, int64_t blocks, int64_t depth, WorkRange units, Word<Operand>* to) const {
        const int vectors = int(blocks * units.count());
        for (int n = 0; n < vectors; ++n) {
            const int64_t unit = (units.first + n % units.count()) * L, block = first + n / units.count();
            int64_t width;
            Word<Operand>* column = place<Operand>(to, vectors, depth, n, width);
            in_its_type(weight, [&](const auto* from) { seqcells::pack<Operand>(from + (block * rows + unit) * depth, 1, depth, depth, rows - unit, column, width); });
        }
    }
    // Packs columns of a weight that is transposed, with `columns` columns, from its row `first` on.
    void pack_columns(const void* weight, int64_t columns, int64_t first, int64_t depth, WorkRange units, Word<Operand>* to) const {
        for (int n = 0; n < units.count(); ++n) {
            const int64_t unit = (units.first + n) * L;
            int64_t width;
            Word<Operand>* column = place<Operand>(to, int(units.count()), depth, n, width);
            in_its_type(weight, [&](const auto* from) { seqcells::pack<Operand>(from + first * columns + unit, columns, 1, depth, columns - unit, column, width); });
        }
    }
    // Weights of several heads lie vector by vector, and in each vector row block by row block. They are zero where the depth
    // belongs to another head than the unit.
    Word<Operand>* of_vector(int k, int64_t vector, int64_t block) const {
        return weights[k] + (vector * pass.product[k].blocks + block) * words<Operand>(span(k)) * L;
    }
    void pack_heads(int k, WorkRange units) const {
        constexpr int G = NUMBERS<Operand>;
        const Multiplied& m = pass.product[k];
        const int64_t own = units_of_head(k), H = operand_size(k);
        const Array<Compute> weight(p.arrays[m.weight], p.is_bfloat16);
        for (int64_t vector = units.first; vector < units.last; ++vector)
            for (int block = 0; block < m.blocks; ++block) {
                const int64_t begin = begin_of(k, vector * L), first = (m.first + block) * H;
                Word<Operand>* to = of_vector(k, vector, block);
                std::memset(to, 0, words<Operand>(span(k)) * L * sizeof *to);
                for (int64_t unit = vector * L, lane = 0; lane < L && unit < H; ++lane, ++unit)
                    for (int64_t n = 0, head = unit / own * own; n < own; ++n) {
                        const int64_t place = m.transposed ? (first + head + n) * own + unit - head : (first + unit) * own + n;
                        const int64_t depth = head - begin + n;
                        const Operand value(weight[place]);
                        std::memcpy(reinterpret_cast<Operand*>(to + depth / G * L + lane) + depth % G, &value, sizeof value);
                    }
            }
    }
    void pack_block(int letter, WorkRange units) const {
        for (int k = 0; k < pass.products; ++k) {
            if (letter_of(k) != letter) continue;
            const Multiplied& m = pass.product[k];
            Word<Operand>* to = of_block(k, units, columns(k), depth(k));
            if (m.heads > 1)
                pack_heads(k, units);
            else if (m.transposed)
                pack_columns(p.arrays[m.weight], rows(k), m.first * operand_size(k), depth(k), units, to);
            else
                pack_rows(p.arrays[m.weight], rows(k), m.first, m.blocks, operand_size(k), units, to);
        }
        if (projects() && !letter) pack_rows(p.weight_ih, p.sizes[0], 0, pass.gates, p.features, units, of_block(pass.products, units, pass.gates, p.features));
    }


    void multiply_heads(int k, WorkRange units, const Operand* from, int64_t stride, int64_t count, Compute* to) const {
        alignas(64) Compute part[BATCH * L];
        const Multiplied& m = pass.product[k];
        const int64_t width = columns(k) * units.count() * L;
        for (int64_t n = 0; n < units.count(); ++n)
            for (int block = 0; block < m.blocks; ++block) {
                const int64_t vector = units.first + n, begin = begin_of(k, vector * L);
                const Operand* operand = from + (m.transposed ? block * operand_size(k) : 0) + begin;
                product<Operand>(of_vector(k, vector, block), 1, span(k), operand, stride, count, part);
                Compute* out = to + ((m.transposed ? 0 : block) * units.count() + n) * L;
                for (int64_t row = 0; row < count; ++row) {
                    const Vector<Compute> value = load(part + row * L);
                    store(out + row * width, m.transposed && block ? load(out + row * width) + value : value);
                }
            }
    }

    void unpacked(const void* weight, int64_t size, int64_t first, int64_t blocks, int64_t depth, WorkRange units, const Operand* a, int64_t stride, int64_t rows, Compute* out) const {
        const int64_t width = blocks * units.count() * L;
        in_its_type(weight, [&](const auto* from) {
            for (int64_t n = 0; n < blocks * units.count(); ++n) {
                const int64_t unit = (units.first + n % units.count()) * L, block = first + n / units.count();
                gemv<Operand>(from + (block * size + unit) * depth, size - unit, depth, a, stride, rows, out + n * L, width);
            }
        });
    }
};

}  // namespace
}  // namespace seqcells
