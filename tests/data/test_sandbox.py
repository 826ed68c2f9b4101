"""Files that kill, hang or exhaust their decoder are rejects; a kill from outside is no proof."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support import children
from support.folders import files_of
from support.places import ROOT
from support.programs import running
from support.recordings import SMALL

from speechssl.data import sandbox
from speechssl.data.prepare import prepare
from speechssl.data.store import Store

pytestmark = pytest.mark.slow

DEADLY = """
import os, signal, sys, time
from speechssl.data import sandbox
sandbox.CPU_S = 1  # 3 s less than libraries take to load
sandbox.CPU_PER_S = 0.0
sandbox.MEMORY_BYTES = 2 << 30
from speechssl.data import cutter, shards
from speechssl.data.prepare import PrepareConfig, prepare
stream, finish = shards.stream_mono, cutter.Cutter.finish
def deadly(path, *args, **kwargs):
    if "deadly" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    while "endless" in path.name:
        pass
    if "hungry" in path.name:
        bytes(3 << 30)
    return stream(path, *args, **kwargs)
def cut(self, num_samples):
    if "cutting" in self.record.audio:
        os.kill(os.getpid(), signal.SIGSEGV)
    finish(self, num_samples)
shards.stream_mono, cutter.Cutter.finish = deadly, cut
if __name__ == "__main__":
    source, store, settings, jobs = sys.argv[1:]
    prepare(source, store, PrepareConfig.model_validate_json(settings), jobs=int(jobs))
"""


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_file_that_kills_its_decoder_is_a_reject_and_stops_nothing(
    corpus: Path, tmp_path: Path, jobs: int
) -> None:
    """At once with processes; without them when the command is given again, as after any kill.

    One file kills while it is decoded, the other while its samples are cut.
    """
    corpus, names = Path(shutil.copytree(corpus, tmp_path / "in")), ("cutting.wav", "deadly.wav")
    for name in names:
        shutil.copy(next(corpus.rglob("*.wav")), corpus / name)
    script, log = tmp_path / "deadly.py", tmp_path / "log"
    script.write_text(DEADLY)
    out, starts = tmp_path / "s", 0
    arguments = [corpus, out, SMALL.model_dump_json(), jobs]
    while not (out / "store.json").exists():
        child = children.start_script(script, arguments, log, {})
        child.join()
        starts += 1
        assert starts <= 3, "no file is left out"
        assert child.exitcode in (0, -signal.SIGSEGV), log.read_text()
    assert starts == (3 if jobs == 0 else 1)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [(r["audio"], r["reason"]) for r in rejects] == [
        (name, "decoder crash") for name in names
    ]
    assert all("SIGSEGV" in r["detail"] for r in rejects)
    for name in names:
        (corpus / name).unlink()
    prepare(corpus, tmp_path / "without", SMALL)
    kept = [
        {Store(folder).record(k).id for k in range(len(Store(folder)))}
        for folder in (out, tmp_path / "without")
    ]
    assert kept[0] == kept[1]


def test_where_no_process_can_try_a_file_alone_the_error_names_it(
    corpus: Path, tmp_path: Path
) -> None:
    """A script without the guard that starting processes needs."""
    corpus = Path(shutil.copytree(corpus, tmp_path / "in"))
    shutil.copy(next(corpus.rglob("*.wav")), corpus / "deadly.wav")
    (tmp_path / "deadly.py").write_text(DEADLY.replace('__name__ == "__main__"', "True"))
    command = [sys.executable, str(tmp_path / "deadly.py"), str(corpus), str(tmp_path / "s")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ends = []
    for _ in range(3):
        run = [*command, SMALL.model_dump_json(), "0"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        ends.append(
            (
                done.returncode,
                "a process died while it read" in done.stderr and "deadly.wav" in done.stderr,
            )
        )
    assert ends == [(-signal.SIGSEGV, False), (1, True), (1, True)]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGABRT, signal.SIGXCPU]
)
def test_only_what_a_process_does_to_itself_convicts_a_file(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal that ends the process in which it is tried alone."""
    monkeypatch.setattr(sandbox, "_run_alone", lambda *_: number)
    (tmp_path / "deep").mkdir()
    note = tmp_path / "deep/1.reading"
    note.write_bytes(b"a/\xff.wav\0longer.wav\0")
    found = sandbox.find_crashing(tmp_path, lambda _: print, 60)
    assert list(found) == (
        [os.fsdecode(b"a/\xff.wav")] if number in (signal.SIGABRT, signal.SIGXCPU) else []
    )
    assert not note.exists()
    assert sandbox.find_crashing(tmp_path, lambda _: print, 60) == found


