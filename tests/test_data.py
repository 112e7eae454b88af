"""Batches for recurrent training: every sequence occurs once, ranks divide batches, and training resumes from any
position."""

import itertools
from functools import partial
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.data import DataLoader

import seqcells
from seqcells.data import BucketBatchSampler, ContiguousWindows, collate_padded

# Windows of one long sequence.


def windows(length=50, rows=3, steps=4, **options):
    return ContiguousWindows(torch.arange(length), rows, steps, **options)


def test_windows_go_on_where_those_before_ended():
    read = [*windows()]
    assert [(x.shape, y.shape) for x, y in read] == [((4, 3), (4, 3))] * 3
    assert torch.equal(torch.cat([x for x, _ in read]), torch.arange(12).unsqueeze(1) + torch.tensor([0, 16, 32]))
    assert all(torch.equal(y, x + 1) for x, y in read)
    assert all(torch.equal(before[-1], x[0]) for (_, before), (x, _) in pairwise(read))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 40), st.booleans())
def test_every_step_of_a_row_comes_once_and_ranks_divide_the_rows(ranks, share, steps, more, batch_first):
    rows, length = ranks * share, ranks * share * (steps + 1) + more
    batch, time = (0, 1) if batch_first else (1, 0)
    whole = [*windows(length, rows, steps, batch_first=batch_first)]
    each = length // rows
    read = torch.cat([x for x, _ in whole], time)
    expected = torch.arange(rows).unsqueeze(1) * each + torch.arange((each - 1) // steps * steps)
    assert torch.equal(read if batch_first else read.t(), expected)
    parts = zip(
        *(windows(length, rows, steps, batch_first=batch_first, rank=k, world_size=ranks) for k in range(ranks)),
        strict=True,
    )
    for found, shares in zip(whole, parts, strict=True):
        for one, some in zip(found, zip(*shares, strict=True), strict=True):
            assert torch.equal(one, torch.cat(some, batch)) and all(part.is_contiguous() for part in some)


def test_a_stateful_layer_reads_each_row_as_one_sequence():
    sequence = torch.randn(64, 3, dtype=torch.float64)
    layer = seqcells.GRU(3, 5, dtype=torch.float64, stateful=True)
    with torch.no_grad():
        read = torch.cat([layer(input)[0] for input, _ in ContiguousWindows(sequence, 2, 6)])
        layer.reset_states()
        whole, _ = layer(sequence.view(2, 32, 3).transpose(0, 1)[:30])
    assert_close(read, whole)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"length": 14}, ValueError, "a sequence of 14 steps has no 3 rows of 5"),
        ({"rows": 0}, ValueError, "rows should be 1 or above, got: 0"),
        ({"rows": 2.0}, TypeError, "rows should be of type int, got: float"),
        ({"steps": True}, TypeError, "steps should be of type int, got: bool"),
        ({"rank": 0, "world_size": 2}, ValueError, "3 rows are not divisible by 2 ranks"),
        ({"rank": 1}, ValueError, "rank and world_size should be given together"),
        ({"rank": 3, "world_size": 3}, ValueError, "rank should be below world_size, got 3 of 3"),
        ({"rank": -1, "world_size": 3}, ValueError, "rank should be 0 or above"),
    ],
)
def test_windows_refuse(change, error, words):
    with pytest.raises(error, match=words):
        windows(**change)


def test_a_sequence_is_a_tensor_with_a_time_axis():
    with pytest.raises(TypeError, match="sequence should be a tensor, got: list"):
        ContiguousWindows([1, 2, 3], 1, 1)
    with pytest.raises(ValueError, match="time axis"):
        ContiguousWindows(torch.tensor(1), 1, 1)
    assert len([*windows(15)]) == 1


# Batches of similar lengths.

LENGTHS = st.lists(st.integers(0, 40), min_size=4, max_size=60)
BUDGETS = st.one_of(
    st.builds(lambda k: {"batch_size": 12 * k}, st.integers(1, 3)),  # divisible by 1 to 4 ranks
    st.builds(lambda k: {"time_steps": 160 + k}, st.integers(0, 200)),
)
OPTIONS = st.fixed_dictionaries({"shuffle": st.booleans(), "seed": st.integers(0, 9), "pool": st.integers(1, 80)})


