"""A character model trained by many processes: torchrun --nproc-per-node 2 examples/train_distributed.py

The rows of the text are divided among the processes. Each process carries the states of its own rows from window to
window, as stateful_text.py does. The loss curve equals that of one process, which runs without torchrun. With
``--checkpoint FOLDER`` training resumes after it was killed, also with another number of processes.
"""

import argparse
import gc
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from stateful_text import Carried
from text import CharacterModel, corpus
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from training import DTYPES, Results, count, loss_curve, parser, picture, progress_bar

from seqcells.data import ContiguousWindows


@contextmanager
def processes(device: str) -> Iterator[DeviceMesh]:
    """This process as one of torchrun's processes, or as the only one."""
    kind = torch.device(device).type
    backend = "nccl" if kind == "cuda" else "gloo"
    if distributed.is_torchelastic_launched():
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(backend)
    else:
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh(kind, (distributed.get_world_size(),))
    gc.collect()  # a sharded model would keep gloo's threads, which crash the process once the interpreter is gone
    distributed.destroy_process_group()


def parallel(options: argparse.Namespace, model: CharacterModel, mesh: DeviceMesh) -> nn.Module:
    """The model, whose gradients are means over the processes."""
    if options.parallel == "ddp":
        return DistributedDataParallel(model)
    policy = MixedPrecisionPolicy()
    if options.precision == "bfloat16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    fully_shard(model.layer, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def accumulating(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Exchange gradients between processes once a step, at the last of its windows."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last else model.no_sync()


class Training:
    """The training: what a checkpoint holds, and the steps."""

    def __init__(self, options: argparse.Namespace, mesh: DeviceMesh) -> None:
        torch.manual_seed(options.seed)
        self.options, self.mesh = options, mesh
        model = CharacterModel(options).to(options.device, DTYPES[options.dtype])
        self.model = parallel(options, model, mesh)
        self.read = Carried(torch.compile(self.model) if options.compile else self.model, model.layer)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=options.rate)
        self.windows = ContiguousWindows(corpus(options.characters).to(options.device), options.batch, options.length)
        self.losses: list[float] = []

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows of the text, which is read again and again."""
        while True:
            if not self.windows.position:
                self.read.reset_states()
            yield from self.windows

    def step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """A step of the optimizer; its loss is the mean over all processes."""
        options, loss = self.options, torch.zeros((), device=self.options.device, dtype=torch.float64)
        half = options.precision == "bfloat16" and options.parallel == "ddp"  # FSDP2 has a policy of its own
        self.optimizer.zero_grad()
        for left in reversed(range(options.accumulate)):
            input, target = next(batches)
            with accumulating(self.model, last=not left):
                with torch.autocast(self.mesh.device_type, torch.bfloat16, enabled=half):
                    logits = self.read(input)
                part = cross_entropy(logits.to(DTYPES[options.dtype]).flatten(0, 1), target.flatten())
                (part / options.accumulate).backward()
            loss += part.detach() / options.accumulate
        if options.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        distributed.all_reduce(loss)
        self.losses.append(loss.item() / distributed.get_world_size())

    def tensors(self) -> dict[str, object]:
        """The tensors of a checkpoint. Each process has the states of its own rows, so that another number of processes
        can divide them."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dtype, states = DTYPES[self.options.dtype], self.read.states
        if states is None:
            share = self.options.batch // distributed.get_world_size()
            like = torch.zeros(self.read.layer.num_layers, share, self.options.hidden, device=self.options.device)
            states = (like,) * (2 if self.options.cell == "lstm" else 1)
        states = states if isinstance(states, tuple) else (states,)
        rows = [DTensor.from_local(state.to(dtype, copy=True), self.mesh, [Shard(1)]) for state in states]
        return {"model": model, "optimizer": optimizer, "states": dict(enumerate(rows))}

    def save(self) -> None:
        """Write a checkpoint. The former checkpoint stays until this one is complete and has its name."""
        folder, first = self.options.checkpoint, distributed.get_rank() == 0
        unfinished, done = folder / "unfinished", folder / f"step-{len(self.losses):08d}"
        former = [*folder.glob("step-*")]
        if first:
            shutil.rmtree(unfinished, ignore_errors=True)
        distributed.barrier()
        checkpoint.save(self.tensors(), checkpoint_id=unfinished)
        if first:
            progress = {"losses": self.losses, "windows": self.windows.state_dict()}
            (unfinished / "progress.json").write_text(json.dumps(progress))
            unfinished.rename(done)
            for each in former:
                shutil.rmtree(each)
        distributed.barrier()

    def load(self) -> None:
        """Resume from the checkpoint, if there is one."""
        found = max(self.options.checkpoint.glob("step-*"), default=None)
        if found is None:
            return
        tensors = self.tensors()
        checkpoint.load(tensors, checkpoint_id=found)
        parts = {"model_state_dict": tensors["model"], "optim_state_dict": tensors["optimizer"]}
        set_state_dict(self.model, self.optimizer, **parts)
        states = tuple(rows.to_local() for rows in tensors["states"].values())
        self.read.states = states if len(states) > 1 else states[0]
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate  # the rate of this run's options
        progress = json.loads((found / "progress.json").read_text())
        self.windows.load_state_dict(progress["windows"])
        self.losses = progress["losses"]


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train; return the losses of all steps, including steps before a checkpoint. All ranks return the same."""
    options = parser(__doc__.splitlines()[0], steps=1000)
    options.add_argument("--length", type=int, default=20, help="characters that gradients go back")
    options.add_argument("--characters", type=int, default=1_000_000, help="of the text that are used")
    options.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp")
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of products")
    options.add_argument("--accumulate", type=count, default=1, metavar="K", help="windows of a step")
    options.add_argument("--compile", action="store_true", help="by torch.compile")
    options.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="where training goes on from")
    options.add_argument("--every", type=count, default=100, metavar="K", help="steps from checkpoint to checkpoint")
    options = options.parse_args(arguments)
    with processes(options.device) as mesh:
        training, first = Training(options, mesh), distributed.get_rank() == 0
        if options.checkpoint:
            options.checkpoint.mkdir(parents=True, exist_ok=True)
            training.load()
        batches, losses = training.batches(), training.losses
        with progress_bar(disable=not first) as progress:
            task = progress.add_task("", total=options.steps, completed=len(losses))
            while len(losses) < options.steps:
                training.step(batches)
                progress.update(task, advance=1, description=f"{losses[-1]:.3f}")
                if options.checkpoint and (len(losses) % options.every == 0 or len(losses) == options.steps):
                    training.save()
        if first:
            picture(options, loss_curve(losses))
        del training, batches
    return Results(losses, {})


if __name__ == "__main__":
    main()
