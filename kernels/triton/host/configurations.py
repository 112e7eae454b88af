"""The kernels' launch configurations, all of them, with why."""

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton

from .. import interpreted

# A gates kernel is bound by memory and, at the sizes of a step, by latency: many small programs, so that a step of
# 64 × 1024 fills a large GPU's 132 multiprocessors; four elements a thread, so that bfloat16 is read 8 bytes at a time,
# two of float64, whose registers are pairs: with four the peephole LSTM spills.
WARPS = 4
THREAD_BYTES = 16
# Told of no limit, NVIDIA's assembler spills a few bytes where one more program then fits a multiprocessor. At the
# sizes above there is but one; at larger ones 128 registers, which few cells pass, leave room for 16 warps with 40 kB
# of reads in flight, where some 15 kB keep an H100's memory busy. Reckoned, not measured.
REGISTERS = 255
# Of a row that is reduced a program has all units, on as many warps as a program may have.
MOST_ROW_WARPS = 32
REGISTER_FILE = 65536
# Rows of a tile lie apart in memory; 128 units are whole sectors in any dtype, and leave little over at odd sizes.
UNITS = 128

# Backward computes what was not kept (`seqcells.settings(recompute=True)`) for a window of steps at a time: so many
# parts of the sequence, or fewer, of steps that fit in so many bytes. An LSTM's window of all steps would take some
# twenty times what its output does.
RECOMPUTE_PARTS = 16
RECOMPUTE_BYTES = 16 << 20

# Up to so many sequences a fused step is one tile of the batch: it reads each weight once, as a product by itself does.
FUSED_ROWS = 16
# Of a single step's kernel a tile's rows, and the sequences beyond which it would read the weights too often, where the
# products of the library take less time. Reckoned, not measured.
MOST_STEP_ROWS = 32
STEP_BATCH = 128


