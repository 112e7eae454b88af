// Who does what.

#pragma once

#include <cstdint>

namespace seqcells {
namespace {

// Items [first, last) of `count` for a member of a team.
struct Share {
    int64_t first, last;
    Share(int64_t count, int64_t member, int64_t size) : first(count * member / size), last(count * (member + 1) / size) {}
    int64_t count() const { return last - first; }
};

}  // namespace
}  // namespace seqcells
