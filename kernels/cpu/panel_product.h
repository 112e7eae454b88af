// The recurrent product, [rows × depth] · [depth × columns], on packed weights.
//
// Packed weights are panels: a few vectors of columns, stored depth after depth, so that a panel is one stream of memory. A
// tile of rows × one panel keeps its sums in registers. The sum for each row and column has a fixed order. The order does not
// depend on the tile, the number of threads or the other rows. Only the matrix unit (AMX), which takes four rows or more, has
// an order of its own.

#pragma once

#include "pass_description.h"
#include "ranges.h"
#include "amx.h"

namespace seqcells {
namespace {

// Most vectors in a block, which is a few panels that are used together.
constexpr int MOST = MAX_ROWS;
// Most vectors in a panel. With few registers it is three: four rows of three vectors are the most sums that fit, and need the
// fewest reads a sum.
constexpr int WIDEST = VECTOR_REGISTERS >= 32 ? 4 : 3;
// Most rows in a tile: as many sums as registers hold, besides one vector of values and V vectors of weights.
constexpr int tallest(int V) { return (VECTOR_REGISTERS - V - 1) / V < 8 ? (VECTOR_REGISTERS - V - 1) / V : 8; }
constexpr int TALL[] = {1, tallest(1), tallest(2), tallest(3), tallest(4)};
// Most rows that are multiplied together. Where registers are few, the first-level cache is small, and holds one chain of so
// many rows beside the chain's weights.
constexpr int64_t BATCH = VECTOR_REGISTERS >= 32 ? 48 : 24;
// Words of the depth that are summed in one chain. The rounding error grows with the length of a chain and with the number of
// chains, not with their product. The weights of one chain also stay in the first-level cache for all rows.
constexpr int64_t TERMS = 128;
// Words of the depth that the matrix unit takes before it stores its sums and loads them again.
constexpr int64_t TILED = 128;

// Divides `all` rows or vectors into the fewest pieces of at most `most`; the first pieces are longer by one where needed.
// `WorkRange` is not used here: its divisions take as long as a small tile.
struct Pieces {
    int count, length, longer;

    constexpr Pieces(int all, int most) : count((all + most - 1) / most), length(count ? all / count : 0), longer(all - length * count) {}
    constexpr int at(int piece) const { return length + (piece < longer); }
};

// out[M][V vectors] (+)= a[M][depth] · w[depth][V vectors], in chains of `chain` words.
template <class Operand, int M, int V>
void tile(const Word<Operand>* w, int64_t depth, int64_t chain, const Operand* a, int64_t stride, Sum<Operand>* out, int64_t out_stride, bool add) {
    using S = Vector<Sum<Operand>>;
    using W = Vector<Word<Operand>>;
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>;
    do {
        const int64_t here = depth < chain ? depth : chain;
        S sum[M][V];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[m][v] = S{};
        for (int64_t k = 0; k < here; ++k, w += V * L) {
            W column[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) column[v] = load(w + v * L);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
                const W value = broadcast(a + m * stride + k * G);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sum[m][v] = multiply_add<Operand>(value, column[v], sum[m][v]);
            }
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                Sum<Operand>* to = out + m * out_stride + v * L;
                store(to, add ? load(to) + sum[m][v] : sum[m][v]);
            }
        a += here * G, depth -= here, add = true;
    } while (depth > 0);
}

// The function `tile` for each number of rows and vectors; null where there are too few registers.
template <class Operand>
struct Tiles {
    using Tile = void (*)(const Word<Operand>*, int64_t, int64_t, const Operand*, int64_t, Sum<Operand>*, int64_t, bool);
    Tile of[8][WIDEST]{};

