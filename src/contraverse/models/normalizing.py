"""Unicode normalisation inside a tokenizer: look-alikes, invisible characters and full-width letters undone.

The normaliser consists of serialisable parts of ``tokenizers`` alone, so that whoever reads the ``tokenizer.json``
has it, without contraverse: transformers, sentence-transformers, ``tokenizers.Tokenizer.from_file``. In this order:

1. Default-ignorable code points (zero-width, bidirectional controls, soft hyphens, tags, fillers) are removed.
2. NFKC, but for the full-width punctuation beside Chinese, Japanese and Korean letters, which is their own.
3. Variation selectors are removed but after an emoji; joiners but between emoji, and between letters of Arabic, Syriac
   and the scripts of India, where they are orthography.
4. Look-alikes of Latin letters, those of `contraverse.noise`, are folded in words that mix them with Latin letters and
   consist of both, digits and underscores alone, up to `REACH` code points before and after.

The result is a fixed point: normalising it again changes nothing. Patterns are plain enough for JavaScript, too.
"""

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoTokenizer, PretrainedConfig

from contraverse.errors import UserError
from contraverse.noise.characters import homoglyphs

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

UNICODE = "unicode"
"""Name of the normalisation in settings, in ``contraverse.json`` and in ``config.json``."""
MARK = "text_normalization"
"""Attribute of a network's configuration that names the normalisation which its texts go through."""
NOT_HARDENED = (
    f"config.json says {MARK}={UNICODE}, and the tokenizer beside it has no such normaliser, or an older one: "
    "texts are tokenized differently than in training; contraverse harden adds it"
)
"""Note on a network that was trained on normalised texts, beside a tokenizer that does not normalise."""
REACH = 63
"""Code points of a word before and after a look-alike, at most, for it to be folded: bounds the time of a search."""
PROBES = (
    "Plain ASCII, 1 word_2!",
    "p\u0430yp\u0430l \u0430ccount",  # Cyrillic a
    "in\u200bvis\u2060ible\u00ad \u202eword\u202c",
    "\uff46\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u03ba\u03b1\u03b9",
)
"""Texts whose tokens are compared when a tokenizer is loaded again."""

_SELECTORS, _JOINERS, _KEYCAP = "\ufe0e\ufe0f", "\u200c\u200d", "\u20e3"
_CJK = "\u3001-\u3003\u3008-\u3011\u3041-\u3096\u30a1-\u30fc\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_PUNCTUATION = "\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\uff5e"
# Noncharacters, of which a text has none any more, hold the place of that punctuation while NFKC runs.
_PLACES = "".join(chr(0xFDD0 + i) for i in range(len(_PUNCTUATION)))
_FOLDED = "\ufdef"
_IGNORABLE = rf"(?![{_JOINERS}{_SELECTORS}])[\p{{Default_Ignorable_Code_Point}}" + "\ufdd0-\ufdef\ufff9-\ufffb]"
_EMOJI = r"\p{Extended_Pictographic}\p{Emoji_Modifier}"
_JOINED = "\u0600-\u074f\u0750-\u077f\u08a0-\u0dff"
_SELECTOR = rf"(?<![{_EMOJI}0-9#*])[{_SELECTORS}]|(?<=[0-9#*])[{_SELECTORS}](?!{_KEYCAP})"
_JOINER = (
    rf"(?<![{_EMOJI}{_SELECTORS}{_JOINED}])[{_JOINERS}]|(?<=[{_JOINED}])[{_JOINERS}](?![{_JOINED}])"
    rf"|(?<=[{_EMOJI}{_SELECTORS}])(?:{_JOINERS[0]}|{_JOINERS[1]}(?![{_EMOJI}]))"
)
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff"
_ORTHOGRAPHY = "\u0131\u0196\u0263\u0269\u028b"
"""Latin look-alikes that languages write: Turkish and Azeri the dotless i, Ewe gamma and hooked v, Kabiye iota."""


@cache
def folds() -> Mapping[str, str]:
    """Look-alikes that are folded, by the ASCII letter that they look like."""
    table = {letter: "".join(c for c in alike if c not in _ORTHOGRAPHY) for letter, alike in homoglyphs().items()}
    return {letter: alike for letter, alike in table.items() if alike}