def on_ranks(ranks, lengths, budget, options):
    return [BucketBatchSampler(lengths, **budget, **options, rank=k, world_size=ranks) for k in range(ranks)]


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 4), LENGTHS, BUDGETS, OPTIONS)
def test_every_sequence_comes_once_in_an_epoch(ranks, lengths, budget, options):
    """Each sequence is on one of the ranks, and all ranks have equally many batches. The shares of a batch differ in at
    most one batch, and by at most one sequence."""
    samplers = on_ranks(ranks, lengths, budget, options)
    for _ in range(2):
        shares = [[*sampler] for sampler in samplers]
        assert len({*map(len, shares)}) == 1
        assert sorted(itertools.chain(*itertools.chain(*shares))) == [*range(len(lengths))]
        spread = [max(sizes) - min(sizes) for sizes in ([*map(len, batch)] for batch in zip(*shares, strict=True))]
        assert all(map(len, itertools.chain(*shares)))
        assert sorted(spread, reverse=True)[:2] in ([0, 0], [1, 0], [0], [1])
        assert any(spread) == bool(len(lengths) % ranks)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 4), LENGTHS, BUDGETS, OPTIONS)
def test_budgets_are_kept(ranks, lengths, budget, options):
    """Except for the batch with the remainder that the ranks do not divide, where a smaller batch would leave a rank
    without a sequence."""
    shares = zip(*on_ranks(ranks, lengths, budget, options), strict=True)
    for batch in (list(itertools.chain(*parts)) for parts in shares):
        if len(batch) % ranks and len(batch) < 2 * ranks:
            continue
        assert len(batch) <= budget.get("batch_size", len(lengths))
        assert len(batch) * max(lengths[k] for k in batch) <= budget.get("time_steps", 40 * len(lengths))


@settings(deadline=None, max_examples=100)
@given(LENGTHS, BUDGETS, OPTIONS)
@example([0] * 10 + [1, 1, 0], {"batch_size": 12}, {"shuffle": False, "seed": 0})
@example([40] + [0] * 12, {"batch_size": 12}, {"shuffle": False, "seed": 0})
def test_no_more_is_padded_than_without_buckets(lengths, budget, options):
    """Compared with batches that take sequences in order. Only full batches are compared: the last batch here has the
    longest sequences, the last batch there any."""
    [sampler] = on_ranks(1, lengths, budget, {**options, "pool": len(lengths)})
    if "batch_size" in budget:
        size = budget["batch_size"]

        def time_steps(batches):
            return sum(size * max(lengths[k] for k in batch) for batch in batches if len(batch) == size)

        rest = iter(range(len(lengths)))
        assert time_steps(sampler) <= time_steps(iter(lambda: [*islice(rest, size)], []))
    else:  # compared with batches of as many sequences as the budget allows
        assert len([*sampler]) <= len([*greedy(lengths, budget["time_steps"])])


def greedy(lengths, budget):
    batch = []
    for length in lengths:
        if batch and (len(batch) + 1) * max(*batch, length) > budget:
            yield batch
            batch = []
        batch.append(length)
    yield batch


def test_much_less_is_padded():
    lengths = torch.randint(1, 200, (5000,), generator=torch.Generator().manual_seed(0))
    batches = [lengths[batch] for batch in BucketBatchSampler(lengths, 32)]
    padded = sum(len(batch) * int(batch.max()) for batch in batches)
    assert padded < 1.05 * int(lengths.sum()) < 0.55 * len(lengths) * 199


def test_epochs_and_seeds_are_shuffled_otherwise():
    def batches(epoch=0, **options):
        sampler = BucketBatchSampler(range(1, 41), 4, pool=20, **options)
        sampler.set_epoch(epoch)
        return [*sampler]

    assert batches() == batches()
    assert len({str(each) for each in (batches(), batches(1), batches(seed=5), batches(shuffle=False))}) == 4
    assert batches(shuffle=False) == batches(7, shuffle=False) == [[*range(k, k + 4)] for k in range(0, 40, 4)]
    sampler = BucketBatchSampler(range(1, 41), 4, pool=20)
    assert [[*sampler], [*sampler]] == [batches(), batches(1)]  # epochs advance by themselves