    template <int M, int V>
    static constexpr Tile one() {
        if constexpr (M <= tallest(V))
            return tile<Operand, M, V>;
        else
            return nullptr;
    }
    template <int V, size_t... M>
    constexpr void fill(std::index_sequence<M...>) {
        ((of[M][V - 1] = one<int(M) + 1, V>()), ...);
    }
    template <size_t... V>
    constexpr void fill_all(std::index_sequence<V...>) {
        (fill<int(V) + 1>(std::make_index_sequence<8>{}), ...);
    }
    constexpr Tiles() { fill_all(std::make_index_sequence<WIDEST>{}); }
};
template <class Operand>
constexpr Tiles<Operand> TILES{};

#if defined(SEQCELLS_HAS_TILES)
// The same product by the matrix unit, for any number of rows. The unit sums in another order.
template <class Operand>
void tiles_of_unit(int vectors, const Word<Operand>* w, int64_t depth, const Operand* a, int64_t stride, int64_t rows, Sum<Operand>* out,
                   int64_t out_stride, bool add) {
    for (int64_t k = 0; k < depth; k += TILED, add = true) {
        const Word<Operand>* from = w + k * vectors * LANES<Operand>;
        const Operand* of = a + k * NUMBERS<Operand>;
        const int64_t here = depth - k < TILED ? depth - k : TILED;
        switch (vectors) {
            case 1: by_tiles<1>(from, here, of, stride, rows, out, out_stride, add); break;
            case 2: by_tiles<2>(from, here, of, stride, rows, out, out_stride, add); break;
            case 3: by_tiles<3>(from, here, of, stride, rows, out, out_stride, add); break;
            default: by_tiles<4>(from, here, of, stride, rows, out, out_stride, add);
        }
    }
}
#endif

// out[rows][vectors] (+)= a[rows][depth] · panel, in chains of `chain` words.
template <class Operand>
void multiply(int vectors, const Word<Operand>* w, int64_t depth, int64_t chain, const Operand* a, int64_t stride, int64_t rows, Sum<Operand>* out,
              int64_t out_stride, bool add) {
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>;
#if defined(SEQCELLS_HAS_TILES)
    if constexpr (NUMBERS<Operand> == 2)
        if (const int64_t whole = depth / TILE_WORDS * TILE_WORDS; whole && rows >= TILE_ROWS / 4) {
            tiles_of_unit(vectors, w, whole, a, stride, rows, out, out_stride, add);
            w += whole * vectors * L, a += whole * G, depth -= whole, add = true;
            if (!depth) return;
        }
#endif
    // As few tiles as possible, of about equal height: a low tile would wait for the latency of each sum.
    const Pieces high(int(rows), TALL[vectors]);
    // A single tile takes all chains at once. Several tiles take one chain after another, so that the chain's weights stay in
    // the cache.
    const int64_t step = high.count > 1 ? chain : depth;
    int64_t k = 0;
    do {
        const int64_t here = depth - k < step ? depth - k : step;
        const Operand* from = a + k * G;
        Sum<Operand>* to = out;
        for (int piece = 0; piece < high.count; ++piece) {
            const int height = high.at(piece);
            TILES<Operand>.of[height - 1][vectors - 1](w + k * vectors * L, here, chain, from, stride, to, out_stride, add);
            from += height * stride, to += height * out_stride;
        }
        k += step, add = true;
    } while (k < depth);
}

// out[N vectors] = a[depth] · block, for one row. All panels are summed together: one panel has too few sums to hide the
// latency of an addition.
template <class Operand, int N>
void row(const Word<Operand>* block, int64_t depth, int64_t chain, const Operand* a, Sum<Operand>* out) {
    using S = Vector<Sum<Operand>>;
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>;
    constexpr Pieces panels(N, WIDEST);
    const Word<Operand>* w[panels.count];
    for (int k = 0, first = 0; k < panels.count; first += panels.at(k++)) w[k] = block + first * depth * L;
    for (int64_t from = 0; from < depth || from == 0; from += chain) {
        const int64_t last = depth - from < chain ? depth : from + chain;
        S sum[panels.count][WIDEST];
#pragma GCC unroll 16
        for (int k = 0; k < panels.count; ++k)
#pragma GCC unroll 4
            for (int v = 0; v < WIDEST; ++v) sum[k][v] = S{};
        for (int64_t word = from; word < last; ++word) {
            const auto value = broadcast(a + word * G);
#pragma GCC unroll 16
            for (int k = 0; k < panels.count; ++k)
#pragma GCC unroll 4
                for (int v = 0; v < WIDEST; ++v)
                    if (v < panels.at(k)) sum[k][v] = multiply_add<Operand>(value, load(w[k] + (word * panels.at(k) + v) * L), sum[k][v]);
        }
        Sum<Operand>* to = out;
#pragma GCC unroll 16
        for (int k = 0; k < panels.count; ++k)
#pragma GCC unroll 4
            for (int v = 0; v < WIDEST; ++v)
                if (v < panels.at(k)) store(to, from ? load(to) + sum[k][v] : sum[k][v]), to += L;
    }
}

template <class Operand>
using Row = void (*)(const Word<Operand>*, int64_t, int64_t, const Operand*, Sum<Operand>*);
template <class Operand, size_t... N>
constexpr std::array<Row<Operand>, sizeof...(N)> rows_of(std::index_sequence<N...>) {
    return {row<Operand, int(N) + 1>...};
}
template <class Operand>
constexpr std::array<Row<Operand>, MOST> ROW = rows_of<Operand>(std::make_index_sequence<MOST>{});

// out[rows][vectors] = a[rows][depth] · block, for at most BATCH rows. Zeros must fill up each row to whole words.
template <class Operand>
void product(const Word<Operand>* block, int vectors, int64_t depth, const Operand* a, int64_t stride, int64_t rows, Sum<Operand>* out) {
    const int64_t count = words<Operand>(depth), width = vectors * LANES<Operand>;
    // As few chains as TERMS allows, of about equal length.
    const int64_t chains = (count + TERMS - 1) / TERMS, chain = chains > 1 ? (count + chains - 1) / chains : count ? count : 1;
    if (rows == 1) return ROW<Operand>[vectors - 1](block, count, chain, a, out);
    const Pieces panels(vectors, WIDEST);
    for (int k = 0; k < panels.count; ++k) {
        const int wide = panels.at(k);
        multiply(wide, block, count, chain, a, stride, rows, out, width, false);
        block += wide * count * LANES<Operand>, out += wide * LANES<Operand>;
    }
}

// Where vector n of a block's columns begins in the packed panels. `width` becomes the distance from one word of the depth to
// the next.
template <class Operand>
Word<Operand>* place(Word<Operand>* block, int vectors, int64_t depth, int n, int64_t& width) {
    const Pieces panels(vectors, WIDEST);
    for (int k = 0, first = 0;; first += panels.at(k++)) {
        if (n >= first + panels.at(k)) continue;
        width = panels.at(k) * LANES<Operand>;
        return block + first * words<Operand>(depth) * LANES<Operand> + (n - first) * LANES<Operand>;
    }
}

// SHARING: rows of `gemv` that share each read of w. SIDE_BY_SIDE: rows of w that are streamed together.
constexpr int SHARING = VECTOR_REGISTERS >= 32 ? 4 : 3, SIDE_BY_SIDE = 4;

template <class Operand, int M, class From>
SEQCELLS_INLINE void dots_of(const From* w, int64_t columns, int64_t depth, const Operand* a, int64_t stride, Sum<Operand>* out,
                             int64_t out_stride) {
    using V = Vector<Sum<Operand>>;
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>, AT_ONCE = M == 1 && L > SIDE_BY_SIDE ? 2 * SIDE_BY_SIDE : L < SIDE_BY_SIDE ? L : SIDE_BY_SIDE;
    V sum[M][L];
#pragma GCC unroll 4
    for (int first = 0; first < L; first += AT_ONCE) {
        for (int64_t from = 0; from < depth || from == 0; from += TERMS * L * G) {
            const int64_t last = depth - from < TERMS * L * G ? depth : from + TERMS * L * G;
            V part[M][AT_ONCE];
#pragma GCC unroll 16
            for (int lane = 0; lane < M * AT_ONCE; ++lane) part[lane / AT_ONCE][lane % AT_ONCE] = V{};
            for (int64_t k = from; k < last; k += L * G) {
                Vector<Word<Operand>> value[M];
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m) value[m] = along<Operand>(a + m * stride + k, depth - k);
#pragma GCC unroll 16
                for (int lane = 0; lane < AT_ONCE; ++lane) {
                    const int64_t column = first + lane < columns ? first + lane : columns - 1;
                    const auto weight = along<Operand>(w + column * depth + k, depth - k);
#pragma GCC unroll 4
                    for (int m = 0; m < M; ++m) part[m][lane] = multiply_add<Operand>(value[m], weight, part[m][lane]);
                }
            }
#pragma GCC unroll 16
            for (int lane = 0; lane < M * AT_ONCE; ++lane) {
                V& all = sum[lane / AT_ONCE][first + lane % AT_ONCE];
                all = from ? all + part[lane / AT_ONCE][lane % AT_ONCE] : part[lane / AT_ONCE][lane % AT_ONCE];
            }
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int left = L; left > 1; left /= 2)
#pragma GCC unroll 16
            for (int lane = 0; lane < left / 2; ++lane)
                sum[m][lane] = every_second<Sum<Operand>>(sum[m][2 * lane], sum[m][2 * lane + 1], 0) +
                               every_second<Sum<Operand>>(sum[m][2 * lane], sum[m][2 * lane + 1], 1);
        store(out + m * out_stride, sum[m][0]);
    }
}

