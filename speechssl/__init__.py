"""speechssl: learn speech representations without labels, recognise speech with few.

Public names are imported on first use, so that ``import speechssl`` itself stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "scan": "manifest",
    "split_manifest": "manifest",
    "Manifest": "manifest",
    "Record": "manifest",
    "write_jsonl": "manifest",
    "write_kaldi": "exports",
    "write_fairseq": "exports",
    "prepare": "preparing",
    "PrepareConfig": "preparing",
    "Store": "store",
    "Dataset": "batching",
    "Batches": "batching",
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "Contrastive": "contrastive",
    "CtcModel": "ctc",
    "load_ctc": "ctc",
    "fit": "train",
    "PretrainSettings": "settings",
    "FinetuneSettings": "settings",
    "resolve_settings": "settings",
    "finetune_settings": "settings",
    "pretrain": "experiments",
    "finetune": "experiments",
    "load_encoder": "experiments",
    "import_model": "convert",
    "export_model": "convert",
    "label": "labels",
    "evaluate": "recognise",
    "transcribe": "transcribing",
    "SpeechsslError": "errors",
}
__all__ = sorted([*_HOME, "__version__"])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'speechssl' has no attribute {name!r}")
    return getattr(import_module(f"speechssl.{_HOME[name]}"), name)
