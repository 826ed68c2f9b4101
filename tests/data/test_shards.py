"""Shards that several processes make together."""

from pathlib import Path

import pytest
from support.folders import files_of
from support.recordings import damage, talk
from support.speech import RATE

from speechssl.audio.reader import write_wav
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.shards import ShardJob, ShardPart, join_parts


@pytest.mark.slow
def test_a_shard_divided_among_processes_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, config = tmp_path / "corpus", PrepareConfig(max_duration_s=60)
    corpus.mkdir()
    planted = damage(corpus)
    for k in range(20):
        write_wav(corpus / f"good{k:02d}.wav", talk([(0.1, 2.5)], seed=k), RATE)
    first = prepare(corpus, tmp_path / "one", config)
    monkeypatch.setattr("speechssl.data.shards.PART_FILES", 5)
    joined: list[int] = []

    def counted(task: ShardJob, pieces: list[ShardPart]) -> None:
        joined.append(len(pieces))
        join_parts(task, pieces)

    monkeypatch.setattr("speechssl.data.prepare.join_parts", counted)
    hours: list[float] = []
    second = prepare(
        corpus, tmp_path / "two", config, jobs=2, progress=lambda done, total: hours.append(done)
    )
    assert joined == [6]  # 32 files
    assert second == first
    assert second.num_reject_lines == len(planted)
    assert hours[-1] == pytest.approx(first.rows()[0][4])
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
