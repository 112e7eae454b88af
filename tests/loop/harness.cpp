// The loop of kernels/cpu over one printed cell, as functions for ctypes. SEQCELLS_CELL names the struct of cell.h.

#include "loop.h"

namespace seqcells {
namespace {
#include "cell_text.h"

using Passes = Pass[2];
template <class T>
const Passes PASSES = {pass_of<SEQCELLS_CELL::Forward, T>(), pass_of<SEQCELLS_CELL::Backward, T>()};

template <class T>
struct Run : Job {
    const Call call;  // a late thread may look at it when the caller's is gone
    Loop<T> loop;
    const int size;
    team::Progress progress;

    Run(const Pass& pass, const Call& of) : call(of), loop(pass, call), size(members(loop)), progress(size) { loop.share_among(size); }
    static int members(const Loop<T>& loop) { return loop.threads() < 1 ? 1 : int(loop.threads()); }
    void run(int worker) override {
        Member alone, member(progress, worker, size);
        loop.run(size == 1 ? alone : member);
    }
};

template <class T>
int run(int which, const Call* call) {
    const auto job = std::make_shared<Run<T>>(PASSES<T>[which], *call);
    if (!job->loop.allocate()) return -1;
    team::run(job, job->size);
    return 0;
}

}  // namespace
}  // namespace seqcells

extern "C" {
int run_double(int which, const void* call) { return seqcells::run<double>(which, static_cast<const seqcells::Call*>(call)); }
#ifdef SEQCELLS_FLOAT
int run_float(int which, const void* call) { return seqcells::run<float>(which, static_cast<const seqcells::Call*>(call)); }
#endif
const char* name_of(int which, int array) {
    const auto& pass = seqcells::PASSES<double>[which];
    return array < pass.arrays ? pass.names[array] : nullptr;
}
}
