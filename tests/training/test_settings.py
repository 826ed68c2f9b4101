"""Settings that a run refuses together."""

import pytest
from reference.models import tiny_config

from speechssl.data.batches import BatchConfig
from speechssl.errors import ConfigError
from speechssl.runtime import ranks
from speechssl.training.settings import check_whole_updates

DIVIDED = BatchConfig(micro_seconds=5.0)


def test_a_batch_norm_wants_whole_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_config("batch-norm")
    check_whole_updates(encoder, BatchConfig())
    with pytest.raises(ConfigError, match=r"batch\.micro_seconds divides updates"):
        check_whole_updates(encoder, DIVIDED)

    monkeypatch.setattr(ranks, "count", lambda: 2)
    with pytest.raises(ConfigError, match="among 2 processes"):
        check_whole_updates(encoder, BatchConfig())


@pytest.mark.parametrize("kind", ["base", "logmel-4", "convolutions", "batch-norm"])
def test_other_encoders_may_divide_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 2)

    is_refused = False
    try:
        check_whole_updates(tiny_config(kind), DIVIDED)
    except ConfigError:
        is_refused = True

    assert is_refused == (kind == "batch-norm")
