"""Generation: many prompts of different lengths at once, with a key-value cache.

Prompts are padded on the left, so that all of them end at the same column and the next token of every row is written to the
same place. A row that has produced its end token freezes, and when half of the rows have, they are laid aside; when all have, generation
stops.
"""

from dataclasses import dataclass

import torch

from minialign.chat import Batch, special
from minialign.gpt import GPT, KVCache
from minialign.tokenizer import END, PAD, load_tokenizer


@dataclass(frozen=True)
class Generation:
    """What `generate` returns: B = len(prompts) · n rows, the n samples of one prompt side by side.

    | field     | shape  | meaning                                                                        |
    |-----------|--------|--------------------------------------------------------------------------------|
    | texts     | B      | the responses as text, without the end token                                   |
    | batch     | Batch  | prompts, responses and their masks, padded on the right                        |
    | log_probs | (B, T) | log π(y_t | x, y_<t) of the sampled tokens, float32, 0 elsewhere               |
    | finished  | (B,)   | True where the response ended by itself, False where it was cut off            |
    """

    texts: list[str]
    batch: Batch
    log_probs: torch.Tensor
    finished: torch.Tensor


def next_token_probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """softmax(logits / temperature) over the last axis: below 1 sharper, above 1 flatter. Raises ValueError for temperature ≤ 0."""
    if temperature <= 0:
        raise ValueError(f"the temperature is {temperature}: probabilities need a positive one")
    return (logits / temperature).softmax(-1)


@torch.no_grad()
def generate(
    model: GPT,
    prompts: list[list[int]],
    *,
    n: int = 1,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
    seed: int = 0,
    end_token: str | None = END,
) -> Generation:
    """Sample `n` responses to each prompt (lists of token ids, for instance from `chat.encode_prompt`).

    `temperature` 0 takes the most probable token; otherwise the logits are divided by it. `end_token` None never stops.
    The seed belongs to this call alone: the global random state is neither used nor changed. A response is cut off where the
    context ends. Raises ValueError for an empty list, an empty prompt, or a prompt that fills the context.
    """
    if not prompts or not all(prompts):
        raise ValueError("there is nothing to continue: give at least one prompt, and no empty one")
    if n < 1 or max_new_tokens < 1:
        raise ValueError(f"n is {n} and max_new_tokens {max_new_tokens}: both must be at least 1")
    if not temperature >= 0:
        raise ValueError(f"the temperature is {temperature}: use 0 for greedy decoding or a positive number")
    width = max(map(len, prompts))
    room = min(max_new_tokens, model.config.context - width)
    if room < 1:
        raise ValueError(f"a prompt has {width} tokens, the context holds {model.config.context}: shorten the prompt")

    device, pad = model.device, special(PAD)
    end = -1 if end_token is None else special(end_token)
    generator = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()

    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
    cache = KVCache(model.config, len(prompts), width + room, device, model.token_embedding.weight.dtype)
    states = model.hidden(ids, ids != pad, cache)[:, -1]
    copies = torch.arange(len(prompts), device=device).repeat_interleave(n)
    cache, states, ids = cache[copies], states[copies], ids[copies]

    B, never = len(ids), torch.tensor([pad], device=device)
    rows = torch.arange(B, device=device)  # which the states, the cache and `alive` are of
    tokens = torch.full((B, room), pad, device=device)
    log_probs = torch.zeros(B, room, device=device)
    alive = torch.ones(B, dtype=torch.bool, device=device)
    for t in range(room):
        logits = model.head(states).float()
        allowed = logits.index_fill(-1, never, -torch.inf)
        if temperature == 0:
            drawn = allowed.argmax(-1)
        else:
            # Invert the cumulative distribution: one random number a row, where torch.multinomial draws one for every token.
            cumulative = next_token_probabilities(allowed, temperature).cumsum(-1)
            uniform = 1 - torch.rand(B, 1, generator=generator, device=device)[rows]  # in (0, 1]: never hits a probability of 0
            drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0]
            logits = logits / temperature
        log_prob = logits.gather(-1, drawn[:, None])[:, 0] - logits.logsumexp(-1)  # <|pad|> included, as every scorer has it
        log_probs[rows, t] = torch.where(alive, log_prob, 0.0)
        tokens[rows, t] = torch.where(alive, drawn, pad)
        alive = alive & (drawn != end)
        left = int(alive.sum())
        if t + 1 == room or not left:
            break
        if 2 * left <= len(rows):
            cache, rows, drawn, alive = (x[alive] for x in (cache, rows, drawn, alive))
        states = model.hidden(drawn[:, None], alive[:, None], cache)[:, 0]
    model.train(was_training)

    tokens, log_probs = tokens[:, : t + 1], log_probs[:, : t + 1]
    response_mask = tokens != pad
    batch = Batch(
        ids=torch.cat([ids, tokens], 1),
        mask=torch.cat([ids != pad, response_mask], 1),
        response_mask=torch.cat([torch.zeros_like(ids, dtype=torch.bool), response_mask], 1),
    )
    responses = [row[row != pad].tolist() for row in tokens]
    finished = (tokens == end).any(-1)
    texts = [load_tokenizer().decode(row[:-1] if done else row) for row, done in zip(responses, finished.tolist())]
    log_probs = torch.cat([torch.zeros(ids.shape, device=device), log_probs], 1)
    # To whoever learns from it, the batch comes with its padding on the right: the model's fast path.
    order = batch.mask.int().argsort(dim=-1, descending=True, stable=True)[:, : int(batch.mask.sum(-1).max())]
    batch = Batch(*(tensor.gather(1, order) for tensor in vars(batch).values()))
    return Generation(texts, batch, log_probs.gather(1, order), finished)
