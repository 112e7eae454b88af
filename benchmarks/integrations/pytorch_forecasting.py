"""pytorch-forecasting's Temporal Fusion Transformer, DeepAR and recurrent network: 64 series, some of them short."""

import numpy as np
import pandas as pd
from pytorch_forecasting import DeepAR, RecurrentNetwork, TemporalFusionTransformer, TimeSeriesDataSet
from pytorch_forecasting.data import GroupNormalizer

from .case import Case, Step, descent

SERIES, LENGTH, CONTEXT, AHEAD = 64, 80, 48, 12


def _data(min_encoder: int) -> TimeSeriesDataSet:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"series": np.repeat(np.arange(SERIES), LENGTH), "time": np.tile(np.arange(LENGTH), SERIES)})
    frame["value"] = np.sin(frame.time / 7 + frame.series) + 2 + 0.1 * random.standard_normal(len(frame))
    return TimeSeriesDataSet(
        frame.astype({"value": "float32"}),
        time_idx="time",
        target="value",
        group_ids=["series"],
        min_encoder_length=min_encoder,
        max_encoder_length=CONTEXT,
        max_prediction_length=AHEAD,
        time_varying_known_reals=["time"],
        time_varying_unknown_reals=["value"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )


def _trained(kind, min_encoder: int, **options):
    def make():
        data = _data(min_encoder)
        model = kind.from_dataset(data, **options)

        def prepare() -> Step:
            x, (y, _) = next(iter(data.to_dataloader(train=True, batch_size=32, num_workers=0)))
            return descent(model, lambda: model.loss(model(x)["prediction"], y))

        return model, prepare

    return make


CASES = [
    Case("TFT, LSTM(64)", _trained(TemporalFusionTransformer, 0, hidden_size=64, dropout=0.0)),
    Case("DeepAR, LSTM(64), 2 layers", _trained(DeepAR, CONTEXT, hidden_size=64, rnn_layers=2, dropout=0.0)),
    Case("network, GRU(64)", _trained(RecurrentNetwork, CONTEXT, cell_type="GRU", hidden_size=64, rnn_layers=1)),
]
