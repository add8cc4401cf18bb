"""Heads: modules of a method's own on top of the encoder, trained and saved with it.

A head is built from its `HeadSpec`; its kind decides which outputs of one pass it reads:

- ``projection``: ``h`` (B, H) -> (B, dim);
- ``pooler``: output of the encoder's own pooler, (B, H), without weights of its own;
- ``mlp``: the same, through several layers with batch norm;
- ``mlm``: ``tokens`` (B, T, H) -> logits over the vocabulary (B, T, V);
- ``critic``: two features of a method's choice, through `HeadCall`;
- ``ngrams``: ``tokens`` (B, T, H) and the mask (B, T) -> (B, T, dim), zero on padding;
- ``patches``: features of an image's patches, and which of them are hidden, through `HeadCall`.

An ``mlm`` head starts as the masked-language head of the checkpoint that its encoder was loaded from, where it has one.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel
from transformers.utils import cached_file

from contraverse.errors import UserError
from contraverse.types import HeadSpec


class ReconstructionHead(nn.Module):
    """Token prediction at each place: Hugging Face's ALBERT masked-language head, for any encoder.

    Dense H -> D, GELU, layer norm, then a decoder D -> V that is the word embeddings themselves and adds a bias
    alone. With albert-base-v2 it adds 768 * 128 + 128 + 2 * 128 + 30,000 = 128,688 parameters (CARL/RAR, Table 7).

    Args:
        width: H, of the encoder's hidden states.
        vocabulary: V.
        embedding: D, of its word embeddings.
        std: the weights are drawn from N(0, std).
    """

    def __init__(self, width: int, vocabulary: int, embedding: int, std: float = 0.02) -> None:
        super().__init__()
        self.dense = _linear(width, embedding, std)
        self.norm = nn.LayerNorm(embedding)
        self.bias = nn.Parameter(self.norm.weight.new_zeros(vocabulary))

    def forward(self, tokens: Tensor, embedding_shape: Tensor) -> Tensor:
        """Logits (B, T, V) of ``tokens`` (B, T, H), given the word embeddings ``words`` (V, D).

        Where the tokens are constants the words are, too: the head then learns alone.
        """
        embedding_shape = embedding_shape if tokens.requires_grad else embedding_shape.detach()
        return F.linear(self.norm(F.gelu(self.dense(tokens))), embedding_shape, self.bias)


class Critic(nn.Module):
    """Score of a pair of features: ``softplus(MLP([a; b]))``, InfoBERT's critic.

    The MLP has one hidden layer of ``hidden`` ReLU units. Because its first layer is linear in each of the two, all
    pairs of N and M features cost N + M products, not N * M.

    Args:
        left, right: widths of the two.
        hidden: units of the hidden layer.
        std: the weights are drawn from N(0, std).
    """

    def __init__(self, left: int, right: int, hidden: int, std: float = 0.02) -> None:
        super().__init__()
        self.left = _linear(left, hidden, std)
        self.right = nn.Linear(right, hidden, bias=False)
        nn.init.normal_(self.right.weight, std=std)
        self.score = _linear(hidden, 1, std)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Scores (N, M) of every pair of ``left`` (N, L) and ``right`` (M, R)."""
        pairs = self.left(left).unsqueeze(1) + self.right(right).unsqueeze(0)
        return F.softplus(self.score(F.relu(pairs)).squeeze(-1))


