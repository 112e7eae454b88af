"""The classic tasks of recurrent networks: a layer has learnt what each example teaches."""

import copy
import importlib
import math
import string
from itertools import islice, pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytestmark = pytest.mark.usefixtures("examples_on_path")
each_layer = pytest.mark.parametrize("layer", ["torch", "seqcells"])
each_cell = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])


def scores(example, *arguments):
    return importlib.import_module(example).main(arguments).scores


def model_of(example, name, *arguments, **others):
    """The untrained model of an example in float64, its options, and the example."""
    module, training = importlib.import_module(example), importlib.import_module("training")
    options = training.parser(None, steps=1).parse_args(["--hidden=6", *arguments])
    vars(options).update(others)
    return getattr(module, name)(options).double(), options, module


def as_tuple(states):
    return states if isinstance(states, tuple) else (states,)


# What is learnt.


def test_the_signal_is_foretold_and_goes_on_by_itself():
    """A model that predicts 2 sin(5t) alone has the error 0.236; a model that predicts zero has 1.434."""
    trained = scores("sine", "--steps=400", "--batch=16")
    assert trained["one step"] < 0.05
    assert trained["running free"] < 0.2
    untrained = scores("sine", "--steps=0")
    assert min(untrained.values()) > 1


@pytest.mark.parametrize(
    "small, bar",
    [
        (["--digits=3", "--hidden=64", "--steps=250"], 0.9),
        pytest.param(["--task=add"], 0.75, marks=pytest.mark.heavy),
    ],
    ids=["reverse", "add"],
)
def test_questions_held_out_are_answered(small, bar):
    trained = scores("sequence_to_sequence", *small)
    assert trained["answers"] > bar
    assert trained["tokens"] > bar
    assert scores("sequence_to_sequence", *small, "--steps=0")["answers"] < 0.05


def test_prose_is_told_from_code():
    """Two thirds of the lines are code."""
    small = "--hidden=16", "--lines=3000", "--length=40", "--rate=1e-2"
    assert scores("many_to_one", *small, "--steps=120")["told"] > 0.8
    assert scores("many_to_one", *small, "--steps=0")["told"] < 0.75


def test_drawings_are_recognised():
    assert scores("one_to_many", "--hidden=64", "--steps=300")["recognised"] >= 0.8
    assert scores("one_to_many", "--hidden=64", "--steps=0")["recognised"] <= 0.3


def test_digits_are_read_by_rows():
    small = "--hidden=32", "--rate=1e-2"
    assert scores("digits", *small, "--steps=150")["right"] > 0.75
    assert scores("digits", *small, "--steps=0")["right"] < 0.3


def test_carried_states_know_what_is_long_past():
    """In this text, dots and letters cost at least 0.49 nats a character on average; characters that the past
    determines cost nothing more."""
    small = "--text=keys", "--cell=gru", "--hidden=32", "--batch=16", "--length=8", "--characters=30000"
    trained = *small, "--rate=1e-2", "--steps=500", "--initial=xavier-orthogonal"
    assert scores("stateful_text", *trained)["held out"] < 0.54
    assert scores("stateful_text", *trained, "--no-stateful")["held out"] > 0.57


# A model that reads its own outputs.


@each_layer
@each_cell
def test_running_free_is_hearing_oneself(layer, cell):
    """The result equals reading again, at each step, all given and predicted samples."""
    model, _, sine = model_of("sine", "Foreteller", f"--layer={layer}", f"--cell={cell}")
    heard = sine.signal(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64), 7)
    samples = heard
    with torch.no_grad():
        for _ in range(5):
            samples = torch.cat([samples, model(samples)[0][-1:]])
    assert_close(model.run_free(heard, 5), samples[7:], rtol=0, atol=1e-12)


def test_the_signal():
    sine = importlib.import_module("sine")
    samples = sine.signal(torch.tensor([0.0, 2.0], dtype=torch.float64), 4)
    times = [[start + sine.INTERVAL * k for start in (0, 2)] for k in range(4)]
    expected = [[[math.sin(t) / 3 + 2 * math.sin(5 * t)] for t in row] for row in times]
    assert_close(samples, torch.tensor(expected, dtype=torch.float64))