def unicode_normalizer() -> normalizers.Normalizer:
    """Make the normaliser of `UNICODE`."""
    steps: list[normalizers.Normalizer] = [_replace(_IGNORABLE, "")]
    marks = f"[{_PUNCTUATION}{_PLACES}]{{0,8}}"
    for own, place in zip(_PUNCTUATION, _PLACES, strict=True):
        steps.append(_replace(f"(?<=[{_CJK}]{marks}){own}|{own}(?={marks}[{_CJK}])", place))
    steps.append(normalizers.NFKC())
    steps += [normalizers.Replace(place, own) for own, place in zip(_PUNCTUATION, _PLACES, strict=True)]
    # Letters that a joiner kept apart are composed by NFC.
    steps += [_replace(_SELECTOR, ""), _replace(_JOINER, ""), normalizers.NFC()]
    alike = _ranges("".join(folds().values()))
    allowed, other = rf"[{_LATIN}{alike}\p{{N}}_]", r"[^\p{L}\p{M}\p{N}_]"
    start, end = rf"(?<=(?:^|{other}){allowed}{{0,{REACH}}})", rf"(?={allowed}{{1,{REACH}}}(?:$|{other}))"
    mixed = rf"(?:(?={allowed}{{0,{REACH}}}[{_LATIN}])|(?<=[{_LATIN}]{allowed}{{0,{REACH}}}))"
    # A noncharacter is set before each look-alike to be folded; then each is replaced together with it.
    steps.append(_replace(f"(?=[{alike}]){start}{end}{mixed}", _FOLDED))
    steps += [_replace(f"{_FOLDED}[{characters}]", letter) for letter, characters in folds().items()]
    return normalizers.Sequence(steps)


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    # In ASCII alone: tokenizers 0.23 panics where it prints a long pattern that it has to cut within a character.
    plain = "".join(c if c.isascii() else f"\\u{ord(c):04x}" for c in pattern)
    return normalizers.Replace(Regex(plain), content)


def _ranges(characters: str) -> str:
    """Characters as the inside of a class, runs of them by their ends."""
    codes = sorted(map(ord, characters))
    starts = [code for code in codes if code - 1 not in codes]
    ends = [code for code in codes if code + 1 not in codes]
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


def is_hardened(tokenizer: Any) -> bool:
    """True of a tokenizer whose normaliser begins with that of `UNICODE`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is None:
        return False
    steps, ours = _state(backend.normalizer).get("normalizers", []), _unicode_steps()
    return bool(steps[: len(ours)] == ours)  # a sequence in a sequence is flattened


def harden_tokenizer(tokenizer: Any, config: PretrainedConfig) -> Any:
    """Make a copy of a tokenizer that normalises first, as it is once saved and loaded.

    Some classes of transformers, BERT's among them, build their normaliser anew when they are loaded and drop the one
    of ``tokenizer.json``. The copy is therefore of the plain class, which takes all from that file.

    Args:
        tokenizer: a fast one.
        config: of its network, whose kind may decide the class by which a tokenizer is loaded.

    Raises:
        UserError: the tokenizer is slow, or loses the normaliser, or other tokens of plain ASCII, when it is loaded.
    """
    if is_hardened(tokenizer):
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    name = type(tokenizer).__name__
    if not isinstance(backend, Tokenizer):
        hint = "save a fast one beside the weights: AutoTokenizer.from_pretrained(..., use_fast=True)"
        raise UserError(f"a {name} is a slow tokenizer, without a normaliser that could be saved", hint=hint)
    hardened = Tokenizer.from_str(backend.to_str())
    own = [backend.normalizer] if backend.normalizer is not None else []
    hardened.normalizer = normalizers.Sequence([unicode_normalizer(), *own])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        hardened.save(str(folder / "tokenizer.json"))
        make_plain(folder, tokenizer.model_input_names)
        loaded = AutoTokenizer.from_pretrained(folder, padding_side=tokenizer.padding_side, trust_remote_code=False)
    hardened.no_padding()
    hardened.no_truncation()
    expected = [hardened.encode(probe).ids for probe in PROBES]
    if not is_hardened(loaded) or _ids(loaded) != expected or _ids(loaded)[0] != _ids(tokenizer)[0]:
        raise UserError(
            f"a {name} loses the normaliser, or reads other tokens, when it is loaded again",
            hint="normalise the texts before they are tokenised",
        )
    return loaded


def harden(model: "TextModel") -> None:
    """Give ``model`` a tokenizer that normalises first, and mark its configuration.

    Raises:
        UserError: see `harden_tokenizer`.
    """
    model.tokenizer = harden_tokenizer(model.tokenizer, model.encoder.config)
    setattr(model.encoder.config, MARK, UNICODE)


def make_plain(folder: Path, inputs: list[str]) -> None:
    """Have ``folder`` load its tokenizer by the class that takes all from ``tokenizer.json``.

    Args:
        folder: holds ``tokenizer_config.json``.
        inputs: names of the tensors that the network takes, which the plain class does not know.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    # The name that transformers 4 knows, too.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
    settings.pop("auto_map", None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@cache
def _unicode_steps() -> list[Any]:
    steps: list[Any] = _state(unicode_normalizer())["normalizers"]
    return steps


def _ids(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(probe)["input_ids"] for probe in PROBES]


def _state(normalizer: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(normalizer.__getstate__())
    return state