class NGrams(nn.Module):
    """IS-BERT's local features: convolutions over windows of 1, 3 and 5 tokens, ReLU, side by side.

    Padding is zero on its way in and on its way out, so that its length does not matter. The weights are as torch
    draws a convolution's: the authors use its defaults, and the spread of an encoder's own would be another for each.

    Args:
        width: H, of the encoder's hidden states.
        dim: width of the features, a third for each window.

    Raises:
        ValueError: ``dim`` is no multiple of three.
    """

    WINDOWS = (1, 3, 5)

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.filters, rest = divmod(dim, len(self.WINDOWS))
        if rest:
            raise ValueError(f"the width of n-gram features is a multiple of {len(self.WINDOWS)}, not {dim}")
        self.convs = nn.ModuleList(nn.Conv1d(width, self.filters, size, padding=size // 2) for size in self.WINDOWS)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, dim) of ``tokens`` (B, T, H), whose real ones ``mask`` (B, T) tells."""
        real = mask.unsqueeze(1).bool()
        tokens = torch.where(real, tokens.transpose(1, 2), 0.0)
        features = F.relu(torch.cat([conv(tokens) for conv in self.convs], 1))
        return torch.where(real, features, 0.0).transpose(1, 2)


class Patches(nn.Module):
    """Scores of Selfie: each hidden patch against each hidden place, from the visible patches.

    Seen patches, each with its place, and a query that is learnt pass through layers of self-attention; what becomes
    of the query is the image's summary. Summary plus a place is compared with every hidden patch. Places are given by
    sines and cosines of row and column, so that any square grid will do. Attention is torch's own, normed first, with
    4 heads, inner layers 4 times as wide and no dropout; its weights are drawn as torch draws them.

    Args:
        width: H, of a patch's features.
        dim: width of attention.
        layers: of attention; Selfie has 3.

    Raises:
        ValueError: ``dim`` is no multiple of four.
    """

    HEADS = 4

    def __init__(self, width: int, dim: int, layers: int) -> None:
        super().__init__()
        if dim % self.HEADS:
            raise ValueError(f"the width of attention over patches is a multiple of {self.HEADS}, not {dim}")
        self.dim = dim
        self.seen, self.candidates = nn.Linear(width, dim), nn.Linear(width, dim)
        self.query = nn.Parameter(torch.zeros(dim))
        layer = nn.TransformerEncoderLayer(dim, self.HEADS, 4 * dim, 0.0, batch_first=True, norm_first=True)
        self.attention = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, features: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Scores (B, M, M): entry (m, k) of how well hidden patch k stands at the place of hidden patch m.

        Args:
            features: (B, P, H), of all patches, row by row of a square grid.
            visible: (B, V), which patches are seen.
            hidden: (B, M), which are not.
        """
        places = self.places(features.shape[1], features.device).to(features)  # (P, dim)
        seen = self.seen(_rows(features, visible)) + places[visible]
        queries = self.query.to(seen.dtype).expand(len(seen), 1, -1)
        # Fused attention saves nothing here, and in bfloat16 on a CPU its backward pass takes most of a step.
        with sdpa_kernel(SDPBackend.MATH):
            summary = self.attention(torch.cat([queries, seen], 1))[:, :1]
        return (summary + places[hidden]) @ self.candidates(_rows(features, hidden)).mT / self.dim**0.5

    def places(self, patches: int, device: torch.device | None = None) -> Tensor:
        """(P, dim): sines and cosines of each patch's row, then of its column, at dim / 4 frequencies from 1 down.

        Made on ``device``, so that no pass copies them there.
        """
        side = math.isqrt(patches)
        rates = 10_000.0 ** -(torch.arange(self.dim // 4, device=device) / (self.dim // 4))  # (dim / 4,)
        angles = torch.arange(side, device=device).unsqueeze(1) * rates  # (side, dim / 4)
        lines = torch.cat([angles.sin(), angles.cos()], 1)
        return torch.cat([lines.repeat_interleave(side, 0), lines.repeat(side, 1)], 1)


def _rows(features: Tensor, which: Tensor) -> Tensor:
    """Rows ``which`` (B, K) of ``features`` (B, P, H): (B, K, H)."""
    return features.gather(1, which.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def mlp(width: int, dim: int, layers: int) -> nn.Sequential:
    """SimCLR's head, as deep as ACL's has it: H -> H, batch norm, ReLU for each layer, and H -> dim, batch norm.

    The first linear layer alone has a bias, as in ACL's code, though batch norm takes it out again. Weights are drawn
    as torch draws a linear layer's.

    Args:
        width: H, of the features.
        dim: width of the output.
        layers: linear ones, >= 1; ACL has three of 512, SimCLR two.
    """
    parts = OrderedDict[str, nn.Module]()
    for number in range(1, layers + 1):
        outputs = dim if number == layers else width
        parts[f"linear{number}"] = nn.Linear(width, outputs, bias=number == 1)
        parts[f"norm{number}"] = nn.BatchNorm1d(outputs)
        if number < layers:
            parts[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(parts)


def build_head(spec: HeadSpec, width: int, *, embedding_shape: tuple[int, int], std: float = 0.02) -> nn.Module:
    """The head that ``spec`` describes; ``words`` is the shape (V, D) of the encoder's word embeddings.

    A projection is SimCSE's and SCAL's "pooler layer": ``Linear(H, dim)`` and its activation. Weights are drawn from
    N(0, std) and biases are zero, as Hugging Face initialises its own heads.
    """
    if spec.kind == "pooler":
        return nn.Identity()
    if spec.kind == "mlp":
        return mlp(width, spec.dim or width, spec.layers)
    if spec.kind == "mlm":
        return ReconstructionHead(width, *embedding_shape, std)
    if spec.kind == "critic":
        return Critic(width, width, spec.dim or 300, std)
    if spec.kind == "ngrams":
        return NGrams(width, spec.dim or width)
    if spec.kind == "patches":
        return Patches(width, spec.dim or width, spec.layers)
    activation = nn.Tanh() if spec.activation == "tanh" else nn.Identity()
    return nn.Sequential(OrderedDict(dense=_linear(width, spec.dim or width, std), activation=activation))


def own_pooler(encoder: PreTrainedModel) -> tuple[nn.Linear, nn.Module]:
    """The linear layer of the encoder's own pooler, which reads the first token's last state, and its activation.

    Raises:
        UserError: the encoder has none.
    """
    pooler = getattr(encoder.base_model, "pooler", None)
    parts = (getattr(pooler, "dense", None), getattr(pooler, "activation", None))
    if isinstance(pooler, nn.Linear):  # ALBERT's
        parts = (pooler, getattr(encoder.base_model, "pooler_activation", None))
    dense, activation = parts
    if not isinstance(dense, nn.Linear) or not isinstance(activation, nn.Module):
        raise UserError(
            f"a {type(encoder).__name__} has no pooler of its own",
            where="method.projection",
            hint="use projection=new, which adds a layer, or an encoder that has one: BERT or ALBERT",
        )
    return dense, activation


def _linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    dense = nn.Linear(inputs, outputs)
    nn.init.normal_(dense.weight, std=std)
    nn.init.zeros_(dense.bias)
    return dense


def find_head(heads: nn.ModuleDict, name: str) -> nn.Module:
    """The head of this name.

    Raises:
        UserError: the model has none.
    """
    if name in heads:
        return heads[name]
    raise UserError(
        f"the model has no head {name!r}",
        hint=f'declare it on the method: heads = {{"{name}": HeadSpec()}}; Trainer then adds it, '
        "and in a loop of your own model.add_heads(method.heads) does",
    )


MLM_HEADS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),  # BERT, DeBERTa
    ("lm_head.dense", "lm_head.layer_norm", "lm_head"),  # RoBERTa, XLM-R, MPNet
    ("predictions.dense", "predictions.LayerNorm", "predictions"),  # ALBERT
    ("vocab_transform", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),  # ELECTRA's generator
    ("head.dense", "head.norm", "decoder"),  # ModernBERT
)
"""Names in checkpoints of the dense layer, the layer norm, and the holder of the decoder's bias."""
TENSORFLOW = {"weight": "gamma", "bias": "beta"}
"""Names of the two parts of a layer norm in checkpoints converted from TensorFlow."""


def start_from_checkpoint(head: ReconstructionHead, encoder: PreTrainedModel) -> bool:
    """Give ``head`` the weights of the checkpoint's own masked-language head, and tell whether there was one.

    The head stays as it was drawn where the checkpoint has none (sentence encoders, generators of another shape), where
    its decoder is not the word embeddings, and where the files cannot be reached any more. Nothing is downloaded. The
    epsilon of its layer norm stays torch's, which is no part of a checkpoint.
    """
    if not getattr(encoder.config, "tie_word_embeddings", True):
        return False
    for dense, norm, decoder in MLM_HEADS:
        wanted = {"dense.weight": [f"{dense}.weight"], "dense.bias": [f"{dense}.bias"]}
        for part, old in TENSORFLOW.items():
            wanted[f"norm.{part}"] = [f"{norm}.{part}", f"{norm}.{old}"]
        wanted["bias"] = [f"{decoder}.bias", f"{decoder}.decoder.bias"]
        tensors = dict(_tensors(encoder, {name for names in wanted.values() for name in names}))
        state = {mine: tensors[name] for mine, names in wanted.items() for name in names if name in tensors}
        state.setdefault("dense.bias", torch.zeros_like(head.dense.bias))  # ModernBERT's layers have no biases
        state.setdefault("norm.bias", torch.zeros_like(head.norm.bias))
        own = head.state_dict()
        if state.keys() == own.keys() and all(state[name].shape == own[name].shape for name in own):
            head.load_state_dict(state)
            return True
    return False


def _tensors(encoder: PreTrainedModel, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the checkpoint with one of the ``names``."""
    for path in _files(encoder):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in names & set(file.keys()):
                    yield name, file.get_tensor(name)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            yield from ((name, state[name]) for name in names & state.keys())


def _files(encoder: PreTrainedModel) -> list[Path]:
    """The checkpoint's files of weights, in its folder or in the cache of the Hub."""

    source = encoder.name_or_path

    def find(name: str) -> Path | None:
        revision = getattr(encoder.config, "_commit_hash", None)  # set by `loading.load_config`
        try:
            file = cached_file(source or "", name, revision=revision, local_files_only=True)
        except OSError:
            return None
        return None if file is None else Path(file)

    if not source:
        return []
    for name in ("model.safetensors", "pytorch_model.bin"):
        if path := find(name):
            return [path]
    index = find("model.safetensors.index.json")
    if index is None:
        return []
    parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [path for part in parts if (path := find(part))]


def grown(head: nn.Module, encoder: PreTrainedModel) -> nn.Module:
    """``head`` as it starts on ``encoder``: a reconstruction head as the checkpoint's own where there is one."""
    if isinstance(head, ReconstructionHead):
        start_from_checkpoint(head, encoder)
    return head