@each_layer
@each_cell
def test_an_answer_is_the_likeliest_after_itself(layer, cell):
    """The answer equals reading again, at each step, the question without its padding and the answer so far."""
    found = model_of("sequence_to_sequence", "Answerer", f"--layer={layer}", f"--cell={cell}", task="add", digits=3)
    model, options, module = found
    drawn = islice(module.exercises(options, False, torch.Generator().manual_seed(0)), 5)
    questions, lengths, _ = module.padded(drawn)
    assert len({*lengths.tolist()}) > 1
    answers = model.answer(questions, lengths, 6)
    for column, length in enumerate(lengths.tolist()):
        question, said = questions[:length, column], [module.TOKENS["."]]
        for _ in range(6):
            _, hx = model.encoder(model.embedding(question))
            output, _ = model.decoder(model.embedding(torch.tensor(said)), hx)
            said.append(model.head(output[-1]).argmax().item())
        assert answers[:, column].tolist() == said[1:]


@each_layer
@each_cell
def test_a_drawing_is_of_the_rows_above(layer, cell):
    model, *_ = model_of("one_to_many", "Drawer", f"--layer={layer}", f"--cell={cell}")
    labels, rows = torch.tensor([3, 0, 9]), torch.zeros(1, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(8):
            rows = torch.cat([rows, model(labels, rows)[-1:].sigmoid()])
    assert_close(model.draw(labels), rows[1:].transpose(0, 1), rtol=0, atol=1e-12)


# The data.


@pytest.mark.parametrize("task", ["reverse", "add"])
@pytest.mark.parametrize("held_out", [False, True])
def test_exercises(task, held_out):
    module = importlib.import_module("sequence_to_sequence")
    options = module.parser(None, steps=1).parse_args([])
    vars(options).update(task=task, digits=4)
    drawn = islice(module.exercises(options, held_out, torch.Generator().manual_seed(0)), 50)
    questions, lengths, answers = module.padded(drawn)
    signs = [*module.TOKENS]
    for column, length in enumerate(lengths.tolist()):
        question = "".join(signs[token] for token in questions[:length, column].tolist())
        answer = "".join(signs[token] for token in answers[:, column].tolist() if token != module.PADDING)
        expected = question[::-1] if task == "reverse" else str(sum(map(int, question.split("+"))))
        assert answer == f".{expected}."
        assert (answers[len(answer) :, column] == module.PADDING).all()
        assert module.is_held_out(question) == held_out
    assert lengths.max() == len(questions)


def test_prose_is_what_comments_and_docstrings_hold():
    source = '''def f(x):
    """What it gives.

    More of that."""
    # Why so.
    return "x" * x  # a note
'''
    labelled = [*importlib.import_module("many_to_one").labelled(source)]
    assert labelled == [
        ("def f(x):", False),
        ("What it gives.", True),
        ("More of that.", True),
        ("Why so.", True),
        ('return "x" * x  # a note', False),
    ]


def test_the_key_is_what_the_question_mark_asks_for():
    stateful = importlib.import_module("stateful_text")
    text = "".join(string.printable[index] for index in stateful.keys(2000))
    assert len(text) == 2000
    blocks = text.split("?")
    assert all(after[0] == before.strip(".")[-1].lower() for before, after in pairwise(blocks))
    assert max(map(len, blocks)) > 12 > 5 > min(map(len, blocks))


# Carried states.


@each_layer
@each_cell
def test_carried_states_make_one_stretch_of_many(layer, cell):
    """Outputs and states equal those of one pass; gradients are those of the window alone."""
    arguments = f"--layer={layer}", f"--cell={cell}"
    model, _, stateful = model_of("stateful_text", "CharacterModel", *arguments)
    text = torch.randint(100, (23, 3))
    expected, final = model(text)
    plain, read = copy.deepcopy(model), stateful.Carried(model)
    outputs = []
    for window in text.split(6):
        before = read.states
        outputs.append(read(window))
        found = torch.autograd.grad(outputs[-1].square().sum(), [*model.parameters()])
        alone = torch.autograd.grad(plain(window, before)[0].square().sum(), [*plain.parameters()])
        assert_close(found, alone, rtol=0, atol=1e-12)
    assert_close(torch.cat(outputs), expected, rtol=0, atol=1e-12)
    assert_close(as_tuple(read.states), as_tuple(final), rtol=0, atol=1e-12)
    assert not any(state.requires_grad for state in as_tuple(read.states))
    read.reset_states()
    assert_close(read(text), expected, rtol=0, atol=1e-12)


# What the examples share.


@each_layer
@each_cell
def test_final_states_are_those_at_the_lengths(layer, cell):
    training = importlib.import_module("training")
    options = training.parser(None, steps=1).parse_args([f"--layer={layer}", f"--cell={cell}", "--hidden=5"])
    module = training.recurrent(options, 3, bidirectional=True).double()
    input, lengths = torch.randn(6, 4, 3, dtype=torch.float64), torch.tensor([2, 6, 1, 4])
    found = as_tuple(training.final_states(module, input, lengths))
    alone = [as_tuple(module(input[:length, k])[1]) for k, length in enumerate(lengths.tolist())]
    assert_close(found, tuple(torch.stack(states, 1) for states in zip(*alone, strict=True)), rtol=0, atol=1e-12)


@each_layer
@each_cell
def test_initial_values_of_xavier_and_orthogonal(layer, cell):
    training = importlib.import_module("training")
    arguments = f"--layer={layer}", f"--cell={cell}", "--hidden=16", "--initial=xavier-orthogonal"
    module = training.recurrent(training.parser(None, steps=1).parse_args(arguments), 48, num_layers=2)
    eye, seen = torch.eye(16), set()
    for name, parameter in module.named_parameters():
        gates = parameter.detach().split(16)
        assert len(gates) == {"lstm": 4, "gru": 3, "rnn": 1}[cell]
        for index, gate in enumerate(gates):
            if name.startswith("weight_hh"):
                assert_close(gate @ gate.t(), eye, rtol=0, atol=1e-5)
            elif name.startswith("weight_ih"):
                bound = math.sqrt(6 / sum(gate.shape))
                assert 0.9 * bound < gate.abs().max() <= bound
                assert gate.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            else:
                of_forget_gate = cell == "lstm" and name.startswith("bias_ih") and index == 1
                assert torch.equal(gate, torch.full((16,), float(of_forget_gate)))
        seen.add(name[:-3])
    assert seen == {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}


@each_cell
@pytest.mark.parametrize("initial", ["default", "xavier-orthogonal"])
def test_initial_values_are_the_same_in_both_packages(cell, initial):
    training, found = importlib.import_module("training"), []
    for layer in training.LAYERS:
        arguments = f"--layer={layer}", f"--cell={cell}", f"--initial={initial}", "--hidden=7"
        torch.manual_seed(3)
        found.append(training.recurrent(training.parser(None, steps=1).parse_args(arguments), 5, num_layers=2))
    ours, theirs = (module.state_dict() for module in found)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "arguments, bound",
    [([], 1.0), (["--clip=0.25"], 0.25), (["--clip=1e9"], None), (["--clip=0"], None), (["--clip=off"], None)],
    ids=str,
)
def test_gradients_are_clipped(arguments, bound):
    """After a step, the gradients are the clipped ones that the step used."""
    training = importlib.import_module("training")
    options = training.parser(None, steps=1).parse_args(arguments)
    model = nn.Linear(3, 2)
    input = torch.randn(4, 3)

    def loss_of(chance):
        return 100 * model(input).square().sum()

    expected = torch.autograd.grad(loss_of(None), [*model.parameters()])
    norm = torch.cat([gradient.flatten() for gradient in expected]).norm()
    assert norm > 10
    training.train(options, model, loss_of)
    scale = 1.0 if bound is None else bound / norm
    assert_close([p.grad for p in model.parameters()], [scale * gradient for gradient in expected])


@pytest.mark.parametrize("bound", ["-1", "nan", "none"])
def test_no_norm_is_none(bound, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("training").parser(None, steps=1).parse_args([f"--clip={bound}"])
    assert "--clip" in capsys.readouterr().err
