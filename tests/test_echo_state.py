"""The echo state network: a reservoir of the requested spectral radius, and the read-out of ridge regression."""

import copy
import pickle

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

from seqcells import EchoStateNetwork

T, N, F, H, Y = 30, 3, 2, 20, 4
KIND = {"dtype": torch.float64}
pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def made(**options):
    return EchoStateNetwork(F, H, Y, **KIND | options)


def test_equations():
    network, x = made(leak=0.6), torch.randn(T, N, F, **KIND)
    layer, h, outputs = network.reservoir, torch.zeros(N, H, **KIND), []
    for step in x:
        h = 0.4 * h + 0.6 * torch.tanh(step @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T)
        outputs.append(network.readout(torch.cat([step, h], -1)))
    output, final = network(x)
    assert_close([output, final], [torch.stack(outputs), h[None]])
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"readout.weight", "readout.bias"}


@pytest.mark.parametrize("units", [1, 2, 3, 50])
@pytest.mark.parametrize("density", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("radius", [0.5, 1.25])
def test_the_reservoir_is_as_asked_for(units, density, radius):
    network = EchoStateNetwork(F, units, Y, density=density, spectral_radius=radius, input_scale=0.3, **KIND)
    weight = network.reservoir.weight_hh_l0
    assert torch.linalg.eigvals(weight).abs().max().item() == pytest.approx(radius)
    assert (weight != 0).sum(1).tolist() == [max(1, round(density * units))] * units
    assert network.reservoir.weight_ih_l0.abs().max() <= 0.3 and not network.reservoir.bias_hh_l0.any()


def test_a_seed_repeats_it():
    torch.manual_seed(1)
    first = made()
    torch.manual_seed(1)
    assert_close(made().state_dict(), first.state_dict(), rtol=0, atol=0)
    before = first.reservoir.weight_hh_l0.clone()
    first.reset_parameters()
    assert not torch.equal(first.reservoir.weight_hh_l0, before)


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 10.0])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_readout_is_that_of_ridge_regression(ridge, batch_first):
    """Compared with scikit-learn, on the steps after the washout and within the lengths."""
    network = made(batch_first=batch_first)
    x, y = torch.randn(T, N, F, **KIND), torch.randn(T, N, Y, **KIND)
    lengths = torch.tensor([30, 12, 3])
    hidden = network.reservoir(x.transpose(0, 1) if batch_first else x)[0]
    hidden = hidden.transpose(0, 1) if batch_first else hidden
    used = [(t, n) for t in range(5, T) for n in range(N) if t < lengths[n]]
    rows = torch.stack([torch.cat([x[place], hidden[place]]) for place in used])
    expected = Ridge(ridge, solver="svd").fit(rows.numpy(), torch.stack([y[place] for place in used]).numpy())
    given = (v.transpose(0, 1) if batch_first else v for v in (x, y))
    assert network.fit(*given, ridge=ridge, washout=5, lengths=lengths) is network
    assert_close(network.readout.weight.detach(), torch.as_tensor(expected.coef_), rtol=1e-6, atol=1e-8)
    assert_close(network.readout.bias.detach(), torch.as_tensor(expected.intercept_), rtol=1e-6, atol=1e-8)


def test_one_sequence_without_a_batch_axis():
    network, x, y = made(), torch.randn(T, F, **KIND), torch.randn(T, Y, **KIND)
    alone = copy.deepcopy(network).fit(x, y, washout=2, lengths=torch.tensor(20))
    assert_close(alone.state_dict(), network.fit(x[:20, None], y[:20, None], washout=2).state_dict())
    assert_close(alone(x)[0], network(x[:, None])[0][:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_learns_to_go_on(dtype):
    """A sum of sines: predicted one step ahead, then freely for 100 steps."""
    time = torch.arange(700, dtype=torch.float64) * 0.1
    wave = (torch.sin(time) / 3 + torch.sin(2.3 * time) / 2).to(dtype).view(-1, 1, 1)
    network = EchoStateNetwork(1, 200, 1, dtype=dtype).fit(wave[:599], wave[1:600], washout=100, ridge=1e-8)
    predicted, state = network(wave[:600])
    assert (predicted[200:-1] - wave[201:600]).abs().max() < 1e-2
    ahead = network.generate(predicted[-1], 99, state)
    assert (ahead - wave[601:700]).abs().max() < 0.1
    turned = copy.deepcopy(network)
    turned.reservoir.batch_first = True
    assert_close(turned.generate(predicted[-1], 99, state), ahead.transpose(0, 1))
    assert network.generate(predicted[-1], 0, state).shape == (0, 1, 1)


def test_copies_files_and_gradients():
    network, x = made(leak=0.7), torch.randn(T, N, F, **KIND)
    expected = network(x)[0]
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert_close(other(x)[0], expected)
    fresh = made(leak=0.7)
    fresh.load_state_dict(network.state_dict())
    assert_close(fresh(x)[0], expected)
    expected.sum().backward()
    assert network.readout.weight.grad is not None and network.reservoir.weight_hh_l0.grad is None


def test_what_cannot_be():
    x, y = torch.randn(T, N, F, **KIND), torch.randn(T, N, Y, **KIND)
    for wrong, error, words in (
        (lambda: made(leak=0.0), ValueError, "leak should be greater than zero and at most 1, got 0.0"),
        (lambda: made(density=2.0), ValueError, "density should be greater than zero and at most 1, got 2.0"),
        (lambda: made(spectral_radius=-1.0), ValueError, "spectral_radius should be greater than zero and finite"),
        (lambda: made(input_scale=float("inf")), ValueError, "input_scale should be greater than zero and finite"),
        (lambda: made().fit(x, y, ridge=0.0), ValueError, "ridge should be greater than zero"),
        (lambda: made().fit(x, y, washout=-1), ValueError, "washout should be an integer, not negative"),
        (lambda: made().fit(x, y, washout=T), ValueError, "no time step is left"),
        (lambda: made().fit(x, y[1:]), RuntimeError, r"Expected target of size \(30, 3, 4\), got \[29, 3, 4\]"),
        (lambda: made().fit(x, y, ridge=float("inf")), ValueError, "ridge should be greater than zero and finite"),
        (lambda: made().fit(x, y / 0), ValueError, "input and target should be finite"),
        (lambda: made().fit(x, y + 1j), TypeError, "target should be real"),
        (lambda: made().generate(x[0], 3), ValueError, "output_size should be input_size"),
        (lambda: made().generate(x[0, 0], 3), ValueError, r"input should be \(N, input_size\)"),
        (lambda: made()(pack_sequence([x[:, 0]])), TypeError, "input should be a Tensor, got PackedSequence"),
    ):
        with pytest.raises(error, match=words):
            wrong()


def test_padding_does_not_reach_gradients():
    network, x = made(), torch.randn(T, N, F, **KIND)
    x[5:, 1] = torch.nan
    output, _ = network(x, lengths=torch.tensor([T, 5, T]))
    (output[:5].sum() + output[:, 0].sum()).backward()
    assert network.readout.weight.grad.isfinite().all()


def test_it_can_be_made_where_nothing_lies():
    with torch.device("meta"):
        assert made().reservoir.weight_hh_l0.is_meta
