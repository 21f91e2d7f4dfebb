"""Generation: many prompts of different lengths at once, with a key-value cache.

Prompts are padded on the left, so that all of them end at the same column and the next token of every row is
written to the same place. A row that has produced its end token, or has filled its context, freezes; when
half of the rows have, they are laid aside; when all have, generation stops.
"""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from minialign.chat import Batch, Chat
from minialign.config import require_temperature
from minialign.gpt import GPT, network_of


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
    """softmax(logits / temperature) over the last axis: below 1 sharper, above 1 flatter.

    Raises ValueError for a temperature that is not positive.
    """
    require_temperature(temperature)
    return (logits / temperature).softmax(-1)


@contextmanager
def evaluating(model: torch.nn.Module):
    """Without gradients and without dropout; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextmanager
def one_thread(model: torch.nn.Module, rows: int):
    """A small model on a CPU writes a few rows with one thread, unless OMP_NUM_THREADS says otherwise.

    The steps are too short to share: two threads are hardly faster alone, and much slower where another
    process has one of the cores, for then each waits for the other. The bound is measured on the course's
    model: with 256 rows, two threads take .7 of the time alone, and 1.1 beside another process.
    """
    threads = torch.get_num_threads()
    small = max(rows, 32) * sum(p.numel() for p in model.parameters()) < 300_000_000
    if small and model.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    n: int = 1,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
    seed: int = 0,
    ends: Sequence[int] | None = None,
) -> Generation:
    """Sample `n` responses to each prompt (token ids, for instance from `model.chat.encode_prompt`).

    `temperature` 0 takes the most probable token; otherwise the logits are divided by it. `ends` are the
    tokens that end a response: left out, the one of `model.chat`; with none, (), a response never ends. A
    response is cut off where its own context ends, whatever else is in the list. The seed belongs to this
    call alone: the global random state is neither used nor changed. Raises ValueError for an empty list, an
    empty prompt, or a prompt that fills the context, and FloatingPointError for logits that are not finite.
    """
    model = network_of(model)
    room = room_for(prompts, n, max_new_tokens, model.config.context)
    with evaluating(model), one_thread(model, len(room) * n):
        return continued(model, prompts, n, room, temperature, seed, ends)


def room_for(prompts, n: int, max_new_tokens: int, context: int) -> list[int]:
    """How many tokens the response to each prompt may have. Raises ValueError where there can be none."""
    if not len(prompts) or not all(map(len, prompts)):
        raise ValueError("there is nothing to continue: give at least one prompt, and no empty one")
    if n < 1 or max_new_tokens < 1:
        raise ValueError(f"n is {n} and max_new_tokens {max_new_tokens}: both must be at least 1")
    room = [min(max_new_tokens, context - len(prompt)) for prompt in prompts]
    if min(room) < 1:
        longest = max(map(len, prompts))
        raise ValueError(f"a prompt has {longest} tokens, the context holds {context}: shorten the prompt")
    return room


def continued(model, prompts, n: int, room: list[int], temperature: float, seed: int, ends) -> Generation:
    """What `generate` does with arguments that are in order."""
    device, chat = model.device, model.chat
    ends = torch.tensor([chat.end] if ends is None else list(ends), dtype=torch.long, device=device)
    generator = torch.Generator(device).manual_seed(seed)

    # Each prompt is read once; then every sample of it gets a copy of what was read.
    ids, mask = (x.to(device) for x in left_padded(prompts, chat.pad))
    cache = model.empty_cache(len(prompts), ids.shape[1] + max(room))
    states = model.hidden(ids, mask, cache)[:, -1]
    copies = torch.arange(len(prompts), device=device).repeat_interleave(n)
    cache, states, ids, mask = (x[copies] for x in (cache, states, ids, mask))
    room = torch.tensor(room, device=device)[copies]

    tokens = torch.full((len(ids), int(room.max())), chat.pad, device=device)
    written, finished = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(room, dtype=torch.bool)
    log_probs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    rows = torch.arange(len(ids), device=device)  # those in work: states, cache, drawn and alive are of them
    alive = torch.ones_like(rows, dtype=torch.bool)
    for t in range(tokens.shape[1]):
        # One random number for each row, in work or not: a row draws the same whenever the others end.
        uniform = 1 - torch.rand(len(ids), 1, generator=generator, device=device, dtype=torch.float32)[rows]
        drawn, log_prob = draw(model.head(states).float(), temperature, uniform, chat.pad)
        require_finite(log_prob, "logits")
        written[rows, t], tokens[rows, t] = alive, torch.where(alive, drawn, chat.pad)
        log_probs[rows, t] = torch.where(alive, log_prob, 0.0)
        ended = torch.isin(drawn, ends)
        finished[rows] |= alive & ended
        alive = alive & ~ended & (t + 1 < room[rows])
        left = int(alive.sum())
        if not left:
            break
        if 2 * left <= len(rows):  # lay aside the rows that have ended
            cache, rows, drawn, alive = (x[alive] for x in (cache, rows, drawn, alive))
        states = model.hidden(drawn[:, None], alive[:, None], cache)[:, 0]
    return packed(chat, (ids, mask), (tokens, written), log_probs, finished)


def require_finite(values: torch.Tensor, what: str) -> None:
    """Raises FloatingPointError where a model has diverged."""
    if not bool(values.isfinite().all()):
        raise FloatingPointError(
            f"the model's {what} are not finite: its weights have diverged; "
            "load it, or train it again with a lower learning rate"
        )


def left_padded(prompts, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as ids (B, T) that all end in the last column, and where the real ones are, (B, T)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    starts = torch.tensor([width - len(prompt) for prompt in prompts])
    return ids, torch.arange(width) >= starts[:, None]


def draw(
    logits: torch.Tensor, temperature: float, uniform: torch.Tensor, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each row of logits (B, V), and its log-probability, (B,) each. `pad` is never drawn.

    The cumulative distribution is inverted at `uniform` (B, 1), numbers in (0, 1]: one a row, where
    torch.multinomial draws one for every token of the vocabulary.
    """
    allowed = logits.index_fill(-1, torch.tensor([pad], device=logits.device), -torch.inf)
    if temperature == 0:
        drawn = allowed.argmax(-1)
    else:
        cumulative = next_token_probabilities(allowed, temperature).cumsum(-1)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0]
        drawn = drawn.clamp(max=logits.shape[-1] - 1)  # of NaNs, past the end: the caller finds them
        logits = logits / temperature
    # With the pad token's share, as every scorer has it.
    return drawn, logits.gather(-1, drawn[:, None])[:, 0] - logits.logsumexp(-1)


def packed(chat: Chat, prompt, response, log_probs, finished) -> Generation:
    """Prompt and response, (ids, mask) each, side by side, padded on the right: a learner's fast path."""
    rows = [ids[real].tolist() for ids, real in zip(*response)]
    texts = [chat.decode(row[:-1] if done else row) for row, done in zip(rows, finished.tolist())]
    ids, mask = (torch.cat(pair, 1) for pair in zip(prompt, response))
    nothing = torch.zeros_like(prompt[0])
    response_mask = torch.cat([nothing.bool(), response[1]], 1)
    log_probs = torch.cat([nothing.float(), log_probs], 1)
    order = mask.int().argsort(descending=True, stable=True)[:, : int(mask.sum(-1).max())]
    ids, mask, response_mask, log_probs = (x.gather(1, order) for x in (ids, mask, response_mask, log_probs))
    return Generation(texts, Batch(ids, mask, response_mask), log_probs, finished)
