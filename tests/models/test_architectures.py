"""Every architecture that transformers offers for text works, or is refused when it is loaded: nothing in between.

The slow test goes over 255 of them with transformers 5.23: 196 are tried, 59 cannot be built so small or want
packages of their own. A minute on one core, and some more where it is shared.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference.foreign import foreign_folder
from reference.tiny import LABELS, random_batch, sentences
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, BertTokenizerFast
from transformers.models.auto import modeling_auto

from contraverse.errors import UserError
from contraverse.models import TextModel

CLASSIFIERS = set(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
ENCODERS = CLASSIFIERS.union(
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
T5 = ("t5", "mt5", "umt5")
# What a first message says of it, by what is the matter.
REFUSED = {
    "bart": "takes no word embeddings", "longformer": "takes no word embeddings", "mbart": "takes no word embeddings",
    "clip_text_model": "takes no word embeddings", "convbert": "when it is padded", "fnet": "when it is padded",
    "marian": "cannot read two texts", "canine": "no table of word embeddings", "esm": "otherwise than their ids",
}  # fmt: skip


@pytest.mark.parametrize("architecture", list(REFUSED))
def test_an_encoder_that_cannot_be_attacked_is_refused_when_it_is_loaded(tmp_path: Path, architecture: str) -> None:
    folder = foreign_folder(tmp_path, architecture)
    with pytest.raises(UserError, match=REFUSED[architecture]) as caught:
        TextModel.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "inputs_embeds" in str(caught.value.hint)


@pytest.mark.parametrize("architecture", ["bart", "longformer", *T5, "xlnet", "modernbert-decoder"])
def test_a_classifier_that_cannot_be_attacked_is_refused(tmp_path: Path, architecture: str) -> None:
    folder = foreign_folder(tmp_path, architecture, classes=3)
    for load in (lambda: TextModel.load(folder), lambda: TextModel.from_pretrained(folder, labels=LABELS)):
        with pytest.raises(UserError, match=r"takes no word embeddings|reads the padding"):
            load()


@pytest.mark.parametrize("architecture", T5)
@torch.no_grad()
def test_an_encoder_of_an_encoder_decoder_works_by_itself(tmp_path: Path, architecture: str) -> None:
    folder = foreign_folder(tmp_path / "start", architecture)
    model = TextModel.from_pretrained(folder, pooling="mean").eval()
    assert type(model.encoder).__name__.endswith("EncoderModel")
    whole, batch = AutoModel.from_pretrained(folder).eval(), random_batch()
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = whole.encoder(**read).last_hidden_state
    real = batch["attention_mask"].bool()
    out = model(batch, want=("inputs", "tokens"))
    torch.testing.assert_close(out.tokens[real], expected[real], rtol=1e-5, atol=1e-5)
    zero = torch.zeros_like(out.inputs.values)
    torch.testing.assert_close(model(batch, delta=zero, want=("tokens",)).tokens[real], expected[real])
    model.save(tmp_path / "model")
    texts = sentences(5)
    for other in (TextModel.load(tmp_path / "model"), SentenceTransformer(str(tmp_path / "model"), device="cpu")):
        torch.testing.assert_close(torch.tensor(other.encode(texts)), torch.tensor(model.encode(texts)))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ENCODERS))
@torch.no_grad()
def test_any_architecture_works_or_is_refused(tmp_path: Path, architecture: str) -> None:
    """On other texts than those of the check: by ids as by embeddings, padded as alone."""
    try:
        folder = foreign_folder(tmp_path, architecture)
    except Exception as error:  # no configuration of this size, or a package that is not installed
        pytest.skip(f"{type(error).__name__}: {error}"[:100])
    for labels in (None, LABELS) if architecture in CLASSIFIERS else (None,):
        try:
            model = TextModel.from_pretrained(folder, labels=labels).eval()
        except UserError:
            continue
        batch = random_batch(seed=9)
        want = ("inputs", "h") if labels is None else ("inputs", "h", "logits")
        plain = model({name: batch[name] for name in ("input_ids", "attention_mask")}, want=want[1:])
        out = model(batch, delta=torch.zeros_like(model(batch, want=("inputs",)).inputs.values), want=want)
        alone = model({name: batch[name][3:, :6] for name in ("input_ids", "attention_mask")}, want=want[1:])
        for field in want[1:]:
            expected = getattr(plain, field)
            size = 1e-3 * float(expected.abs().max())
            torch.testing.assert_close(getattr(out, field), expected, rtol=0, atol=size)
            torch.testing.assert_close(getattr(alone, field), expected[3:], rtol=0, atol=size)
            assert (expected[0] - expected[1]).abs().max() > 0


def test_a_tokenizer_of_few_words_is_enough(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """The check of a loaded model took ids at even distances, of which several were one where few words follow."""
    special, words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], ["a", "b", "c", "d", "e", "f"]
    for known in (words, words[:-1]):
        folder = tmp_path / str(len(known))
        AutoModel.from_pretrained(tiny_folder("bert")).save_pretrained(folder)
        (tmp_path / "vocab.txt").write_text("\n".join([*special, *known]))
        BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    assert TextModel.from_pretrained(tmp_path / "6").encode(["a b", "f"]).shape[0] == 2
    with pytest.raises(UserError, match="knows 5 words, and the check of a model needs 6"):
        TextModel.from_pretrained(tmp_path / "5")
