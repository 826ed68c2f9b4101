"""Imports inside the package go strictly down: each module imports from lower layers only."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "speechssl"
LAYERS = {
    0: ["audio.containers", "errors", "text.english"],
    1: ["config", "encoder.padding"],
    2: [
        "audio.reader",
        "decoding.greedy",
        "encoder.augment",
        "encoder.kernels",
        "encoder.masking",
        "pictures",
        "pretraining.kmeans",
        "runtime.device",
        "runtime.distributed",
        "scoring.score",
        "text.tokenizers",
        "training.health",
        "training.optim",
        "transcription.formats",
    ],
    3: [
        "audio.features",
        "corpus.layouts",
        "data.sandbox",
        "data.store",
        "decoding.align",
        "encoder.front_end",
        "scoring.compare",
        "storage.checkpoint",
        "training.metrics",
    ],
    4: [
        "corpus.export",
        "data.batches",
        "data.shards",
        "decoding.ngram",
        "encoder.encoder",
        "pretraining.quantizer",
    ],
    5: [
        "analysis.profiler",
        "data.prepare",
        "decoding.beam",
        "interop.foreign_model",
        "interop.weight_names",
        "pretraining.masked_prediction",
        "recognition.model",
    ],
    6: [
        "interop.onnx",
        "pretraining.contrastive",
        "pretraining.hidden_units",
        "pretraining.random_projection",
        "pretraining.reconstruction",
        "pretraining.two_views",
        "recognition.evaluate",
        "training.loop",
    ],
    7: [
        "analysis.probing",
        "interop.huggingface",
        "interop.torchaudio",
        "recognition.language_model",
        "recognition.pseudo_labels",
        "training.presets",
        "transcription.transcribe",
    ],
    8: [
        "interop.fairseq",
        "recognition.finetune",
        "transcription.output_folder",
        "transcription.workers",
    ],
    9: ["analysis.benchmark", "interop.convert"],
    10: ["__init__", "cli.app"],
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}


def module_of(path: Path) -> str:
    """The name of a file below ``speechssl``, with dots."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def modules() -> dict[str, Path]:
    """All files that hold code: a room's own ``__init__`` holds its purpose alone."""
    files = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        name: path for name, path in files.items() if not name.endswith((".__init__", ".__main__"))
    }


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    known = modules()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("speechssl"):
            place = node.module.removeprefix("speechssl").removeprefix(".")
            names = [f"{place}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {place} & known.keys() or {name for name in names if name in known}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("speechssl.") for alias in node.names} & known.keys()
    return found


def test_every_module_has_a_layer() -> None:
    assert modules().keys() == LAYER_OF.keys()


def test_imports_go_strictly_down() -> None:
    wrong = [
        f"{module} (layer {LAYER_OF[module]}) imports {name} (layer {LAYER_OF[name]})"
        for module, path in modules().items()
        for name in sorted(imports(path))
        if LAYER_OF[name] >= LAYER_OF[module]
    ]
    assert wrong == []


def test_a_room_itself_holds_no_code() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        assert len(ast.parse(path.read_text(encoding="utf-8")).body) == 1, path


def test_only_the_reader_knows_soundfile() -> None:
    """And the benchmark, which compares our reading with soundfile alone."""
    users = [
        name for name, path in modules().items() if "soundfile" in path.read_text(encoding="utf-8")
    ]
    assert users == ["analysis.benchmark", "audio.reader"]
