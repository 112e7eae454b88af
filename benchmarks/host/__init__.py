"""What the host does for one call before a kernel runs: time, operators, allocations and launches. No GPU is needed.

From the top down: `__main__` (the command), `report` (the file and the tables), `measure` (how a call is counted and
timed), `calls` (the kinds of calls, by whom), `stub`, `absent` (a GPU that is not here), `extension` (that of the CPU
engine).

**A row** is one provider's call of one kind, after `calls.PREPARING` calls like it:

* *median*: wall time of a call, forward and backward where it trains, over samples that the providers take in turns.
  The call runs up to its launches, and these do nothing: the Triton engine's on a GPU that is not here, and one call of
  what the CPU engine has prepared for a pass. *With kernels* the latter is called. On a GPU that is here the launches
  are real, and nothing waits for the device in a sample.
* *× stub*: that over the stub's in the same run: one torch.autograd.Function that takes the same tensors, allocates the
  results and in backward each gradient that is wanted, and runs nothing.
* *operators*: those of ATen that the profiler sees with no operator of ATen around them, views too; what such an
  operator is made of is torch's. Gradients are returned, not accumulated, so none are of autograd's own nodes.
* *allocations*: how often torch's allocators gave out memory, by the profiler: results, what is kept for backward, what
  an operator takes for itself. Memory that the CPU engine has of its own is none of these.
* *launches*: of the Triton engine its kernels' launches, of the CPU engine all calls into the extension. On a GPU it is
  every kernel's, as the profiler sees CUDA asked for them, so torch's products are among them.

**Without a GPU** the Triton engine's own Python runs on tensors on the CPU, with the divisions of an H200. In this it
differs from what a GPU would show:

* torch's products, sums and zeros are computed on the spot, where a GPU's are launched: sizes are so small that most
  take what launching them would, some microseconds;
* the launcher does nothing: Triton's asks for the current device and its stream, packs arguments and calls the driver;
* a guard of the device (`torch.cuda.device_of`) has nothing to guard;
* torch's switch of float32 products is turned as on a GPU, at its default (TF32 in recurrent layers alone), and nobody
  obeys it;
* memory is the CPU's allocator's, not that of CUDA's caching one;
* autograd runs backward in the caller's thread, a GPU's in another, for which the caller waits;
* torch.nn's call is that of the CPU, computed by ATen or oneDNN, where cuDNN's would be launched.

torch has one thread in all of it: what a team of threads costs is not asked here.
"""
