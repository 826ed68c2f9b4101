"""A saved folder is wholly there or not at all, and whatever happens to its bytes is noticed."""

import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.folders import seal
from torch import nn

from speechssl.errors import CheckpointError
from speechssl.storage.checkpoint import (
    TENSORS,
    load_folder,
    load_into,
    load_record,
    remove_folder,
    remove_partial,
    save_folder,
)
from speechssl.storage.saved_folders import (
    RECORD,
    checkpoints,
    model_folder,
    step_folder,
    stored_folder,
)

TENSOR = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_folder(folder, TENSOR, {"kind": "test", "step": 3}, {"words.txt": b"one\ntwo\n"})
    return folder


def test_round_trip(tmp_path: Path) -> None:
    tied = torch.randn(3)
    tensors = {
        "float": torch.randn(4, 5),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "integer": torch.tensor([2**60]),
        "bool": torch.tensor([True, False]),
        "transposed": torch.randn(2, 3).T,
        "empty": torch.zeros(0, 3),
        "tied one": tied,
        "tied two": tied,
        "learned": nn.Parameter(torch.randn(2)),
        "not a number": torch.tensor([torch.nan, torch.inf]),
    }
    record = {"é": [1, 2.5, None, True], "nested": {"third": 1 / 3}, "odd name": "\udcff"}

    save_folder(tmp_path / "new" / "folder", tensors, record, {"words.txt": b"one"})
    loaded, found = load_folder(tmp_path / "new" / "folder")
    assert found.pop("files").keys() == {TENSORS, "words.txt"}
    assert (
        found
        == record
        == {k: v for k, v in load_record(tmp_path / "new" / "folder").items() if k != "files"}
    )

    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)

    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["folder"]


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_folder(tmp_path / name, TENSOR, {"step": 3})
    for file in (RECORD, TENSORS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_saving_again_replaces(saved: Path) -> None:
    save_folder(saved, {"c": torch.ones(1)}, {"kind": "new"})
    tensors, record = load_folder(saved)
    assert (list(tensors), record["kind"]) == (["c"], "new")
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model"]
    assert sorted(p.name for p in saved.iterdir()) == [RECORD, TENSORS]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([RECORD, TENSORS, "words.txt"]), st.integers(0, 10**6), st.integers(0, 7))
def test_every_flipped_bit_is_detected(saved: Path, name: str, position: int, bit: int) -> None:
    good = (saved / name).read_bytes()
    bad = bytearray(good)
    bad[position % len(bad)] ^= 1 << bit
    (saved / name).write_bytes(bad)
    with pytest.raises(CheckpointError, match=name):
        load_folder(saved)
    (saved / name).write_bytes(good)
    load_folder(saved)


def test_every_truncation_and_every_byte_too_many_is_detected(saved: Path) -> None:
    for name in (RECORD, TENSORS, "words.txt"):
        good = (saved / name).read_bytes()
        for length in range(len(good)):
            (saved / name).write_bytes(good[:length])
            with pytest.raises(CheckpointError, match=name):
                load_folder(saved)
        (saved / name).write_bytes(good + b"\n")
        with pytest.raises(CheckpointError, match=name):
            load_folder(saved)
        (saved / name).write_bytes(good)
    load_folder(saved)


