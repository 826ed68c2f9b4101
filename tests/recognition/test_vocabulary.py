"""Words of texts, of stores and of language models."""

from pathlib import Path

import pytest
from support.stores import build, waveforms

from speechssl.errors import ConfigError
from speechssl.recognition.vocabulary import word_counts

ARPA = """\

\\data\\
ngram 1=4

\\1-grams:
-1 <s>
-1 </s>
-1 the
-1 end
\\end\\
"""


def test_all_kinds_of_sources_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The end, the dog.\n")
    (tmp_path / "lm.arpa").write_text(ARPA)
    build(tmp_path / "store", waveforms(3), None)
    paths = [tmp_path / name for name in ("a.txt", "lm.arpa", "store")]
    expected = {"the": 3, "end": 2, "dog": 1, "héllo": 3}
    assert word_counts(paths, "basic-1") == expected
    # The store's chunks are dev, train, dev.
    assert word_counts(paths, "basic-1", "train") == expected | {"héllo": 1}


def test_no_words_and_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("...\n")
    with pytest.raises(ConfigError, match=r"a\.txt: not one word"):
        word_counts([tmp_path / "a.txt"], "basic-1")
    with pytest.raises(ConfigError, match="cannot be read"):
        word_counts([tmp_path / "missing.txt"], "basic-1")
