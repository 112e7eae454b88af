"""How the blocks of a cluster divide a layer (see sizes.cuh), and an estimate of a step's time."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from ...derive.expressions import Expression
from ...derive.layout import Layout, Multiplied

REGISTERS, MOST_REGISTERS = 1 << 16, 255
"""32-bit registers of a multiprocessor, and the most registers of a thread."""
OWN_REGISTERS = 64
"""Registers of a thread, with one item and 8 rows, that hold neither weights nor the cell's values."""
BLOCKS = 1, 2, 4, 8, 16
"""Sizes of clusters, in blocks."""
STEPS = 4, 3
"""Steps of input in shared memory, because a read from global memory takes longer than a step. The second number is
tried where the first does not fit."""
LOADED = 4
"""Tiles of weights, for each thread, that shared memory has room for while weights are loaded."""
CLOCK_RATE = 1.7e9
EXCHANGE_SECONDS, EXCHANGE_RATE = 0.30e-6, 26e9
"""Seconds of an exchange within a cluster, and bytes a second that a block receives. An H200 takes 0.35 µs for 1 KB and
0.91 µs for 16 KB."""
PRODUCT_CYCLES, PRODUCT_LATENCY = 6, 130
"""Cycles of a product of tiles on one of four tensor cores, and the latency of the first product."""
ITEM_CYCLES, STAGE_CYCLES = 60, 220
"""Cycles of a stage's values for each item of a thread, and of two block barriers, for any number of items."""
REDUCING_CYCLES = 5
"""Cycles for each number in shared memory that a lane adds up."""
PARTIAL = 8
"""Bytes of a partial result: the reduction of one row over a block's units."""
SHARED_RATE = 128
"""Bytes a cycle that a multiprocessor reads from its shared memory."""


class Device(NamedTuple):
    """The resources that a GPU has for clusters."""

    shared_bytes: int
    """The most shared memory of a block."""
    at_once: tuple[int, ...]
    """For each size in `BLOCKS`, how many clusters run at once if a block takes all that shared memory; 0 if none
    does."""


class ProductForm(NamedTuple):
    """The division of a product, as in sizes.cuh."""

    scattered: bool
    sums: int
    depth: int
    parts: int
    tiles: int
    pairs: int
    held: int
    pitch: int
    partial_at: int = 0
    received_at: int = 0
    spilled_at: int = 0

    @property
    def depth_tiles(self) -> int:
        """Tiles of the depth that a warp multiplies."""
        return 2 * self.pairs


class OperandForm(NamedTuple):
    """The places of an operand, as in sizes.cuh."""

    scattered: bool
    made_at: int
    own_at: int = 0
    gathered_at: int = 0
    gathered_bytes: int = 0


class Column(NamedTuple):
    """A column of the ring, as in sizes.cuh, with arrays by their names."""

    array: str
    column: int
    initial: str
    """For values of the step before, the array that the first step reads; else empty."""
    at: int = 0


class Division(NamedTuple):
    """The division of a layer, and its places in shared memory."""

    units: int
    blocks: int
    rows: int
    warps: int
    steps: int
    products: tuple[ProductForm, ...] = ()
    operands: tuple[OperandForm, ...] = ()
    ring: tuple[Column, ...] = ()
    ring_at: int = 0
    ring_bytes: int = 0
    reduced_at: int = 0
    partial_at: int = 0
    numbers_at: int = 0
    merged_at: tuple[int, ...] = ()
    """One address for each stage; empty when the cell reduces no rows."""
    barriers_at: int = 0
    shared_bytes: int = 0
    """The shared memory of a block."""
    seconds: float = 0.0
    """The estimated time of a step."""

    @property
    def threads(self) -> int:
        """The threads of a block."""
        return 32 * self.warps


class Wanted(NamedTuple):
    """What is divided: a pass, the sizes H, B and D, and the bytes of a number that products read."""

    layout: Layout
    hidden: int
    batch: int
    directions: int
    bytes: int
    spare: int = 0
    """Registers that are kept free of weights, besides `OWN_REGISTERS` and the estimate for the cell's values."""


def divide(wanted: Wanted, device: Device) -> Division | str:
    """The division with the least estimated time for a step of the pass, or the reason why there is none."""
    if not any(device.at_once):
        return "the device runs no cluster of blocks that take all shared memory"
    found = [*_divisions(wanted, device)]
    if not found:
        return f"{wanted.hidden} hidden units do not fit into the registers and the shared memory of a cluster"
    return min(found, key=lambda each: each.seconds)


