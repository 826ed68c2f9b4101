"""A path that lies on another machine: each reader says so, and what to do."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.data.store import Store
from speechssl.errors import SpeechsslError
from speechssl.interop.convert import import_model
from speechssl.recognition.lm_training import read_texts
from speechssl.storage.saved_folders import model_folder

READERS: dict[str, Callable[[Path], object]] = {
    "scan": scan,
    "store": Store,
    "text": lambda path: list(read_texts([path], "train")),
    "model": model_folder,
    "import": lambda path: import_model(path, Path("out")),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_address_is_called_so(reader: str) -> None:
    """It was a path that is not there, with a slash less."""
    rng = random.Random(reader)
    scheme = rng.choice(["s3", "gs", "https", "hf", "abfs"])
    with pytest.raises(SpeechsslError, match=f"{scheme}:/.*an address.*download it first"):
        READERS[reader](Path(f"{scheme}://bucket/folder/x.txt"))


@pytest.mark.parametrize(
    ("reader", "name", "option"),
    [
        ("scan", "openslr/librispeech_asr", " --repo-type dataset"),
        ("model", "facebook/wav2vec2-base", ""),
        ("import", "utter-project/mHuBERT-147", ""),
    ],
)
def test_a_name_on_the_hub_is_called_so(reader: str, name: str, option: str) -> None:
    with pytest.raises(SpeechsslError, match=f"hf download {name}{option} --local-dir"):
        READERS[reader](Path(name))


def test_a_path_that_is_only_wrong_gets_no_advice(tmp_path: Path) -> None:
    for path in (tmp_path / "a/b", Path("missing.jsonl"), Path("a/b/c")):
        for read in READERS.values():
            with pytest.raises(SpeechsslError) as caught:
                read(path)
            assert "download" not in str(caught.value)
