"""gluonts' DeepAR and Temporal Fusion Transformer: 32 series of daily values."""

import torch
from gluonts.torch.model.deepar.module import DeepARModel
from gluonts.torch.model.tft.module import TemporalFusionTransformerModel

from .case import Case, Step, descent

BATCH, CONTEXT, AHEAD = 32, 60, 20


def _deepar():
    sizes = {"num_feat_dynamic_real": 4, "num_feat_static_real": 1, "num_feat_static_cat": 1, "cardinality": [8]}
    kind = {"num_layers": 2, "hidden_size": 64, "dropout_rate": 0.0}
    model = DeepARModel("D", CONTEXT, AHEAD, **sizes, **kind)

    def prepare() -> Step:
        past = model._past_length
        given = {
            "feat_static_cat": torch.randint(8, (BATCH, 1)),
            "feat_static_real": torch.randn(BATCH, 1),
            "past_time_feat": torch.randn(BATCH, past, 4),
            "past_target": torch.rand(BATCH, past),
            "past_observed_values": torch.ones(BATCH, past),
            "future_time_feat": torch.randn(BATCH, AHEAD, 4),
            "future_target": torch.rand(BATCH, AHEAD),
            "future_observed_values": torch.ones(BATCH, AHEAD),
        }
        return descent(model, lambda: model.loss(**given).mean())

    return model, prepare


def _tft():
    sizes = {"c_past_feat_dynamic_cat": [], "c_feat_dynamic_cat": [], "c_feat_static_cat": [8]}
    sizes |= {"d_past_feat_dynamic_real": [], "d_feat_dynamic_real": [4], "d_feat_static_real": [1]}
    model = TemporalFusionTransformerModel(
        context_length=CONTEXT, prediction_length=AHEAD, d_var=32, d_hidden=64, dropout_rate=0.0, **sizes
    )

    def prepare() -> Step:
        given = {
            "past_target": torch.rand(BATCH, CONTEXT),
            "past_observed_values": torch.ones(BATCH, CONTEXT),
            "feat_static_real": torch.randn(BATCH, 1),
            "feat_static_cat": torch.randint(8, (BATCH, 1)),
            "feat_dynamic_real": torch.randn(BATCH, CONTEXT + AHEAD, 4),
            "feat_dynamic_cat": torch.zeros(BATCH, CONTEXT + AHEAD, 0, dtype=torch.int64),
            "past_feat_dynamic_real": torch.zeros(BATCH, CONTEXT, 0),
            "past_feat_dynamic_cat": torch.zeros(BATCH, CONTEXT, 0, dtype=torch.int64),
            "future_target": torch.rand(BATCH, AHEAD),
            "future_observed_values": torch.ones(BATCH, AHEAD),
        }
        return descent(model, lambda: model.loss(**given).mean())

    return model, prepare


CASES = [Case("DeepAR, LSTM(64), 2 layers", _deepar), Case("TFT, LSTM(64)", _tft)]
