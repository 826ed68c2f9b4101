"""Settings that every training run has: its length, how often it does what, and what stops it."""

from pydantic import Field

from speechssl.config import Settings
from speechssl.data.batches import BatchConfig
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import ConfigError
from speechssl.runtime import ranks
from speechssl.runtime.device import Device, Precision
from speechssl.training.health import HealthConfig


class TrainConfig(Settings):
    """Length, cadence and safety of a run."""

    steps: int = Field(1000, ge=1, description="updates in all")
    seed: int = Field(0, ge=0)
    log_every: int = Field(25, ge=1, description="updates between progress lines")
    save_every: int = Field(200, ge=1, description="updates between checkpoints")
    validate_every: int = Field(
        200, ge=1, description="updates between measurements on the development set"
    )
    keep: int = Field(2, ge=1, description="checkpoints kept")
    max_bad_steps: int = Field(5, ge=1, description="non-finite updates in a row that stop the run")
    device: Device = Field("auto")
    precision: Precision = Field("float32", description="bfloat16: autocast of the matrix products")
    health: HealthConfig = Field(HealthConfig())


def check_whole_updates(encoder: EncoderConfig, batch: BatchConfig) -> None:
    """See that an encoder with a batch norm gets each update as one batch.

    Raises:
        ConfigError: updates are divided among batches or processes.
    """
    if not encoder.batch_norm:
        return

    why = "the batch norm of this encoder takes its statistics from whole updates"
    if batch.micro_seconds is not None:
        raise ConfigError(f"batch.micro_seconds divides updates, and {why}: leave it out")
    if ranks.count() > 1:
        raise ConfigError(
            f"torchrun divides updates among {ranks.count()} processes, and {why}: "
            "use one process, or encoder.batch_norm=false"
        )
