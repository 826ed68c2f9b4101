"""A manifest as JSON lines: read back the same, wherever it lies."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record, write_jsonl
from speechssl.corpus.split_names import split_name
from speechssl.corpus.unicode_forms import composed


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


records = st.builds(
    Record,
    id=words.filter(bool),
    audio=st.lists(
        st.text("ab c'\"|\n\udcffé", min_size=1, max_size=6), min_size=1, max_size=3
    ).map("/".join),
    offset_s=st.floats(0, 1e6),
    duration_s=st.none() | st.floats(1e-3, 1e6),
    text=st.none() | words,
    # An empty name is none, and has one form of Unicode; a split has the name that we give it.
    speaker=st.none() | words.filter(bool).map(composed),
    split=words.map(split_name),
)


@given(st.lists(records, min_size=1, unique_by=lambda r: r.id))
@settings(max_examples=100, deadline=None)
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, listed: list[Record]) -> None:
    root = tmp_path_factory.getbasetemp() / "round"
    manifest = Manifest(root, tuple(sorted(listed, key=lambda r: r.id)))
    write_jsonl(manifest, root / "m.jsonl")
    data = (root / "m.jsonl").read_bytes()
    assert scan(root / "m.jsonl") == manifest
    write_jsonl(scan(root / "m.jsonl"), root / "m.jsonl")
    assert (root / "m.jsonl").read_bytes() == data


def test_jsonl_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "corpus/a/x.wav")
    manifest = scan(tmp_path / "corpus")
    write_jsonl(manifest, tmp_path / "above.jsonl")
    assert [r.audio for r in scan(tmp_path / "above.jsonl").records] == ["corpus/a/x.wav"]
    write_jsonl(manifest, tmp_path / "beside" / "m.jsonl")
    assert str(tmp_path) not in (tmp_path / "beside" / "m.jsonl").read_text()
    assert scan(tmp_path / "beside" / "m.jsonl", root=tmp_path / "corpus") == manifest