@pytest.mark.parametrize("name", [RECORD, TENSORS, "words.txt"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_folder(saved)


def test_what_is_no_saved_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="no saved model or checkpoint"):
            load_folder(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", "", ".", "sub/file", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(saved: Path, name: str) -> None:
    (saved.parent / "secret").write_bytes(b"secret")
    sums = load_record(saved)["files"] | {name: sha256(b"secret").hexdigest()}
    seal(saved, {"kind": "test", "files": sums})
    with pytest.raises(CheckpointError, match="not inside the folder"):
        load_folder(saved)


def test_a_name_that_no_file_can_have_is_an_error_of_ours(saved: Path) -> None:
    seal(saved, {"kind": "test", "files": load_record(saved)["files"] | {"\ud800": "0"}})
    with pytest.raises(CheckpointError, match="no file"):
        load_folder(saved)


@pytest.mark.parametrize("text", ["[" * 1500, '{"record": ' * 1500])
def test_a_record_nested_too_deeply_is_refused(saved: Path, text: str) -> None:
    (saved / "record.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        load_folder(saved)


@pytest.mark.parametrize("record", [{}, {"files": []}, {"files": {"words.txt": "0"}}])
def test_weights_without_a_checksum_are_refused(saved: Path, record: dict[str, object]) -> None:
    seal(saved, record)
    with pytest.raises(CheckpointError, match=f"no checksum of {TENSORS}"):
        load_folder(saved)


def test_a_pickle_in_place_of_the_weights_is_refused_and_never_run(saved: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (saved.parent / "run",)  # type: ignore[return-value]

    for data in (pickle.dumps(Bomb()), b""):
        (saved / TENSORS).write_bytes(data)
        seal(saved, {"files": {TENSORS: sha256(data).hexdigest()}})
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_folder(saved)
    assert not (saved.parent / "run").exists()


class Killed(BaseException):
    pass


def kill_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process dies just before its ``number``-th rename."""
    real, calls = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == number:
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_at_either_rename_keeps_the_old_contents(
    saved: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        kill_at_rename(patch, number)
        with pytest.raises(Killed):
            save_folder(saved, {"c": torch.ones(1)}, {"kind": "new"})
    assert saved.exists() == (number == 1)

    for _ in range(2):
        tensors, record = load_folder(saved)
        assert (sorted(tensors), record["kind"]) == (["a", "b"], "test")
    assert (stored_folder(saved) / "words.txt").read_bytes() == b"one\ntwo\n"
    assert load_record(model_folder(saved))["kind"] == "test"

    # The next save puts everything in order.
    save_folder(saved, {"c": torch.ones(1)}, {"kind": "new"})
    assert load_folder(saved)[1]["kind"] == "new"
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model"]


def test_a_kill_during_the_recovery_loses_nothing(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (2, 1, 3, 2):
        with monkeypatch.context() as patch:
            kill_at_rename(patch, number)
            with pytest.raises(Killed):
                save_folder(saved, {"c": torch.ones(1)}, {"kind": "new"})
        assert load_folder(saved)[1]["kind"] == "test"


def test_a_kill_while_writing_leaves_nothing_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    save_folder(step_folder(run, 1), TENSOR, {})
    with monkeypatch.context() as patch:
        kill_at_rename(patch, 1)
        with pytest.raises(Killed):
            save_folder(step_folder(run, 2), TENSOR, {})
    assert checkpoints(run) == [step_folder(run, 1)]
    with pytest.raises(CheckpointError):
        load_folder(step_folder(run, 2))


def test_what_kills_left_goes_and_what_is_whole_stays(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = saved.parent
    for name in (f".{saved.name}.old", ".step-7.partial", ".step-3.removed"):
        shutil.copytree(saved, parent / name)
    shutil.copytree(saved, parent / ".step-9.old")  # the only good one of its name
    (parent / "mine.txt").touch()
    (parent / ".film.partial").touch()

    remove_partial(parent)
    assert {path.name for path in parent.iterdir()} == {
        saved.name,
        ".step-9.old",
        "mine.txt",
        ".film.partial",
    }

    monkeypatch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        remove_folder(saved)
    monkeypatch.undo()
    assert not saved.exists()

    remove_folder(saved)
    assert {path.name for path in parent.iterdir()} == {".step-9.old", "mine.txt", ".film.partial"}


def test_reading_between_the_renames_does_not_disturb_the_writer(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        seen.append(load_folder(saved)[1]["kind"])
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        save_folder(saved, TENSOR, {"kind": "new"})
    assert seen == ["test", "test"]
    assert load_folder(saved)[1]["kind"] == "new"


def test_checkpoints_are_newest_first_by_number_and_nothing_else_is_among_them(
    tmp_path: Path,
) -> None:
    assert checkpoints(tmp_path) == []
    for step in (9, 100, 99_999_999, 100_000_000, 20):
        save_folder(step_folder(tmp_path, step), TENSOR, {})
    for name in (
        ".step-00000300.partial",
        ".step-00000300.old",
        "step-00000300.tmp",
        "step-x",
        "model",
    ):
        (tmp_path / "checkpoints" / name).mkdir()
    numbers = [int(p.name.split("-")[1]) for p in checkpoints(tmp_path)]
    assert numbers == [100_000_000, 99_999_999, 100, 20, 9]


def test_model_means_a_model_folder_or_the_one_of_a_finished_run(
    saved: Path, tmp_path: Path
) -> None:
    assert model_folder(saved) == saved
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="neither a model folder"):
        model_folder(run)
    save_folder(step_folder(run, 5), TENSOR, {})
    with pytest.raises(CheckpointError, match="not finished: give its command again"):
        model_folder(run)
    shutil.copytree(saved, run / "model")
    assert model_folder(run) == run / "model"


def test_load_into_lists_what_is_missing_unexpected_and_misshapen() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {n: t.clone() for n, t in module.state_dict().items()}
    tensors = dict(module.state_dict())
    del tensors["0.bias"], tensors["1.running_mean"]
    tensors |= {"extra": torch.ones(1), "0.weight": torch.zeros(3, 3)}

    with pytest.raises(CheckpointError) as caught:
        load_into(module, tensors, "there")
    for part in (
        "weights of there",
        "missing 0.bias",
        "missing 1.running_mean",
        "unexpected extra",
        "0.weight is (3, 3), the model has (3, 2)",
    ):
        assert part in str(caught.value)

    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_load_into_fills_everything_and_bounds_its_message() -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    load_into(target, source.state_dict(), "there")
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.bias, target.bias)
    with pytest.raises(CheckpointError, match="and 14 more"):
        load_into(target, {f"x{i}": torch.ones(1) for i in range(20)}, "there")
