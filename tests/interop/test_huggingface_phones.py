"""Recognisers over phones: transformers' tokenizer for phonemes, both ways."""

from pathlib import Path

import torch
from reference.folders import save_tokenizer, save_transformers
from reference.models import tiny_encoder
from transformers import Wav2Vec2PhonemeCTCTokenizer

from speechssl.interop.convert import export_model, import_model
from speechssl.recognition.model import CtcConfig, CtcModel, load_ctc, save_ctc
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.pronunciations import Pronunciation, Pronunciations

# Eight, as the reference model's head has.
PHONES = {"<s>": 0, "</s>": 1, "tʃ": 2, "aɪ": 3, "t": 4, "ə": 5, "<unk>": 6, "<pad>": 7}


def test_a_vocabulary_of_phones_is_imported(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    save_transformers(theirs)
    (theirs / "processor_config.json").unlink(missing_ok=True)
    save_tokenizer(theirs, PHONES, tokenizer_class="Wav2Vec2PhonemeCTCTokenizer")

    assert import_model(theirs, tmp_path / "ours").difference < 1e-5
    tokenizer = load_ctc(tmp_path / "ours").tokenizer
    assert tokenizer.texts == ("<pad>", "<unk>", "<s>", "</s>", " tʃ", " aɪ", " t", " ə")
    their_tokenizer = Wav2Vec2PhonemeCTCTokenizer.from_pretrained(theirs)
    assert tokenizer.decode([4, 6, 7]) == their_tokenizer.decode([2, 4, 5]) == "tʃ t ə"


def test_a_recogniser_with_a_lexicon_is_exported_as_one_over_phones(tmp_path: Path) -> None:
    entries = [
        ("chat", Pronunciation(("tʃ", "æ", "t"))),
        ("tight", Pronunciation(("t", "aɪ", "t"))),
    ]
    tokenizer = PhoneTokenizer(Pronunciations.of_entries(entries))
    model = CtcModel(tiny_encoder("base"), tokenizer, "basic-1", CtcConfig()).eval()
    torch.nn.init.normal_(model.head.weight)
    save_ctc(model, tmp_path / "ours", {})

    assert export_model(tmp_path / "ours", tmp_path / "theirs", "hf").difference < 1e-5
    theirs = Wav2Vec2PhonemeCTCTokenizer.from_pretrained(tmp_path / "theirs")
    ids = tokenizer.encode("tight")
    assert theirs("t aɪ t").input_ids == ids
    assert theirs.batch_decode([[0, ids[0], 0, ids[1], ids[1], ids[2]]]) == ["t aɪ t"]

    import_model(tmp_path / "theirs", tmp_path / "again")
    assert load_ctc(tmp_path / "again").tokenizer.texts[2:] == tokenizer.texts[2:]