@pytest.mark.parametrize(
    "lengths, options, error, words",
    [
        ([1, 2], {}, ValueError, "either batch_size or time_steps"),
        ([1, 2], {"batch_size": 2, "time_steps": 9}, ValueError, "either batch_size or time_steps"),
        ([1, 2], {"batch_size": 0}, ValueError, "batch_size should be 1 or above"),
        ([1, 2], {"batch_size": 2.0}, TypeError, "batch_size should be of type int, got: float"),
        ([1, 2, 3], {"batch_size": 3, "rank": 0, "world_size": 2}, ValueError, "3 sequences is not divisible by 2"),
        ([1], {"batch_size": 2, "rank": 0, "world_size": 2}, ValueError, "1 sequences are fewer than 2 ranks"),
        ([], {"batch_size": 2}, ValueError, "0 sequences are fewer than 1 ranks"),
        ([5, 6], {"time_steps": 5}, ValueError, "5 time steps have no room for a sequence of 6 on each of 1 ranks"),
        ([1, -2], {"batch_size": 2}, ValueError, "lengths should be 0 or above, got: -2"),
        ([1.5], {"batch_size": 1}, TypeError, "lengths should be integers"),
        ([[1, 2]], {"batch_size": 1}, TypeError, "lengths should be integers"),
        ([1, 2], {"batch_size": 1, "pool": 0}, ValueError, "pool should be 1 or above"),
        ([1, 2], {"batch_size": 1, "seed": -1}, ValueError, "seed should be 0 or above"),
    ],
)
def test_a_sampler_refuses(lengths, options, error, words):
    with pytest.raises(error, match=words):
        BucketBatchSampler(lengths, **options)


# Resuming.


def both_kinds(ranks=1, rank=0):
    place = {"rank": rank, "world_size": ranks}
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    yield windows(60, 4, 3, **place)
    yield BucketBatchSampler(lengths, 4, pool=6, **place)
    yield BucketBatchSampler(lengths, time_steps=40, **place)


def listed(batches):
    return [batch if isinstance(batch, list) else [part.tolist() for part in batch] for batch in batches]


@pytest.mark.parametrize("kind", range(3))
@settings(deadline=None, max_examples=30)
@given(taken=st.integers(0, 12))
def test_the_rest_is_the_same_after_any_number_of_batches(kind, taken):
    def endless(batches):
        while True:
            yield from batches

    undisturbed, stopped, fresh = ([*both_kinds()][kind] for _ in range(3))
    expected = [*islice(endless(undisturbed), 20)]
    [*islice(endless(stopped), taken)]
    fresh.load_state_dict(stopped.state_dict())
    assert listed(islice(endless(fresh), 20 - taken)) == listed(expected[taken:])
    assert fresh.state_dict() == undisturbed.state_dict()


@pytest.mark.parametrize("kind, ranks", [(0, 2), (0, 4), (1, 2), (1, 4)])
def test_another_number_of_ranks_goes_on(kind, ranks):
    one = [*both_kinds()][kind]
    [*islice(one, 2)]
    many = [[*both_kinds(ranks, rank)][kind] for rank in range(ranks)]
    for each in many:
        each.load_state_dict(one.state_dict())
    rest = [*one]
    found = [*zip(*many, strict=True)]
    assert len(found) == len(rest) > 0
    for batch, shares in zip(rest, found, strict=True):
        if kind:
            assert sorted(batch) == sorted(itertools.chain(*shares))
        else:
            assert torch.equal(batch[0], torch.cat([share[0] for share in shares], 1))


@pytest.mark.parametrize("count, before, after", [(13, 1, 2), (14, 1, 4), (14, 2, 4), (9, 2, 1)])
def test_another_number_of_ranks_is_refused_where_batches_are_others(count, before, after):
    """Where the ranks do not divide the number of sequences, one batch's size depends on the number of ranks."""
    state = BucketBatchSampler(range(count), 4, rank=0, world_size=before).state_dict()
    with pytest.raises(ValueError, match="state is that of other batches: its divisible_by"):
        BucketBatchSampler(range(count), 4, rank=0, world_size=after).load_state_dict(state)


def test_a_state_is_of_the_same_lengths():
    state = BucketBatchSampler(range(8), 4).state_dict()
    with pytest.raises(ValueError, match="state is that of other batches: its lengths"):
        BucketBatchSampler(range(8, 0, -1), 4).load_state_dict(state)


