// A pass over all directions of a layer, by several threads.

#pragma once

#include "layer_call.h"
#include "team.h"
#include "work_sizes.h"

namespace seqcells {
namespace {

// If one direction's weights fit in a thread's own cache, two directions run at once, each on half of the threads. Then fewer
// threads meet in each step. Otherwise the directions run one after another, each on all threads. Over is the loop over one
// direction.
template <class Over>
class Directions : public Job {
  public:
    Directions(const Pass& pass, const LayerCall* directions, int count) : calls_(directions, directions + count) {
        passes_.reserve(count);
        int64_t threads = 0;
        for (const LayerCall& call : calls_) threads += passes_.emplace_back(pass, call).threads();
        if (threads > directions->threads) threads = directions->threads;
        size_ = int(threads < 1 ? 1 : threads);
        at_once_ = passes_[0].weight_bytes() <= cache_bytes() && size_ >= count;
        for (int d = 0; d < count; ++d) {
            const int members = at_once_ ? int(WorkRange(size_, d, count).count()) : size_;
            passes_[d].share_among(members);
            if (size_ > 1) progress_.emplace_back(new team::Progress(members));
        }
    }
    int size() const { return size_; }
    bool allocate() {
        for (Over& pass : passes_)
            if (!pass.allocate()) return false;
        return true;
    }
    void run(int worker) override {
        const int count = int(passes_.size());
        int home = 0;
        while (at_once_ && worker >= WorkRange(size_, home, count).last) ++home;
        for (int k = 0; k < count; ++k) {
            const int d = (home + k) % count;
            if (size_ == 1) {
                Member alone;
                passes_[d].run(alone);
                continue;
            }
            const WorkRange members = at_once_ ? WorkRange(size_, d, count) : WorkRange(size_, 0, 1);
            const bool here = worker >= members.first && worker < members.last;
            Member member(*progress_[d], here ? worker - int(members.first) : -1, int(members.count()));
            passes_[d].run(member);
        }
    }

  private:
    const std::vector<LayerCall> calls_;  // copies: a late thread may read them when the caller's are gone
    std::vector<Over> passes_;
    std::vector<std::unique_ptr<team::Progress>> progress_;
    int size_ = 1;
    bool at_once_ = false;
};

// Returns 0, or -1 when memory runs out.
template <class Over>
int run_directions(const Pass& pass, const LayerCall* directions, int count) {
    const auto job = std::make_shared<Directions<Over>>(pass, directions, count);
    if (!job->allocate()) return -1;
    team::run(job, job->size());
    return 0;
}

}  // namespace
}  // namespace seqcells
