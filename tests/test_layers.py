"""The walls of the package: imports go down only, from room to room and from file to file.

ROOMS is the order of the data's way, from the bottom up. A file may import every file of the rooms
above it in this table, and those of its own room that stand before it.
"""

import ast
from functools import cache
from pathlib import Path

from support.places import ROOT

PACKAGE = ROOT / "speechssl"
ROOMS = {
    "errors": "",
    "storage": "atomic file_kinds compression wrong_paths saved_folders text_files"
    " json_text checkpoint",
    "config": "",
    "runtime": "streams threads memory device log ranks machine processes seeds distributed",
    "tables": "",
    "pictures": "",
    "audio": "containers.layout containers.tags containers.view containers.foreign"
    " containers.mp3_frame containers.mp3_length containers.mp3_sync containers.mp3"
    " containers.flac_frame containers.flac containers.ogg containers.chunks containers.riff"
    " containers.au containers.sphere containers.counted containers.voc containers.paf"
    " containers.inspection formats"
    " feature_config features resampling level threshold bangs quieter_voices levelling"
    " channels reader"
    " first_look listing silence",
    "text": "english english_measures english_symbols english_number_words english_signs"
    " unicode_words grapheme_clusters words_or_characters line_breaks word_spaces marks normalise"
    " plausible_lexicon pronunciations possessives tokenizer character_tokenizer"
    " sentencepiece_tokenizer vocabulary_tokenizer phone_tokenizer tokenizers",
    "lexicon": "espeak tokenizer g2p check making",
    "corpus": "unicode_forms split_names manifest export shares usable splits paths file_suffixes"
    " columns transcripts unused_transcripts transcript_files transcript_search metadata_csv"
    " jsonl folder_tables toolkits layouts",
    "data": "settings account collate sandbox store rejects dataset store_writer batches cutter"
    " shards division plan prepare",
    "encoder": "padding config kernels masking loudness augment norm mel_norm context front_end"
    " encoder",
    "training": "health settings metrics journal optim loss setting_names presets run_folder loop"
    " lineage",
    "pretraining": "quantizer masked_prediction kmeans contrastive random_projection"
    " reconstruction two_views hidden_units settings tasks pretrain",
    "scoring": "bootstrap calibration score compare score_files",
    "decoding": "greedy ngram hypothesis align spoken_units arpa lexicon lm_unit trie ngram_table"
    " prefix_tree word_model search_kernel lexicon_search token_ngrams plain_search"
    " flashlight_search beam",
    "ngrams": "rows external_sort vocabulary counting lookup kneser_ney arpa_text table"
    " arpa_table held_out mixture entropy_pruning",
    "recognition": "defaults ctc_crf model settings decoders emission_file remarks evaluate"
    " language_model evaluation_files lm_training vocabulary lm_weights lm_tuning pseudo_labels"
    " training_set budget finetune",
    "transcription": "transcript wordless totals cues formats file_names pieces transcribe"
    " recogniser output_folder workers transcribe_inputs",
    "self_training": "second_recogniser",
    "interop": "onnx our_models safe_loading foreign_model weight_names huggingface torchaudio"
    " fairseq convert",
    "analysis": "profiler synthetic_speech probe_targets probe_examples probe_frames probe_heads"
    " probing probe_report benchmark bench_prepare bench_training bench_transcription",
    "cli": "verbs app inputs outputs data interop lexicon lm recognition training analysis main"
    " start",
}


def files_in_order() -> list[str]:
    """Every file, by its name with dots, the lowest first. A room without files is one file."""
    order: list[str] = []
    for room, names in ROOMS.items():
        order += [f"{room}.{name}" for name in names.split()] or [room]
    return order


@cache
def modules() -> dict[str, Path]:
    """All files that hold code, by their names with dots."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Files of the package that a file imports, wherever in the file."""
    known = modules()
    found: set[str] = set()

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("speechssl"):
            place = node.module.removeprefix("speechssl").removeprefix(".")
            if place in known:
                found.add(place)
            else:
                names = {f"{place}.{alias.name}".removeprefix(".") for alias in node.names}
                found |= names & known.keys()
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("speechssl.") for alias in node.names} & known.keys()

    return found


def test_every_file_has_a_place() -> None:
    assert sorted(modules()) == sorted(files_in_order())


def test_imports_go_down_only() -> None:
    height = {name: place for place, name in enumerate(files_in_order())}
    wrong = [
        f"{name} imports {other}, which does not stand below it"
        for name, path in modules().items()
        for other in sorted(imports(path))
        if height[other] >= height[name]
    ]
    assert wrong == []


def test_a_room_itself_holds_its_purpose_and_no_code() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1, path


def test_only_the_reader_knows_soundfile() -> None:
    """And the list of formats, and the benchmark, which compares us with soundfile alone."""
    users = [name for name, path in modules().items() if "soundfile" in path.read_text("utf-8")]
    assert users == ["analysis.bench_prepare", "audio.formats", "audio.reader"]
