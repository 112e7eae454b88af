"""What a type checker says of calls: `make lint` reads this file, and nothing runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import seqcells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence
    from typing_extensions import assert_type

    def layers(input: Tensor, packed: PackedSequence, either: Tensor | PackedSequence, keep: Sequence[str]) -> None:
        lstm, gru, rnn = seqcells.LSTM(3, 4), seqcells.GRU(3, 4), seqcells.RNN(3, 4, 1, "relu")
        assert_type(lstm(input), tuple[Tensor, tuple[Tensor, Tensor]])
        assert_type(lstm(packed), tuple[PackedSequence, tuple[Tensor, Tensor]])
        assert_type(lstm(either), tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]])
        assert_type(gru(input), tuple[Tensor, Tensor])
        assert_type(rnn(packed), tuple[PackedSequence, Tensor])
        output, (h, c) = lstm(input, lengths=input)
        assert_type(lstm(output, (h, c), reset=input), tuple[Tensor, tuple[Tensor, Tensor]])
        # With keep= there is a third part.
        assert_type(lstm(input, keep=("c",)), tuple[Tensor, tuple[Tensor, Tensor], dict[str, Tensor]])
        assert_type(gru(packed, keep=["z"]), tuple[PackedSequence, Tensor, dict[str, PackedSequence]])
        found = gru(input, keep=keep)  # which may be none
        assert_type(found, tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]])

    def layers_of_other_cells(input: Tensor, layer: seqcells.RecurrentLayer) -> None:
        assert_type(layer(input), tuple[Tensor, Tensor | tuple[Tensor, ...]])
        peephole: seqcells.PeepholeLSTM = seqcells.PeepholeLSTM(3, 4, proj_size=2)
        assert_type(peephole(input), tuple[Tensor, tuple[Tensor, Tensor]])
        assert_type(seqcells.SLSTM(3, 4)(input)[1], tuple[Tensor, Tensor, Tensor, Tensor])
        stack = seqcells.Stack(seqcells.LSTM(3, 4), peephole)
        assert_type(stack.layers[0], seqcells.RecurrentLayer)

    def cells(input: Tensor, cell: seqcells.RecurrentCell) -> None:
        lstm, gru, rnn = seqcells.LSTMCell(3, 4), seqcells.GRUCell(3, 4), seqcells.RNNCell(3, 4)
        assert_type(lstm(input), tuple[Tensor, Tensor])
        assert_type(lstm(input, lstm(input), keep=("f",)), tuple[tuple[Tensor, Tensor], dict[str, Tensor]])
        assert_type(gru(input), Tensor)
        assert_type(rnn(input, gru(input)), Tensor)
        state: Tensor = cell(input)  # of any cell: whatever its step gives
        assert_type(state, Tensor)

    def made_of_torchs(lstm: seqcells.LSTM) -> None:
        assert_type(seqcells.LSTM.from_torch(lstm.to_torch()), seqcells.LSTM)
        assert_type(seqcells.GRUCell.from_torch(lstm), seqcells.GRUCell)