def test_a_note_names_the_last_file_and_goes_with_the_work(tmp_path: Path) -> None:
    with sandbox.reading(tmp_path / "1.reading") as tell:
        tell("a long name.wav")
        tell("b.wav")
        assert (tmp_path / "1.reading").read_bytes().partition(b"\0")[0] == b"b.wav"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no limit of memory")
def test_a_file_that_takes_too_long_or_too_much_is_a_reject(corpus: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(corpus, tmp_path / "in"))
    for name in ("endless.wav", "hungry.wav"):
        shutil.copy(next(corpus.rglob("*.wav")), corpus / name)
    (tmp_path / "deadly.py").write_text(DEADLY)
    out = tmp_path / "s"
    command = [
        sys.executable,
        str(tmp_path / "deadly.py"),
        str(corpus),
        str(out),
        SMALL.model_dump_json(),
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [(r["audio"], r["reason"], r["detail"]) for r in rejects] == [
        ("endless.wav", "decoder crash", "it takes more than 1 s of processor time"),
        ("hungry.wav", "out of memory", "it takes more than 2 GiB"),
    ]


LOADED = """
import sys
from speechssl.data import shards
from speechssl.data.prepare import PrepareConfig, prepare
read, missing = shards._read_file, []
def watched(records, task, writer):
    before = set(sys.modules)
    account = read(records, task, writer)
    missing.extend(sorted(set(sys.modules) - before))
    return account
shards._read_file = watched
shards.load_splitter()
source, store, settings = sys.argv[1:]
prepare(source, store, PrepareConfig.model_validate_json(settings))
print(missing)
"""


def test_a_file_finds_all_libraries_loaded_and_is_not_charged_for_them(
    corpus: Path, tmp_path: Path
) -> None:
    """Where they are slow to load or compiled first, the first file would be left out."""
    source, store, settings = str(corpus), str(tmp_path / "s"), SMALL.model_dump_json()
    command = [sys.executable, "-c", LOADED, source, store, settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


SMALLER = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (500, 1000))
resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, -1))
from speechssl.runtime.processes import limit_cpu, limit_memory
from speechssl.data.sandbox import MEMORY_BYTES, as_reject
for seconds in (60, 9000, 70):
    limit_cpu(seconds)
    print(resource.getrlimit(resource.RLIMIT_CPU))
limit_memory(MEMORY_BYTES)
as_reject(MemoryError(), limited=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no limit of memory")
def test_a_smaller_limit_of_the_system_stays_and_convicts_no_file() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SMALLER],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    soft = [int(line[1:].partition(",")[0]) for line in done.stdout.splitlines()]
    assert 60 < soft[0] < soft[2] <= 200
    assert soft[1] == 500
    assert (
        "out of memory: this process may have 3.0 GiB, and a file may take 4 GiB: allow more"
        in done.stderr
    )


def test_who_was_only_killed_from_outside_is_not_suspected_for_long(
    corpus: Path, tmp_path: Path
) -> None:
    expected = prepare(corpus, tmp_path / "whole", SMALL)
    out = tmp_path / "s"
    (tmp_path / "slow.py").write_text(
        DEADLY.replace(
            "deadly(path, *args, **kwargs):", "deadly(path, *args, **kwargs):\n    time.sleep(600)"
        )
    )
    command = [
        sys.executable,
        str(tmp_path / "slow.py"),
        str(corpus),
        str(out),
        SMALL.model_dump_json(),
        "1",
    ]
    with running(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as run:
        while run.poll() is None and not list(out.rglob("*.reading")):
            time.sleep(0.001)
    assert list(out.rglob("*.reading"))
    assert prepare(corpus, out, SMALL) == expected
    assert files_of(out) == files_of(tmp_path / "whole")


def test_an_interrupt_does_not_wait_for_a_long_file(corpus: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(corpus, tmp_path / "in"))
    shutil.copy(next(corpus.rglob("*.wav")), corpus / "endless.wav")
    (tmp_path / "deadly.py").write_text(DEADLY.replace("= 1, 0.0", "= 9999, 0.0"))
    out = tmp_path / "s"
    command = [
        sys.executable,
        str(tmp_path / "deadly.py"),
        str(corpus),
        str(out),
        SMALL.model_dump_json(),
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with running(command, env=environment, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and "endless" not in being_read(out):
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=60) == -signal.SIGINT


def being_read(store: Path) -> str:
    """What the files say that name a recording while it is decoded; each may vanish at any time."""
    texts = []
    for path in store.rglob("*.reading"):
        with suppress(FileNotFoundError):
            texts.append(path.read_text())
    return "\n".join(texts)
