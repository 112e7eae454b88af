// How items, columns and rows are divided.

#pragma once

#include <cstdint>

namespace seqcells {
namespace {

// Items [first, last) of `count` items, for one member of a team of `size`.
struct WorkRange {
    int64_t first, last;
    WorkRange(int64_t count, int64_t member, int64_t size) : first(count * member / size), last(count * (member + 1) / size) {}
    static WorkRange range(int64_t first, int64_t last) {
        WorkRange share(0, 0, 1);
        share.first = first, share.last = last;
        return share;
    }
    int64_t count() const { return last - first; }
};

// A matrix's columns, divided into blocks of whole vectors. The blocks differ by one vector at most.
struct Blocks {
    int64_t vectors, count;

    // `most`: vectors in a block. `members`: threads, which get equal numbers of blocks if there are enough vectors.
    Blocks(int64_t columns, int lanes, int most, int64_t members) : vectors((columns + lanes - 1) / lanes) {
        count = ((vectors + most - 1) / most + members - 1) / members * members;
        if (count > vectors) count = vectors;
    }
    Blocks(int64_t columns, int lanes, int64_t blocks) : vectors((columns + lanes - 1) / lanes), count(blocks) {}
    WorkRange of(int64_t block) const { return WorkRange(vectors, block, count); }
};

// Rows, divided into parts of about equal height, at most `most` each.
struct Parts {
    int64_t rows, count;

    Parts(int64_t rows_of_all, int64_t most) : rows(rows_of_all), count((rows_of_all + most - 1) / most) {}
    WorkRange of(int64_t part) const { return WorkRange(rows, part, count); }
};

}  // namespace
}  // namespace seqcells