// out[rows][one vector] = a[rows][depth] · wᵀ on unpacked weights, for so few rows that packing would not pay. The vector's
// columns are rows of w; at most `columns` of them exist.
template <class Operand, class From>
void gemv(const From* w, int64_t columns, int64_t depth, const Operand* a, int64_t stride, int64_t rows, Sum<Operand>* out, int64_t out_stride) {
    const Parts parts(rows, SHARING);
    for (int64_t part = 0; part < parts.count; ++part) {
        const WorkRange share = parts.of(part);
        const Operand* from = a + share.first * stride;
        Sum<Operand>* to = out + share.first * out_stride;
        switch (share.count()) {
            case 1: dots_of<Operand, 1>(w, columns, depth, from, stride, to, out_stride); break;
            case 2: dots_of<Operand, 2>(w, columns, depth, from, stride, to, out_stride); break;
            case 3: dots_of<Operand, 3>(w, columns, depth, from, stride, to, out_stride); break;
            default: dots_of<Operand, SHARING>(w, columns, depth, from, stride, to, out_stride);
        }
    }
}

// Packs one vector of a block's columns. Element (k, c) of the matrix is at from[k * by_depth + c * by_column], where one of
// the two strides is 1. Lanes past `columns` are zero. The words of the depth are `width` apart.
template <class Operand, class From>
void pack(const From* from, int64_t by_depth, int64_t by_column, int64_t depth, int64_t columns, Word<Operand>* to, int64_t width) {
    constexpr int L = LANES<Operand>, G = NUMBERS<Operand>;
    const int64_t count = words<Operand>(depth);
    if (by_column == 1) {
        for (int64_t k = 0; k < count; ++k)
            store(to + k * width, across<Operand>(from + k * G * by_depth, by_depth, depth - k * G, columns));
        return;
    }
    for (int64_t k = 0; k < count; k += L) {
        Vector<Word<Operand>> rows[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane)
            rows[lane] = lane < columns ? along<Operand>(from + lane * by_column + k * G, depth - k * G) : Vector<Word<Operand>>{};
        transpose<Word<Operand>>(rows);
        for (int lane = 0; lane < L && k + lane < count; ++lane) store(to + (k + lane) * width, rows[lane]);
    }
}

}  // namespace
}  // namespace seqcells
