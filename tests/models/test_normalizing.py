"""The Unicode normaliser of a tokenizer: what it undoes, what it leaves, and whether others load it."""

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.models.normalizing import MARK, folds, harden, harden_tokenizer, is_hardened, unicode_normalizer
from contraverse.noise import noise
from contraverse.noise.characters import INVISIBLE, JOINERS, homoglyphs
from contraverse.pipeline.text import init_text_model
from contraverse.recipes import ModelConfig

NORMALIZER = unicode_normalizer()
PURE = {
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю: сор, рука, ухо!",
    "ukrainian": "Їжак з'їв ґанок, а Юрій — п'ять єнотів.",
    "serbian": "Љубазни фењерџија чађавог лица хоће да ми покаже штос.",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ου, αυτό;",
    "chinese": "你好，世界！（真的？）是的：一、二；三。",
    "japanese": "こんにちは、世界！カタカナー「はい」？",
    "korean": "안녕하세요, 세계! 한국어입니다.",
    "arabic": "السلام عليكم، كيف حالك؟",
    "persian": "می\u200cخواهم کتاب\u200cها را بخوانم",
    "hindi": "नमस्ते दुनिया, क्\u200dष और क्\u200cष",
    "hebrew": "שלום עולם, מה שלומך?",
    "armenian": "Բարեւ աշխարհ, ինչպես ես?",
    "georgian": "გამარჯობა მსოფლიო",
    "turkish": "Işık ılık süt içti; ığdır.",
    "ewe and kabiye": "Eʋe aɣa, Kabɩyɛ Ɩsɩ",
    "vietnamese": "Tiếng Việt có dấu, đường phố.",
    "emoji": "👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3 👍🏽 🇩🇪",
    "ascii": "".join(map(chr, range(32, 127))) + "\nIl1| rn m 0O corn com\t",
}
ATTACKS = {
    "pаypаl": "paypal",
    "РаураӀ_1": None,
    "\u0440\u0430ypal": "paypal",
    "in\u200bvis\u2060ib\u00adle\ufeff": "invisible",
    "\u202ebackwards\u202c \u2066aside\u2069\u200e": "backwards aside",
    "n\u200co\u200dt\ufe0f": "not",
    "\u3164\u115f\uffa0\u034fhid\U000e0041den": "hidden",
    "ｆｕｌｌ ｗｉｄｔｈ！": "full width!",
    "𝐛𝐨𝐥𝐝 ⓒⓘⓡⓒⓛⓔ ﬁne": "bold circle fine",
    "ᴄᴏᴏl": "cool",
}


def normalized(text: str) -> str:
    return str(NORMALIZER.normalize_str(text))


@pytest.mark.parametrize("language", PURE)
def test_texts_of_one_script_are_left_as_they_are(language: str) -> None:
    assert normalized(PURE[language]) == PURE[language]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_undone(attack: str) -> None:
    expected = ATTACKS[attack]
    assert normalized(attack) == (attack if expected is None else expected)


def test_words_with_letters_that_look_like_none_are_left() -> None:
    for text in ("iPhoneом", "USB-кабель", "GPSом", "pаyж"):
        assert normalized(text) == text


def test_every_look_alike_of_the_noise_but_those_of_orthographies_is_folded_within_a_word() -> None:
    left = {c: letter for letter, alike in homoglyphs().items() for c in alike if normalized(f"q{c}z") != f"q{letter}z"}
    assert "".join(sorted(left)) == "\u0131\u0196\u0263\u0269\u028b"
    assert {c for alike in folds().values() for c in alike} <= {c for alike in homoglyphs().values() for c in alike}


def test_every_invisible_character_of_the_noise_is_removed_within_a_latin_word() -> None:
    for character in (*INVISIBLE, *JOINERS):
        assert normalized(f"wo{character}rd") == "word"


def test_no_default_ignorable_is_left_but_where_a_script_needs_it() -> None:
    import regex

    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    hidden = [c for c in characters if ignorable.match(c)]
    assert normalized("".join(f"a{c}b " for c in hidden)) == "ab " * len(hidden)


def test_every_code_point_is_a_fixed_point() -> None:
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and unicodedata.category(chr(i)) != "Cn"]
    characters = [c for c in characters if c not in "\n" and unicodedata.category(c) != "Co"]
    for first in range(0, len(characters), 4096):
        text = "\n".join(f"{c} a{c}b" for c in characters[first : first + 4096] if not 0x3400 < ord(c) < 0xABFF)
        assert normalized(normalized(text)) == normalized(text)


TRICKY = "аоeіxα ab1_\u200b\u200c\u200d\ufe0f\u0301\u0308\u20e3！？，你कا्👩🏽①Åﬁ\u034f\u202e\ufdd0\ufdef\u1100\u1161"


@settings(max_examples=300)
@given(st.text(alphabet=st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=150))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once


