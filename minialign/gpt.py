"""A GPT, the way GPT-2 is built: learned positions, pre-LayerNorm, tanh-GELU, tied embeddings.

Sources: Radford et al. 2019 (GPT-2) for the architecture and initialisation, Vaswani et al. 2017 for
attention. Shapes use B = batch, T = tokens, C = n_embd, nh = n_head, hd = C / nh, V = vocab_size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from minialign.chat import Chat, load_chat
from minialign.config import Config, Count, Dropout, Natural


@dataclass(frozen=True)
class GPTConfig(Config):
    """The shape of a GPT. The defaults are the course's model: about 1.9 million parameters."""

    vocab_size: Count = 4096
    context: Count = 256  # the most tokens the model can see, prompt and response together
    n_layer: Natural = 4
    n_head: Count = 5
    n_embd: Count = 160
    dropout: Dropout = 0.0  # off: RM, PPO and DPO compare log-probs, and dropout noise in them is ruinous

    def __post_init__(self):
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")


def network_of(model) -> nn.Module:
    """The network that algorithms train: a GPT itself, or the `model` of what `minialign.load` gives.

    Raises TypeError for what is no language model.
    """
    inner = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not (isinstance(inner, nn.Module) and hasattr(inner, "hidden")):
        raise TypeError(
            f"a language model is wanted here, not {type(model).__name__}: "
            "give a GPT, or what minialign.load gives"
        )
    return inner


class KVCache:
    """Keys and values of the tokens already seen, in memory allocated once for `capacity` tokens.

    `mask` (B, capacity) is True where a real token sits; padding stays False and is never attended to.
    """

    def __init__(self, config: GPTConfig, batch: int, capacity: int, device=None, dtype=torch.float32):
        shape = (config.n_layer, batch, config.n_head, capacity, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.mask = torch.zeros(batch, capacity, dtype=torch.bool, device=device)
        self.length = 0  # tokens written so far, padding included

    def __getitem__(self, rows: torch.Tensor) -> "KVCache":
        """A cache of some rows: each several times, to share one prefill, or only those still in use."""
        copy = object.__new__(KVCache)
        copy.keys, copy.values = self.keys[:, rows], self.values[:, rows]
        copy.mask, copy.length = self.mask[rows], self.length
        return copy


class Attention(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x, allowed=None, cache=None, layer=0):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, nh, T, hd) each
        if cache is not None:
            start, end = cache.length, cache.length + T
            cache.keys[layer, :, :, start:end], cache.values[layer, :, :, start:end] = k, v
            k, v = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]  # (B, nh, end, hd)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, allowed, dropout, is_causal=allowed is None)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x, allowed=None, cache=None, layer=0):
        x = x + self.drop(self.attention(self.ln_1(x), allowed, cache, layer))
        return x + self.drop(self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh")))


class GPT(nn.Module):
    """Token ids in, next-token logits out.

    `hidden(ids, ...)` is the trunk: (B, T) ids to (B, T, C) states; `head(states)` turns states into logits
    over the vocabulary; calling the model does both. Splitting them lets a loss pay for the head only where
    it needs logits, and lets a reward model put another head on the same trunk. `chat` says how its text
    becomes tokens and back.
    """

    def __init__(self, config: GPTConfig, seed: int = 0, chat: Chat | None = None):
        super().__init__()
        self.config, self._chat = config, chat
        # The same seed gives the same model, and the global random state stays put.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # The token embedding is also the output head: tied weights.
            self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
            self.position_embedding = nn.Embedding(config.context, config.n_embd)
            self.drop = nn.Dropout(config.dropout)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
            self.ln_f = nn.LayerNorm(config.n_embd)
            self.apply(self._initialise)

    def _initialise(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        # Children come first in `apply`: shrink what is added to the residual stream.
        if isinstance(module, Block):
            for linear in (module.attention.proj, module.down):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    @property
    def chat(self) -> Chat:
        """The model's tokenizer and template: those it was made with, or else the course's own."""
        if self._chat is None:
            self._chat = load_chat()
        return self._chat

    def empty_cache(self, batch: int, capacity: int) -> KVCache:
        """Room for the keys and values of `batch` rows of up to `capacity` tokens, padding included."""
        return KVCache(self.config, batch, capacity, self.device, self.token_embedding.weight.dtype)

    def hidden(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
        added: torch.Tensor | float = 0.0,
    ) -> torch.Tensor:
        """States (B, T, C) of `ids` (B, T), after the final LayerNorm.

        `mask` (B, T) is True on real tokens; left out, all are. A token's position is the number of *real*
        tokens before it, so padding on either side changes nothing. With a `cache`, `ids` continue what the
        cache holds and are added to it. `added` (B, T, C) joins the embeddings, for a model that is told more
        about its tokens. Raises ValueError when the tokens do not fit the context, or the cache.
        """
        B, T = ids.shape
        start = cache.length if cache is not None else 0
        if cache is not None and start + T > cache.mask.shape[1]:
            raise ValueError(
                f"{start + T} tokens do not fit the cache's {cache.mask.shape[1]}: make it larger"
            )
        # With all padding on the right a causal model never looks at it: the fast path needs no mask.
        if cache is None and (mask is None or bool((mask[:, 1:] <= mask[:, :-1]).all())):
            positions, allowed, longest = torch.arange(T, device=ids.device), None, T
        else:
            seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
            if cache is not None:
                cache.mask[:, start : start + T] = seen
                seen = cache.mask[:, : start + T]  # (B, start + T)
            positions = (seen.long().cumsum(-1) - 1).clamp(min=0)[:, start:]
            longest = int(positions.max()) + 1
            rows = torch.arange(start, start + T, device=ids.device)[:, None]
            columns = torch.arange(start + T, device=ids.device)[None, :]
            # A padding token may attend to itself: a row with nothing allowed would turn into NaN.
            causal, itself = columns <= rows, columns == rows
            allowed = (causal & seen[:, None, :] | itself)[:, None]  # (B, 1, T, start + T)
        if longest > self.config.context:
            raise ValueError(
                f"{longest} tokens do not fit the context of {self.config.context}: shorten the text"
            )
        x = self.drop(self.token_embedding(ids) + self.position_embedding(positions) + added)
        for layer, block in enumerate(self.blocks):
            x = block(x, allowed, cache, layer)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., C)."""
        return F.linear(states, self.token_embedding.weight)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Logits (B, T, V): entry [b, t] predicts the token at t + 1. Arguments as for `hidden`."""
        return self.head(self.hidden(ids, mask, cache))
