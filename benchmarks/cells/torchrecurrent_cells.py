"""The cells of torchrecurrent (0.2.5): which of our cells equals each, and torchrecurrent's weights made from ours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqcells.cells.activations import tanh as tanh_activation

Parameters = dict[str, Tensor]


class Theirs(NamedTuple):
    """A cell of torchrecurrent.

    Args:
        cell: our cell's name.
        name: the name of torchrecurrent's layer; the name of its cell ends in ``Cell``.
        weights: makes torchrecurrent's parameters by name from our parameters by name.
        arguments: the arguments of torchrecurrent's cell besides the sizes.
        call: (their step of x and a state, x, *our states) → its result, for cells whose states differ from ours.
        zeros: our parameter, the row block of it that their cell lacks, and the number of blocks.
        options: our cell's options.
    """

    cell: str
    name: str
    weights: Callable[[Parameters], Parameters] = dict
    arguments: Mapping[str, Any] = {}
    call: Callable[..., Any] | None = None
    zeros: tuple[str, int, int] | None = None
    options: Mapping[str, Any] = {}


THEIRS: list[Theirs] = []


def theirs(
    cell: str, name: str, weights: Any = dict, arguments: Any = (), call: Any = None, zeros: Any = None, **options: Any
) -> None:
    """Add a cell to the list `THEIRS`."""
    THEIRS.append(Theirs(cell, name, weights, dict(arguments), call, zeros, options))


def joined(**names):
    """Concatenate our weights and biases of several names along the rows, under torchrecurrent's one name for them."""

    def weights(w):
        for new, ours in names.items():
            for kind in ("weight", "bias"):
                found = [w.pop(f"{kind}_{name}") for name in ours.split() if f"{kind}_{name}" in w]
                if found:
                    w[f"{kind}_{new}"] = torch.cat(found)
        return w

    return weights


def renamed(**names):
    """Flatten our parameter and give it torchrecurrent's name."""

    def weights(w):
        for ours, new in names.items():
            w[new] = w.pop(ours).flatten()
        return w

    return weights


def after(*steps):
    """Apply several changes of the weights in order."""

    def weights(w):
        for step in steps:
            w = step(w)
        return w

    return weights


class HardSigmoid(torch.nn.Module):
    """The gradient of torch's own hard sigmoid has 1/6 rounded to float32, even in float64."""

    def forward(self, v: Tensor) -> Tensor:
        return torch.nn.functional.relu6(v + 3) / 6


peepholes = renamed(weight_peephole="weight_ph")


def zero_bias(w):
    """Our cell has one bias; torchrecurrent's second bias, beside the recurrent weight, is zero."""
    return {**w, "bias_hh": torch.zeros_like(w["bias_ih"])}


def zero_recurrent_bias(w):
    return {**w, "bias_hh": torch.zeros_like(w["weight_hh"])}


def of_the_last_input(w):
    w["weight_hh"] = w.pop("weight_last")
    return zero_bias(w)


def numbers(w):
    """torchrecurrent's names of learnable scalars have no prefix."""
    return {"alpha" if n == "weight_alpha" else "beta" if n == "weight_beta" else n: v for n, v in w.items()}


def bias_of_the_candidate_alone(w):
    """Their gate has no recurrent bias; our gate adds it to both sums."""
    return {**w, "bias_ih": w["bias_ih"] + torch.cat([w["bias_hh"], torch.zeros_like(w["bias_hh"])])}


def two_biases(w):
    """Their gate and candidate have two biases each; ours share two biases and have one more each."""
    made = {"weight_ih": w["weight_ih"], "weight_hh": w["weight_hh"], "zeta": w["weight_zeta"], "nu": w["weight_nu"]}
    twice = {name: torch.cat([w[name], w[name]]) for name in ("bias_ih", "bias_hh")}
    return made | twice | {"bias_ih": twice["bias_ih"] + w["weight_bias"].flatten()}


def with_the_input(block):
    """The paper's mutants equal theirs with one block of the input weight set to the identity, without bias."""

    def weights(w):
        size = len(w["weight_ih"]) // 2
        weight, bias = list(w["weight_ih"].split(size)), list(w["bias_ih"].split(size))
        weight.insert(block, torch.eye(size, dtype=weight[0].dtype))
        bias.insert(block, torch.zeros_like(bias[0]))
        made = joined(hh="hh candidate")(w)
        return made | {"weight_ih": torch.cat(weight), "bias_ih": torch.cat(bias)}

    return weights


