"""Settings of runs that take seconds."""

import json

from speechssl.config import build
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.settings import FinetuneSettings
from support.models import SMALL_ENCODER

SETTINGS = {
    "encoder": SMALL_ENCODER,
    "quantizer": {"num_codes": 16, "width": 16},
    "contrastive": {"num_negatives": 10, "width": 16},
    "mask": {"length": 3},
    "optim": {"lr": 1e-3},
    "batch": {"seconds": 12, "crop_s": 3},
    "train": {"steps": 24, "log_every": 4, "save_every": 5, "device": "cpu"},
}


def as_toml(table: dict[str, object], prefix: str = "") -> str:
    plain = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    tables = [
        f"[{prefix}{k}]\n{as_toml(v, f'{prefix}{k}.')}"
        for k, v in table.items()
        if isinstance(v, dict)
    ]
    return "\n".join([*plain, *tables]) + "\n"


FEW = {"steps": 6, "validate_every": 3, "save_every": 3, "log_every": 3, "device": "cpu"}
PRETRAIN = build(
    PretrainSettings,
    {
        "encoder": SMALL_ENCODER,
        "quantizer": {"num_codes": 16, "width": 16},
        "contrastive": {"num_negatives": 10, "width": 16},
        "batch": {"seconds": 20, "crop_s": 3},
        "train": {"steps": 6, "device": "cpu"},
    },
)


def tuned(**changes: object) -> FinetuneSettings:
    table: dict[str, object] = {
        "encoder": SMALL_ENCODER,
        "ctc": {
            "train_front_end": True,
            "time_mask": {"prob": 0.1, "length": 2},
            "channel_mask_prob": 0.0,
        },
        "optim": {"lr": 3e-3, "schedule": "tri_stage", "warmup": 0.1},
        "batch": {"seconds": 20},
        "train": FEW,
    }
    return build(FinetuneSettings, table | changes)
