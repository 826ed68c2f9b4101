"""speechssl: learn speech representations without labels, recognise speech with few.

Public names are imported on first use, so that ``import speechssl`` itself stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "scan": "corpus.layouts",
    "split_manifest": "corpus.splits",
    "Manifest": "corpus.manifest",
    "Record": "corpus.manifest",
    "write_jsonl": "corpus.manifest",
    "write_kaldi": "corpus.export",
    "write_fairseq": "corpus.export",
    "prepare": "data.prepare",
    "PrepareConfig": "data.settings",
    "Store": "data.store",
    "Dataset": "data.dataset",
    "Batches": "data.batches",
    "Encoder": "encoder.encoder",
    "EncoderConfig": "encoder.config",
    "Contrastive": "pretraining.contrastive",
    "CtcModel": "recognition.model",
    "load_ctc": "recognition.model",
    "fit": "training.loop",
    "PretrainSettings": "pretraining.settings",
    "FinetuneSettings": "recognition.settings",
    "resolve_settings": "training.presets",
    "finetune_settings": "recognition.settings",
    "pretrain": "pretraining.pretrain",
    "finetune": "recognition.finetune",
    "load_encoder": "encoder.encoder",
    "import_model": "interop.convert",
    "export_model": "interop.convert",
    "label": "recognition.pseudo_labels",
    "evaluate": "recognition.evaluate",
    "transcribe": "transcription.transcribe",
    "Recogniser": "transcription.recogniser",
    "load_recogniser": "transcription.recogniser",
    "SpeechsslError": "errors",
}
__all__ = sorted([*_HOME, "__version__"])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'speechssl' has no attribute {name!r}")
    return getattr(import_module(f"speechssl.{_HOME[name]}"), name)
