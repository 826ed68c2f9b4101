"""Settings that have or had other names, or were not there: for presets, ``--set``, runs, models.

Renamed in version 0.2.0. An old name stays for at least two minor versions (CHANGELOG.md has the
rule).
"""

from collections.abc import Mapping
from typing import Any

from speechssl.config import Table
from speechssl.errors import ConfigError

RENAMED_TABLES = {"objective": "contrastive", "units": "hidden_units", "views": "two_views"}
RENAMED_TASKS = {"units": "hidden_units", "views": "two_views"}

# What transformers, fairseq, NeMo, SpeechBrain and Lightning call settings that we have: a message
# about an unknown setting names ours.
_USUAL = {
    "optim.lr": "learning_rate max_lr peak_lr base_lr",
    "optim.schedule": "lr_scheduler lr_scheduler_type scheduler sched",
    "optim.warmup": "warmup_steps warmup_ratio warmup_updates num_warmup_steps",
    "optim.weight_decay": "wd l2",
    "optim.clip_norm": "max_grad_norm clip_grad grad_clip gradient_clipping gradient_clip_val",
    "optim.eps": "adam_epsilon adam_eps epsilon",
    "optim.beta1": "adam_beta1 betas",
    "optim.beta2": "adam_beta2",
    "batch.seconds": "batch_size train_batch_size per_device_train_batch_size max_tokens",
    "batch.micro_seconds": "gradient_accumulation_steps accumulate_grad_batches update_freq",
    "train.steps": "max_steps max_update num_steps epochs num_epochs num_train_epochs max_epochs",
    "train.validate_every": "eval_steps val_check_interval validate_interval",
    "train.save_every": "save_steps save_interval checkpoint_every",
    "train.log_every": "logging_steps log_interval log_every_n_steps",
    "train.keep": "save_total_limit keep_last_epochs save_top_k",
    "train.precision": "bf16 fp16 mixed_precision dtype amp",
    "encoder.width": "hidden_size embed_dim encoder_embed_dim d_model",
    "encoder.num_layers": "num_hidden_layers encoder_layers n_layers",
    "encoder.num_heads": "num_attention_heads encoder_attention_heads attention_heads n_heads",
    "encoder.ffn_width": "intermediate_size encoder_ffn_embed_dim ffn_dim d_ff",
    "encoder.dropout": "hidden_dropout dropout_rate",
    "encoder.layer_drop": "layerdrop encoder_layerdrop",
    "mask.prob": "mask_time_prob mask_prob",
    "mask.length": "mask_time_length mask_length",
}
USUAL_NAMES = {name: setting for setting, names in _USUAL.items() for name in names.split()}

# The changes of log-mel rows that came later, in each table that holds such changes.
_ADDED_CHANGES = {"noise": 0.0, "shift_rows": 0, "time_mask_rows": 20, "time_masks": 0.0}
_CHANGED_BY = ("ctc", "hidden_units", "two_views")

# Settings that came after the first runs, and the values that mean what was done before. A run
# that was begun without them goes on with these.
ADDED = {
    f"{table}.augment.{name}": value
    for table in _CHANGED_BY
    for name, value in _ADDED_CHANGES.items()
} | {
    "ctc.crf_share": 0.3,
    "ctc.criterion": "ctc",
    "ctc.max_epochs": None,
    "encoder.batch_norm": False,
    "encoder.context": "transformer",
    "encoder.dilations": [1, 1, 2, 2, 3, 3],
    "encoder.front_end": "conv1d",
    "encoder.mel_norm": "utterance",
    "encoder.mel_stride": 2,
}


def with_current_names(table: Mapping[str, Any]) -> Table:
    """Rename the settings of a run that had other names before.

    Args:
        table: settings of a run, in which tables are mappings.

    Returns:
        The same settings under the names that they have now.

    Raises:
        ConfigError: a setting is there under both names.
    """
    current: Table = {}

    for name, value in table.items():
        new_name = RENAMED_TABLES.get(name, name)
        if new_name != name and new_name in table:
            raise ConfigError(
                f"{name} is the old name of {new_name}, and both are given: leave {name} out"
            )
        current[new_name] = value

    task = current.get("task")
    if isinstance(task, str):
        current["task"] = RENAMED_TASKS.get(task, task)
    return current