def test_long_words_take_no_quadratic_time() -> None:
    import time

    def seconds(text: str) -> float:
        started = time.process_time()
        normalized(text)
        return time.process_time() - started

    short = min(seconds("о" * 2000) for _ in range(3))
    assert min(seconds("о" * 8000) for _ in range(3)) < 10 * short


def test_bare_tokenizers_are_printed() -> None:
    assert "Replace" in str(NORMALIZER)


def test_a_lone_surrogate_is_refused_as_by_any_tokenizer() -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        normalized("a\ud800b")


def minilm() -> TextModel:
    return TextModel.from_pretrained("minilm", pooling="mean")


def test_a_class_that_drops_its_normaliser_is_replaced() -> None:
    """BertTokenizer of transformers 5 builds its normaliser anew, whatever tokenizer.json says."""
    model = minilm()
    plain = model.tokenizer
    hardened = harden_tokenizer(plain, model.encoder.config)
    assert is_hardened(hardened)
    assert not is_hardened(plain)
    assert harden_tokenizer(hardened, model.encoder.config) is hardened
    for text in PURE.values():
        assert hardened(text).data == plain(text).data
    assert hardened("a text", "another").data == plain("a text", "another").data
    assert hardened("pаyp\u200bаl")["input_ids"] == plain("paypal")["input_ids"]


LOADERS = {
    "transformers": "from transformers import AutoTokenizer; t = AutoTokenizer.from_pretrained(folder); "
    "ids = [t(x)['input_ids'] for x in texts]",
    "tokenizers": "from tokenizers import Tokenizer; t = Tokenizer.from_file(folder + '/tokenizer.json'); "
    "t.no_padding(); t.no_truncation(); ids = [t.encode(x).ids for x in texts]",
    "sentence_transformers": "from sentence_transformers import SentenceTransformer as S; t = S(folder, device='cpu'); "
    "ids = [t.tokenize([x])['input_ids'][0].tolist() for x in texts]",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = minilm()
    harden(model)
    return model.save(tmp_path_factory.mktemp("hardened") / "minilm")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_fresh_process_reads_the_same_tokens_through_each_loader(saved: Path, loader: str) -> None:
    texts = [*ATTACKS, *PURE.values()]
    model = minilm()
    expected = [model.tokenizer(normalized(text))["input_ids"] for text in texts]
    code = f"import sys, json; folder = sys.argv[1]; texts = json.loads(sys.argv[2]); {LOADERS[loader]}; print(ids)"
    command = [sys.executable, "-c", code, str(saved), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_a_saved_folder_is_marked_and_read_back(saved: Path) -> None:
    assert json.loads((saved / "contraverse.json").read_text())["normalize"] == "unicode"
    assert json.loads((saved / "config.json").read_text())[MARK] == "unicode"
    again = TextModel.load(saved)
    assert is_hardened(again.tokenizer)
    assert again.notes == []
    assert again.tokenizer.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    clean = minilm().encode(["A plain text."])
    assert (again.encode(["A plain text.", "A plаin tex\u200bt."]) == clean).all()


def test_weights_beside_another_tokenizer_are_noted(saved: Path, tmp_path: Path) -> None:
    model = TextModel.load(saved)
    model.encoder.save_pretrained(tmp_path)
    minilm().tokenizer.save_pretrained(tmp_path)
    (note,) = TextModel.load(tmp_path).notes
    assert "no such normaliser" in note


def test_training_from_a_setting_saves_the_normaliser(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    model, _ = init_text_model(ModelConfig(name=str(tiny_folder()), normalize="unicode"), ["a", "b"], {})
    folder = model.save(tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded("gооd")["input_ids"] == loaded("good")["input_ids"]
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("g\u200bood").ids == loaded("good")["input_ids"]
    again, _ = init_text_model(ModelConfig(name=str(folder)), ["a", "b"], {})
    assert is_hardened(again.tokenizer)


def test_a_slow_tokenizer_is_refused(tiny_model: Callable[..., Any]) -> None:
    class Slow:
        pass

    with pytest.raises(UserError, match="a Slow is a slow tokenizer"):
        harden_tokenizer(Slow(), tiny_model().encoder.config)


@pytest.mark.parametrize(("kind", "share"), [("homoglyph", 0.5), ("zero-width", 1.0), ("full-width", 1.0)])
def test_noise_is_undone(kind: str, share: float) -> None:
    texts = ["please confirm your account details before friday", "the parcel could not be delivered today"] * 10
    noisy = [noise(text, kind, 3, i) for i, text in enumerate(texts)]
    same = [normalized(n) == text for n, text in zip(noisy, texts, strict=True)]
    assert sum(n != text for n, text in zip(noisy, texts, strict=True)) == len(texts)
    assert sum(same) >= share * len(texts)
