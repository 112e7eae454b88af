"""The host's work for one call before a kernel runs: time, operators, allocations and launches. No GPU is needed.

`__main__` is the command, `report` the file and the tables. `measure` counts and times calls, and `calls` has the kinds
of calls and the providers. `stub` is the baseline, `emulated_gpu` emulates a GPU, and `replace_extension`
replaces the CPU engine's extension.

**A row** is one provider's call of one kind, after `calls.PREPARING` calls like it:

* *median*: wall time of a call, forward and backward where it trains, over samples that the providers take in turns.
  The call runs up to its launches, and the launches do nothing. For the Triton engine, these are launches on an
  emulated GPU; for the CPU engine, the one call of a prepared pass. *With kernels* includes the CPU engine's call. On a
  real GPU the launches are real, and nothing waits for the device in a sample.
* *× stub*: the median divided by the stub's median in the same run. The stub is one torch.autograd.Function that takes
  the same tensors and runs nothing. It allocates the results and, in backward, each gradient that is wanted.
* *operators*: ATen operators that the profiler sees outside any other ATen operator, views included. Operators inside
  another one are torch's own choice. Gradients are returned, not accumulated, so no operators are of autograd's
  accumulation nodes.
* *allocations*: how often torch's allocators gave out memory, by the profiler. Results, values kept for backward and an
  operator's own memory count. The CPU engine's own memory does not count.
* *launches*: kernel launches of the Triton engine; for the CPU engine, all calls into the extension. On a GPU, all
  kernel launches count that the profiler sees CUDA asked for, so torch's products are among them.

**Without a GPU** the Triton engine's own Python runs on tensors on the CPU, with the divisions of an H200. Figures
differ from a GPU's in these ways:

* torch's products, sums and zeros are computed at once, where a GPU would launch them. Sizes are so small that most
  take as long as a launch, some microseconds;
* the launcher does nothing: Triton's launcher asks for the current device and its stream, packs arguments and calls the
  driver;
* a guard of the device (`torch.cuda.device_of`) has nothing to guard;
* torch's switch of float32 products is turned as on a GPU, at its default (TF32 in recurrent layers alone), and has no
  effect;
* memory is from the CPU's allocator, not from CUDA's caching allocator;
* autograd runs backward in the caller's thread; for a GPU it uses another thread, for which the caller waits;
* torch.nn's call is the CPU's, computed by ATen or oneDNN, where cuDNN's would be launched.

torch has one thread throughout: the cost of a team of threads is not measured here.
"""
