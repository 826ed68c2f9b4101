"""Settings that had other names before, or were not there: for presets, ``--set``, runs, models.

Renamed in version 0.2.0. An old name stays for at least two minor versions (CHANGELOG.md has the
rule).
"""

from collections.abc import Mapping
from typing import Any

from speechssl.config import Table
from speechssl.errors import ConfigError

RENAMED_TABLES = {"objective": "contrastive", "units": "hidden_units", "views": "two_views"}
RENAMED_TASKS = {"units": "hidden_units", "views": "two_views"}

# Settings that came after the first runs, and the values that mean what was done before. A run
# that was begun without them goes on with these.
ADDED = {
    "ctc.augment.shift_rows": 0,
    "ctc.augment.time_mask_rows": 20,
    "ctc.augment.time_masks": 0.0,
    "ctc.crf_share": 0.3,
    "ctc.criterion": "ctc",
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