def gates(batch: int, hidden: int, directions: int, work: torch.dtype) -> dict[str, Any]:
    """Of a gates kernel: the grid, and its tile of batch rows and units, which T and B do not change."""
    # By itself Triton asks of a size no more than whether 16 divides it, and reads single elements where not: 100 units
    # took four times the loads. More elements a thread than can be read at once are in nobody's way but the compiler's,
    # which gives each tensor a layout of its own and converts by way of shared memory, a barrier each.
    width = math.gcd(hidden, THREAD_BYTES // work.itemsize)
    units = min(UNITS, triton.next_power_of_2(hidden))
    return _tiled(batch, hidden, directions, 32 * WARPS * width // units, units, width)


def most_of_a_row(work: torch.dtype) -> int:
    """Units of a row that is reduced: those that the registers of a program have room for. One of float64 takes two.
    Found by compiling layer-normalised cells with Triton 3.9.0 for sm_90."""
    return 1024 if work.itemsize < 8 else 256


def whole_rows(batch: int, hidden: int, directions: int, work: torch.dtype) -> dict[str, Any]:
    """Of a stage's kernel that reduces rows: the same, of tiles that have all units. Stages have more values at hand
    than a cell of one has: two to a thread of each, or one of float64. Beyond `most_of_a_row` some spill."""
    units = triton.next_power_of_2(hidden)
    each = max(1, 8 // work.itemsize)
    warps = min(MOST_ROW_WARPS, max(WARPS, units // (32 * each)))
    tile = _tiled(batch, hidden, directions, max(1, 32 * warps * each // units), units, math.gcd(hidden, each))
    limit = {"maxnreg": min(REGISTERS, REGISTER_FILE // (32 * warps))} if registers() else {}
    return {**tile, "num_warps": warps, **limit}


def fused_step(batch: int, hidden: int, directions: int, storage: torch.dtype, precision: str) -> dict[str, Any]:
    """Of a gates kernel that makes its product by itself: few units to a program, so that a step is many programs and
    all of a GPU's multiprocessors read weights.

    Tensor cores take 16 rows. One row, and up to eight where the precision has no tensor cores, are summed element by
    element instead: what would be 16 rows of mostly zeros, by way of shared memory, is then the rows that there are.
    So are all of float64, with which the products' operands and sums together need more registers than there are.
    """
    tensor_cores = storage.itemsize == 2 or (storage == torch.float32 and precision != "ieee")
    summed = max(storage.itemsize, 4)
    if batch == 1:
        rows, units, width = 1, 8, 512 // summed
    elif storage == torch.float64 or (batch <= 8 and not tensor_cores):
        rows, units, width = 8, 4, 256 // summed
    else:
        rows, units, width = 16, 8, 128 // storage.itemsize if tensor_cores else 16
    # Weights are read as wide as may be; of the little that is left to do for a tile, each thread has one element.
    aligned = math.gcd(hidden, THREAD_BYTES // storage.itemsize)
    if rows == 16 and tensor_cores and aligned * storage.itemsize < 8:
        width //= 2  # every read wants an address: with many short ones some cells spill
    tile = _tiled(batch, hidden, directions, rows, units, 1)
    return {**tile, "ALIGNED": aligned, "WIDTH": width, "DOT": rows == 16}


def single_step(
    batch: int, hidden: int, features: int, directions: int, storage: torch.dtype, precision: str
) -> dict[str, Any]:
    """Of the kernel of a single step, which makes both products: as `fused_step`, but for tiles of more rows, so that
    the weights are read fewer times."""
    tile = fused_step(batch, hidden, directions, storage, precision)
    aligned = math.gcd(features, THREAD_BYTES // storage.itemsize)
    if tile["DOT"] and aligned * storage.itemsize < 8 <= tile["ALIGNED"] * storage.itemsize:
        tile["WIDTH"] //= 2
    if tile["DOT"]:
        rows = min(MOST_STEP_ROWS, max(16, triton.next_power_of_2(batch)))
        tile |= _tiled(batch, hidden, directions, rows, tile["UNITS"], 1)
    return {**tile, "ALIGNED_FEATURES": aligned}


def _tiled(batch: int, hidden: int, directions: int, rows: int, units: int, divisor: int) -> dict[str, Any]:
    grid = triton.cdiv(batch, rows), triton.cdiv(hidden, units), directions
    return {"grid": grid, "num_warps": WARPS, **registers(), "ROWS": rows, "UNITS": units, "DIVISOR": divisor}


def registers() -> dict[str, int]:
    """The compiler's option, which it has for NVIDIA alone."""
    return {"maxnreg": REGISTERS} if nvidia() else {}


def nvidia() -> bool:
    """Whether kernels are compiled, and for NVIDIA's GPUs."""
    return not interpreted() and triton.runtime.driver.active.get_current_target().backend == "cuda"


# How often a program of the persistent plan looks whether the others have arrived before it gives up: some ten seconds.
PATIENCE = 1 << 24
# Its programs have two warps for each scheduler, so that one computes while the other waits for memory. Sums are cut
# into a part for each warp, of no less than the 16 that tensor cores sum at once.
PERSISTENT_WARPS = 8
CHUNK = PERSISTENT_WARPS * 16
# What a program reads of the others at a time: on its way it is in registers, 64 of each thread's at most.
READ_BYTES = 64 << 10
# Weights are held in registers where they fit, and where not in shared memory, which holds more and takes longer. Of
# the 256 kB of registers that there are, what is read and the sums of all parts take some, and the cell needs the rest:
# more of it where a thread has several units, which backward has room for nowhere. With more than this, in tiles of one
# unit a thread and of several, or in more chunks, some cell spills: found by compiling with Triton 3.6.0 and 3.9.0. So
# do stacks, which have two products and what is read for both, with less than that.
REGISTER_BYTES = {"forward": (160 << 10, 140 << 10), "backward": (160 << 10, 0)}
REGISTER_BYTES |= {"stack forward": (160 << 10, 120 << 10), "stack backward": (136 << 10, 0)}
MOST_CHUNKS = {"forward": (3, 16), "backward": (3, 0), "stack forward": (3, 16), "stack backward": (5, 0)}
# In shared memory there is, beside the weights, a chunk on its way to tensor cores, with so much padding. Addresses are
# in registers all the same: of more chunks some cell spills, in tiles of 16 rows and of 32, of more rows, and where a
# thread has several units of more weights, or of more than two.
PADDING_BYTES = 2 << 10
MOST_CHUNKS_SHARED = {"forward": (12, 12), "backward": (6, 4), "stack forward": (12, 12), "stack backward": (10, 10)}
MOST_ROWS_SHARED = {"forward": 32, "backward": 32, "stack forward": 32, "stack backward": 16}
SEVERAL_BYTES = {"forward": 128 << 10, "backward": 0, "stack forward": 96 << 10, "stack backward": 0}
# Of the batch in a tile, by the bytes of storage: of 64 rows of float32, and in stacks, even what is below those bounds
# spills.
ROWS = {2: (16, 32, 64), 4: (16, 32), 8: (16,)}
MOST_ROWS_STACKED = 32
# Weights for products that tensor cores do not take, and numbers of a tile: of more, forward spills; of weights that
# one program holds alone, of half as many.
EXACT_BYTES = 32 << 10
EXACT_TILE = 16 * 8
# Weights that one program holds alone, in registers and shared memory together: with 96 kB a GRU spills.
ALONE_BYTES = 64 << 10
# A grid has no more rows of programs.
GRID_ROWS = 65535

# What the persistent plan is weighed against: an H200's clock; by estimate, zeroing counters and loading weights before
# the first step; a step of two launches from Python; products of the library by the bytes of storage, four are TF32.
CLOCK_RATE = 1.755e9
START_SECONDS = 20e-6
STEP_SECONDS = 10e-6
LOOP_SECONDS = 0.6e-6  # of a step inside a launch that waits for nobody: memory's latency; no GPU has measured it yet
PRODUCT_RATE = {2: 300e12, 4: 150e12, 8: 30e12}


# Of GPUs that are only compiled for, by architecture: multiprocessors, and the shared memory of a program in bytes.
CHIPS = {80: (108, 163 << 10), 90: (132, 227 << 10), 100: (148, 227 << 10)}


def chip() -> tuple[int, int]:
    """Of `CHIPS` the one that is compiled for."""
    return CHIPS[triton.runtime.driver.active.get_current_target().arch]


def processors(device: torch.device) -> tuple[int, int]:
    """How many programs a device runs side by side at least, and the shared memory of each in bytes."""
    if device.type == "cpu":
        return 1, 1 << 40  # the interpreter's, which runs one program after the other and has no limits
    if device.type != "cuda":
        return chip()  # what is asked of shapes alone
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin


class Division(NamedTuple):
    """How programs of the persistent plan divide a layer."""

    tile: dict[str, Any]
    """What the kernels are compiled for."""
    blocks: int
    """Of the hidden units."""
    groups: int
    """Of the batch, side by side in a launch."""
    directions: int
    """Side by side in a launch: all, or one, where together they do not fit on the chip."""
    cycles: int = 0
    """A step takes by the model of `step_cycles`, all launches together."""

    @property
    def meet(self) -> bool:
        """Whether programs wait for each other, and so must all be there at once."""
        return not self.tile.get("ALONE")


def alone(hidden: int, recurrent: int, storage: torch.dtype, precision: str) -> bool:
    """Whether one program of the persistent plan holds the recurrent weights of all units."""
    most = EXACT_BYTES // 2 if _exact(storage, precision) else ALONE_BYTES
    return recurrent * _units(hidden) ** 2 * bytes_of(storage, precision) <= most


@lru_cache(1024)
def persistent(
    hidden: int,
    batch: int,
    directions: int,
    gates: int,
    recurrent: int,
    planes: int,
    storage: torch.dtype,
    precision: str,
    processors: int,
    shared_memory: int,
    layers: int = 1,
    between: int = 0,
) -> Division | str:
    """The division of a layer whose products sum over ``planes`` times its units, or why there is none; or of so many
    ``layers`` of a stack, side by side, where products between two sum over ``between`` times the units.

    Of those that fit, the one with the least time by a rough model, in a multiprocessor's cycles a step: see
    `step_cycles`. A call asks several times, so what was found is kept.
    """
    item, exact = bytes_of(storage, precision), _exact(storage, precision)
    if not between and (not recurrent or processors == 1 or alone(hidden, recurrent, storage, precision)):
        units = _units(hidden) if recurrent else min(_units(hidden), UNITS)
        groups = triton.cdiv(batch, 16)
        waves = triton.cdiv(groups * directions, processors)
        size = {"units": units, "rows": 16, "groups": min(groups, GRID_ROWS), "directions": directions}
        size["cycles"] = waves * step_cycles(16 * units * gates, recurrent * units**2 * item if recurrent else 0, 0)
        return division(hidden, recurrent, planes, storage, **size)
    found = []
    way, products, of_weights = ("forward", recurrent, recurrent) if planes == 1 else ("backward", 1, recurrent)
    row_sizes, side_by_side, short = ROWS[storage.itemsize], sorted({1, directions}), False
    if between:
        way, products = ("stack forward", max(recurrent, gates)) if between == 1 else ("stack backward", 1)
        of_weights, side_by_side = recurrent + gates, [layers]
        row_sizes = [rows for rows in row_sizes if rows <= MOST_ROWS_STACKED]
        # Rows of a sequence may be read in short pieces alone, and each wants an address; so do three gates of float32.
        short = math.gcd(hidden, THREAD_BYTES // storage.itemsize) * storage.itemsize < 8 or between * item >= 12
    for units, rows, shared, beside in itertools.product((8, 16, 32), row_sizes, (False, True), side_by_side):
        blocks = triton.cdiv(hidden, units)
        groups = processors // (blocks * beside) if blocks <= 32 * PERSISTENT_WARPS else 0  # a thread for each flag
        held = of_weights * units * triton.cdiv(hidden, CHUNK) * CHUNK * item
        sums = products * PERSISTENT_WARPS * rows * units * max(4, storage.itemsize)
        several = rows * units > 32 * PERSISTENT_WARPS
        room = _room_beside(held, shared, sums, way, rows, units, shared_memory)
        chunk = min(READ_BYTES, room) // (rows * storage.itemsize)
        if not groups or chunk < CHUNK or (exact and (shared or held > EXACT_BYTES or rows * units > EXACT_TILE)):
            continue
        launches = triton.cdiv(triton.cdiv(batch, rows), groups) * (1 if between else directions // beside)
        read = rows * (planes + between) * hidden * storage.itemsize
        size = {"units": units, "rows": rows, "groups": groups, "directions": beside, "chunk": chunk}
        if between:
            size |= {"between": between, "read": min(READ_BYTES, room)}
        each = division(hidden, recurrent, planes, storage, **size, shared=shared)
        chunks = len(each.tile["CHUNKS"]) + len(each.tile["BETWEEN"])
        most = MOST_CHUNKS_SHARED[way][rows > 16] // (1 + short) if shared else MOST_CHUNKS[way][several]
        if chunks <= most:
            step = step_cycles(rows * units * gates, shared * held, read, chunks)
            found.append(each._replace(cycles=launches * step))
    if not found:
        what = " for exact float32 products" if exact else ""
        return f"its recurrent weights do not fit on the chip{what}, divided among all multiprocessors"
    return min(found, key=lambda each: each.cycles)


def _room_beside(held: int, shared: bool, sums: int, way: str, rows: int, units: int, shared_memory: int) -> int:
    """Bytes for what is read beside so many of weights, held in shared memory or in registers; below 0 for too many."""
    threads = 32 * PERSISTENT_WARPS
    several = rows * units > threads
    if not shared:
        return min(REGISTER_BYTES[way][several] - sums, shared_memory) - held
    if rows > MOST_ROWS_SHARED[way] or (several and (rows * units > 2 * threads or held > SEVERAL_BYTES[way])):
        return 0
    return shared_memory - PADDING_BYTES - held


def division(
    hidden: int,
    recurrent: int,
    planes: int,
    storage: torch.dtype,
    *,
    units: int,
    rows: int,
    groups: int,
    directions: int,
    chunk: int = CHUNK,
    parts: int = PERSISTENT_WARPS,
    shared: bool = False,
    between: int = 0,
    read: int = READ_BYTES,
    cycles: int = 0,
) -> Division:
    """With tiles of ``rows`` and ``units``; sums are of ``chunk`` terms at a time at most, and of as many ``parts``;
    ``shared``: weights are held in shared memory; products between layers sum over ``between`` times the units."""
    alone = not between and (not recurrent or units >= hidden)
    width = units if alone else triton.cdiv(hidden, 16 * parts) * 16 * parts
    chunks = (units,) * planes if alone else powers_of_two(width * planes, chunk)
    ahead = 1
    if planes > 1 and not shared:
        # Backward sums one product, forward one for each gate: there are registers for more chunks on their way.
        ahead = max(1, read // (rows * chunks[0] * storage.itemsize))
    tile = {
        "ROWS": rows,
        "UNITS": units,
        "CHUNKS": chunks,
        "BETWEEN": powers_of_two(width, chunk) * between,
        "AHEAD": ahead,
        "WIDTH": width,
        "SPLIT": 1 if alone else parts,
        "DIVISOR": math.gcd(hidden, THREAD_BYTES // storage.itemsize),
        "SHARED": shared,
        "ALONE": alone,
    }
    blocks = triton.cdiv(hidden, units)
    return Division({**tile, "num_warps": PERSISTENT_WARPS}, blocks, max(1, groups), directions, cycles)


def _units(hidden: int) -> int:
    """Of a tile of all of them; no fewer than tensor cores take."""
    return max(16, triton.next_power_of_2(hidden))


def bytes_of(storage: torch.dtype, precision: str) -> int:
    """Of a weight on the chip."""
    return storage.itemsize * (2 if precision == "tf32x3" else 1)


def _exact(storage: torch.dtype, precision: str) -> bool:
    """Whether products are of float32, and not for tensor cores."""
    return storage == torch.float32 and precision == "ieee"


def powers_of_two(total: int, most: int) -> tuple[int, ...]:
    """That add up to ``total``, as few as may be."""
    terms = []
    while total:
        terms.append(1 << min(most.bit_length(), total.bit_length()) - 1)
        total -= terms[-1]
    return tuple(terms)


def step_cycles(values: int, shared: int, read: int, chunks: int = 1) -> int:
    """What a step takes, fitted to what an H200 took for 500 divisions, to 10 % in the mean: the values of gates;
    weights held in shared memory, by the byte; and, where programs meet, the way to the L2 cache and back, what is read
    there by the byte, and what comes in pieces."""
    meeting = 2700 + read // 48 + 300 * (chunks - 1) if read else 700
    return values * 90 // 128 + shared // 200 + meeting