def delay_after_u(w):
    """In their recurrent weight, the block of the delayed product follows the block of u."""
    for kind in ("weight", "bias"):
        u, *others = w[f"{kind}_hh"].chunk(3)
        w[f"{kind}_hh"] = torch.cat([u, w.pop(f"{kind}_delayed"), *others])
    return w


def content_apart(w):
    """Their content, the first block of the input weight, has no bias."""
    return {**w, "bias_ih": torch.cat(w["bias_ih"].chunk(3)[1:])}


def residual_apart(w):
    """Their residual weight, the last block of our input weight, has no bias."""
    *gates, w["weight_res"] = w["weight_ih"].chunk(5)
    made = {"weight_ih": torch.cat(gates), "bias_ih": torch.cat(w["bias_ih"].chunk(5)[:4])}
    return joined(proj="projection")(peepholes(w)) | made


theirs("antisymmetric_rnn", "AntisymmetricRNN", arguments={"epsilon": 0.1, "gamma": 0.01})
theirs(
    "gated_antisymmetric_rnn",
    "GatedAntisymmetricRNN",
    bias_of_the_candidate_alone,
    {"epsilon": 0.3, "gamma": 0.2},
    epsilon=0.3,
    gamma=0.2,
)
theirs("atr", "ATR")
theirs("br", "BR", after(renamed(weight_recurrent="weight_hh"), zero_recurrent_bias))
theirs("cfn", "CFN")
theirs("control_gate_lstm", "MCLSTM")
theirs("cornn", "coRNN", joined(ch="velocity"))
theirs("dsgu", "DSGU", joined(hh="gate hh", ho="out"), {"gate_nonlinearity": HardSigmoid()})
theirs("fast_grnn", "FastGRNN", two_biases, gate_activation=tanh_activation)
theirs("fast_rnn", "FastRNN", numbers)
theirs("indrnn", "IndRNN", after(renamed(weight_recurrent="vector_u"), zero_bias), {"nonlinearity": "relu"})
theirs("intersection_rnn", "IntersectionRNN")
theirs("janet_beta", "JANET", lambda w: {**w, "beta": torch.ones(())}, call=lambda own, x, h: own(x, (h, h))[1])
theirs("lem", "LEM", joined(ch="slow"), {"dt": 0.5}, dt=0.5, renewed=False)
theirs("light_ru", "LightRU")
theirs("ligru", "LiGRU")
theirs("linear_mut1", "MUT1", joined(hh="hh candidate"))
theirs("linear_mut2", "MUT2", joined(hh="hh candidate"))
theirs("mgu", "MGU", joined(hh="hh candidate"))
theirs("minimal_rnn", "MinimalRNN", joined(mm="latent"))
theirs("miru1", "MiRU1", joined(hh="hh candidate"), {"update_coefficient": 0.7}, update=0.7)
theirs(
    "miru2",
    "MiRU2",
    joined(hh="candidate"),
    {"update_coefficient": 0.7, "reset_coefficient": 0.2},
    reset=0.2,
    update=0.7,
)
theirs("multiplicative_lstm", "MultiplicativeLSTM", joined(mh="intermediate"))
theirs("mut1", "MUT1", with_the_input(2))
theirs("mut2", "MUT2", with_the_input(1))
theirs("mut3", "MUT3", joined(hh="update hh candidate"))
theirs("nas", "NAS", multiplied=False)
theirs("nbr", "NBR")
theirs("original_lstm", "OriginalLSTM", rescaled=False)
theirs("peephole_lstm", "PeepholeLSTM", peepholes)
theirs("ran", "RAN", content_apart, zeros=("bias_ih", 0, 3))
theirs("residual_lstm", "ResLSTM", residual_apart, zeros=("bias_ih", 4, 5))
theirs("sgrn", "SGRN")
theirs("sgu", "SGU", joined(hh="gate hh"), {"gate_nonlinearity": HardSigmoid()})
theirs("star", "STAR")


def with_delayed(own, x, h, *past):
    return own(x, h, past[-1]), h, *past[:-1]


theirs("tau_gru", "tauGRU", delay_after_u, call=with_delayed, delay=1)  # the delay of torchrecurrent's layer
theirs("tau_gru", "tauGRU", delay_after_u, call=with_delayed)
theirs("tgru", "TGRU", of_the_last_input)
theirs("tlstm", "TLSTM", of_the_last_input)
theirs("trnn", "TRNN")
theirs("ugrnn", "UGRNN")
theirs(
    "unicornn",
    "UnICORNN",
    after(renamed(weight_recurrent="weight_hh", weight_control="weight_ch"), zero_bias),
    {"alpha": 0.5},
)
theirs("working_memory_lstm", "WMCLSTM", joined(mh="memory exposed"))