def _divisions(wanted: Wanted, device: Device) -> Iterator[Division]:
    for blocks, rows, warps in _choices(wanted.batch, device):
        each = (division(wanted, blocks, rows, warps, steps) for steps in STEPS)
        one = next((one for one in each if one and one.shared_bytes <= device.shared_bytes), None)
        if one:
            turns = -(-(-(-wanted.batch // rows) * wanted.directions) // device.at_once[BLOCKS.index(blocks)])
            yield one._replace(seconds=one.seconds * turns)


def _choices(batch: int, device: Device) -> Iterator[tuple[int, int, int]]:
    """Numbers of blocks, rows and warps to try. The last blocks may have no units: some sizes fit in no other way."""
    there = [blocks for blocks, clusters in zip(BLOCKS, device.at_once, strict=True) if clusters]
    for blocks, rows, warps in product(there, (8, 16), (4, 8, 12, 16)):
        if rows == 8 or batch > 8:
            yield blocks, rows, warps


def division(wanted: Wanted, blocks: int, rows: int, warps: int, steps: int = STEPS[0]) -> Division | None:
    """The division into so many blocks, rows and warps; None if a thread has too few registers."""
    layout, units = wanted.layout, -(-wanted.hidden // blocks)
    units += -units % 8
    scattered = [_is_scattered(layout, o, wanted.bytes) for o in range(len(layout.operands))]
    products = [_product(each, scattered, units, blocks, wanted.bytes, warps) for each in layout.products]
    items = -(-units * rows // (32 * warps))
    room = min(MOST_REGISTERS, REGISTERS // (32 * warps) // 8 * 8) - OWN_REGISTERS - wanted.spare - _registers(layout)
    # Each further item needs registers for its values, each further tile of rows for its part of the operand.
    room -= (items - 1) * (len(layout.slots) + 8) + (rows // 8 - 1) * 16
    room -= max(0, *(4 * each.tiles * rows // 8 - 16 for each in products))
    if room < 0:
        return None
    for k, each in enumerate(products):
        held = min(each.depth_tiles * each.tiles, room // 4)
        products[k] = each._replace(held=held)
        room -= held * 4
    return _placed(wanted, Division(units, blocks, rows, warps, steps), products, scattered)


def _registers(layout: Layout) -> int:
    """An estimate of the registers for a cell's values: values that outlive a stage, and values that a stage makes for
    products."""
    lasting = [slot for slot in layout.slots.values() if slot.where == "GIVEN" and "T" not in slot.axes]
    histories = {r.value for results in layout.results for r in results if r.slot.axes == "TBH" and not r.adds}
    sums = sum(each.value not in histories for each in layout.sums)
    operands = sum(len(each.values) for each in layout.operands)
    return len(lasting) + 2 * (len(layout.kept) + sums) + 4 * operands + len(layout.reductions)


def _is_scattered(layout: Layout, operand: int, bytes: int) -> bool:
    """Whether scattering sends fewer bytes. Gathering sends all row blocks of an operand, scattering one float32 sum
    for each product."""
    readers = [each for each in layout.products if each.operand == operand]
    sent = len(layout.operands[operand].values) * bytes
    return all(each.transposed for each in readers) and sent > 4 * len(readers)


def _product(
    each: Multiplied, scattered: Sequence[bool], units: int, blocks: int, bytes: int, warps: int
) -> ProductForm:
    spread, chunks = scattered[each.operand], units * bytes // 16
    sums = (1 if each.transposed else len(each.of)) * units * (blocks if spread else 1)
    depth = (len(each.of) if each.transposed else 1) * chunks * (1 if spread else blocks)
    of_sums = -(-sums // 16)
    parts = 1 if spread or of_sums >= warps else warps // of_sums
    tiles = -(-of_sums // (warps // parts))
    pairs = -(-depth // (4 * parts))
    # This pitch avoids bank conflicts within a warp.
    pitch = units + 4 if spread else 16 * of_sums + 4
    return ProductForm(spread, sums, depth, parts, tiles, pairs, 0, pitch)


def _placed(wanted: Wanted, divided: Division, products: list[ProductForm], scattered: Sequence[bool]) -> Division:
    """The division with places in shared memory, one after another."""
    layout, bytes, at = wanted.layout, wanted.bytes, 0
    units, blocks, rows, threads = divided.units, divided.blocks, divided.rows, divided.threads

    def take(bytes: int) -> int:
        nonlocal at
        place, at = at, at + bytes
        return place

    chunks, operands = units * bytes // 16, []
    for o, operand in enumerate(layout.operands):
        room = [4 * p.parts * p.pairs for p, m in zip(products, layout.products, strict=True) if m.operand == o]
        whole, own = 16 * rows * max(room, default=0), 16 * rows * len(operand.values) * chunks
        own_at = take(whole if scattered[o] else own)
        gathered = 0 if scattered[o] else whole
        operands.append(OperandForm(scattered[o], max(operand.stages), own_at, take(2 * gathered), gathered))
    for k, each in enumerate(products):
        pieces = max(blocks, -(-(-(-each.sums // 16) * 16) // units)) if each.scattered else each.parts
        partial = take(4 * rows * pieces * each.pitch)
        received = take(2 * 4 * rows * units * blocks if each.scattered else 0)
        products[k] = each._replace(partial_at=partial, received_at=received)
    columns = ring_columns(layout)
    ring_bytes = len(columns) * rows * units * bytes
    ring = tuple(column._replace(at=k * rows * units * bytes) for k, column in enumerate(columns))
    ring_at = take(divided.steps * ring_bytes)
    reduced = _reduced(layout)
    counts = [len(each) for each in reduced]
    sources = max(len({v.args[0] for v in each}) for each in reduced)
    reduced_at, partial_at, numbers_at = (
        take(-(-bytes // 16) * 16)
        for bytes in (4 * sources * rows * (units + 1), PARTIAL * rows * max(counts), 4 * rows * max(counts))
    )
    merged_at = tuple(take(2 * PARTIAL * rows * count * blocks) for count in counts) if layout.reductions else ()
    barriers_at = at = max(at, LOADED * 16 * threads)
    take(16 * (len(operands) + len(products) + len(merged_at)))
    for k, each in enumerate(products):
        products[k] = each._replace(spilled_at=take(_spilled_bytes(each, threads)))
    placed = divided._replace(
        products=tuple(products),
        operands=tuple(operands),
        ring=ring,
        ring_at=ring_at,
        ring_bytes=ring_bytes,
        reduced_at=reduced_at,
        partial_at=partial_at,
        numbers_at=numbers_at,
        merged_at=merged_at,
        barriers_at=barriers_at,
        shared_bytes=at,
    )
    return placed._replace(seconds=_seconds(wanted, placed))


def _reduced(layout: Layout) -> list[list[Expression]]:
    """The reductions before each stage."""
    return [[v for stage, v in layout.reductions if stage == k] for k in range(layout.stages.count)]


def _spilled_bytes(product: ProductForm, threads: int) -> int:
    """Bytes of a block's weights that have no room in registers."""
    return (product.depth_tiles * product.tiles - product.held) * threads * 16


def ring_columns(layout: Layout) -> list[Column]:
    """The columns that a step reads from the caller's arrays over time, each once."""
    found, read = {}, {arg for block in layout.blocks for v in block for arg in v.inner}
    read |= {each.value for results in layout.results for each in results}
    read |= {v.args[0] for _, v in layout.reductions}
    read |= {each.value for each in layout.kept} | {v for each in layout.operands for v in each.values}
    for leaf, slot in layout.slots.items():
        if leaf in read and slot.axes == "TBH" and slot.where in ("GATE", "GIVEN", "BEFORE"):
            initial = f"initial.{leaf.args[0].removeprefix('before.')}" if slot.where == "BEFORE" else ""
            found[slot.array, slot.column, initial] = Column(slot.array, slot.column, initial)
    return [*found.values()]


def _seconds(wanted: Wanted, divided: Division) -> float:
    """The estimated seconds of a step."""
    layout, received = wanted.layout, divided.rows * divided.units * divided.blocks
    items = -(-divided.units * divided.rows // divided.threads)
    cycles, sent = (layout.stages.count - 1) * (STAGE_CYCLES + items * ITEM_CYCLES), []
    for form, operand in zip(divided.operands, layout.operands, strict=True):
        sent += [] if form.scattered else [received * len(operand.values) * wanted.bytes]
    for each in divided.products:
        tiles = -(-divided.warps // 4) * each.tiles * each.depth_tiles * divided.rows // 8
        cycles += PRODUCT_LATENCY + tiles * PRODUCT_CYCLES + _spilled_bytes(each, divided.threads) / SHARED_RATE
        sent += [received * 4] if each.scattered else []
    for some in filter(None, _reduced(layout)):
        cycles += STAGE_CYCLES + 2 * (divided.units + divided.blocks) * REDUCING_CYCLES
        sent += [PARTIAL * len(some) * divided.rows * divided.blocks]
    return sum(EXCHANGE_SECONDS + bytes / EXCHANGE_RATE for bytes in sent) + cycles / CLOCK_RATE