def test_a_loader_does_not_take_windows_for_a_table():
    """A loader would read the windows by index, and the windows would not know the position of the training."""
    windows = ContiguousWindows(torch.arange(40), 2, 4)
    with pytest.raises(TypeError, match="not subscriptable"):
        next(iter(torch.utils.data.DataLoader(windows, batch_size=None)))


@pytest.mark.parametrize(
    "items, error, words",
    [
        ([torch.tensor([1]), torch.tensor([1.5, 2.5])], TypeError, "sequences should be of one dtype"),
        ([(torch.ones(1), 2), (torch.ones(1),)], ValueError, "equally long tuples"),
    ],
)
def test_items_that_are_not_alike(items, error, words):
    with pytest.raises(error, match=words):
        collate_padded(items)


def test_the_same_epoch_keeps_its_position():
    sampler = BucketBatchSampler(range(1, 41), 4)
    whole = [*sampler]
    sampler.set_epoch(0)
    next(iter(sampler))
    sampler.set_epoch(0)
    assert [*sampler] == whole[1:]
    assert sampler.epoch == 1
    sampler.set_epoch(5)
    assert len([*sampler]) == 10


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"rows": 3}, ValueError, "its rows is 3, here it is 4"),
        ({"steps": 2}, ValueError, "its steps is 2, here it is 3"),
        ({"position": 9}, ValueError, "position 9 of an epoch that ends earlier"),
        ({"position": -1}, ValueError, "position should be 0 or above"),
        ({"epoch": 1.5}, TypeError, "epoch should be of type int"),
    ],
)
def test_a_state_of_other_batches_is_refused(change, error, words):
    read = windows(60, 4, 3)
    before = read.state_dict()
    with pytest.raises(error, match=words):
        read.load_state_dict({**before, **change})
    with pytest.raises(ValueError, match="state has no 'rows'"):
        read.load_state_dict({"epoch": 0, "position": 0})
    with pytest.raises(TypeError, match="state should be a mapping, got: int"):
        read.load_state_dict(3)
    assert read.state_dict() == before


def test_batches_by_time_steps_are_those_of_their_number_of_ranks():
    *_, one = both_kinds()
    *_, half = both_kinds(2)
    with pytest.raises(ValueError, match="its divisible_by is 1, here it is 2"):
        half.load_state_dict(one.state_dict())


# Padding.


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_data_loader_feeds_a_layer_with_lengths(batch_first):
    """The results equal those of each sequence alone."""
    lengths = [3, 7, 0, 5, 2, 6, 4]
    items = [(torch.randn(length, 2), k) for k, length in enumerate(lengths)]
    layer = seqcells.LSTM(2, 3, batch_first=batch_first)
    sampler = BucketBatchSampler(lengths, 3)
    loader = DataLoader(items, batch_sampler=sampler, collate_fn=partial(collate_padded, batch_first=batch_first))
    seen = []
    for input, sizes, labels in loader:
        assert sizes.tolist() == [lengths[k] for k in labels]
        steps, batch = (1, 0) if batch_first else (0, 1)
        assert input.shape[steps] == sizes.max() and input.shape[batch] == len(labels)
        _, (h, _) = layer(input, lengths=sizes)
        for place, k in enumerate(labels.tolist()):
            alone = layer(items[k][0])[1][0] if lengths[k] else torch.zeros(1, 3)
            assert_close(h[:, place], alone)
        seen += labels.tolist()
    assert sorted(seen) == [*range(7)] and len(loader) == 3


def test_sequences_alone_are_padded():
    input, lengths = collate_padded([torch.ones(2, 4), torch.ones(3, 4)])
    assert input.shape == (3, 2, 4) and lengths.tolist() == [2, 3]
    assert input[2, 0].tolist() == [0] * 4 and input.sum() == 20


@pytest.mark.parametrize(
    "items, error, words",
    [
        ([], ValueError, "got none"),
        ([[1, 2]], TypeError, "a sequence should be a tensor, got: list"),
        ([()], TypeError, "a sequence should be a tensor, got: NoneType"),
        ([torch.tensor(1)], ValueError, "first axis alone"),
        ([torch.ones(2, 3), torch.ones(2, 4)], ValueError, r"got shapes \(2, 3\) and \(2, 4\)"),
    ],
)
def test_padding_refuses(items, error, words):
    with pytest.raises(error, match=words):
        collate_padded(items)
