"""The settings of ``prepare``, and the only place of their defaults."""

from pydantic import Field

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.formats import MAX_DURATION_S
from speechssl.audio.threshold import TOP_DB
from speechssl.config import Settings


class PrepareConfig(Settings):
    """How recordings become chunks."""

    features: FeatureConfig = Field(FeatureConfig(), description="what the store holds")
    min_chunk_s: float = Field(2.0, gt=0, description="shortest chunk of unlabelled audio, seconds")
    max_chunk_s: float = Field(
        15.0, gt=0, le=120, description="longest chunk of unlabelled audio, seconds"
    )
    top_db: float = Field(
        TOP_DB, gt=0, description="silence is this far below the loudest part around it, dB"
    )
    max_duration_s: float = Field(
        MAX_DURATION_S, gt=0, description="a file longer than this is rejected, seconds"
    )
    max_utterance_s: float = Field(
        300.0, gt=0, description="a transcribed utterance longer than this is rejected, s"
    )
    max_bad_fraction: float = Field(
        0.05, ge=0, le=1, description="share of rejected files that is still fine"
    )
    dev: float | None = Field(
        None, ge=0, lt=1, description="share for dev; None: 0.1 with transcripts, else 0"
    )
    test: float | None = Field(
        None, ge=0, lt=1, description="share for test; None: 0.1 with transcripts, else 0"
    )
    shard_files: int = Field(500, gt=0, description="most files in a shard")
    shard_bytes: int = Field(
        64_000_000, gt=0, description="source bytes after which a shard is full"
    )
