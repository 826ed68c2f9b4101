"""A recogniser for the verbs that use one."""

from pathlib import Path

import pytest
from support.settings import tuned

from speechssl.recognition.finetune import finetune


@pytest.fixture(scope="session")
def model(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "model"
    finetune([labelled_store], run, tuned(), init=None)
    return run
