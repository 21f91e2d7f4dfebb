"""Notebook 05: one answer token by token, and a critic that knows what can be known of it."""

from dataclasses import dataclass

import torch

from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.reward_model import RewardModel
from minialign.sampling import generate

CERTAIN = 0.97  # a token more probable than this decides nothing


@dataclass(frozen=True)
class OneAnswer:
    """The T tokens of one response and what PPO knows of them, (1, T) each, as the functions of PPO take it.

    | field                 | meaning                                                          |
    |-----------------------|------------------------------------------------------------------|
    | tokens                | as text, the end token included                                  |
    | log_probs             | log π(y_t | x, y_<t) of the policy                               |
    | reference_log_probs   | of the reference                                                 |
    | scores                | the reward model's, (1,)                                         |
    | response_mask         | True everywhere: the prompt is left out                          |
    """

    tokens: list[str]
    log_probs: torch.Tensor
    reference_log_probs: torch.Tensor
    scores: torch.Tensor
    response_mask: torch.Tensor


def read(policy: GPT, reference: GPT, reward: RewardModel, prompt: str, response: str) -> OneAnswer:
    """What the three models say of a response to a prompt."""
    batch = policy.chat.collate([(prompt, response)])
    mask = batch.response_mask
    with torch.no_grad():
        ours, theirs = (token_log_probs(model, batch)[mask][None] for model in (policy, reference))
    tokens = [policy.chat.decode([token]) for token in batch.ids[mask].tolist()]
    scores = torch.tensor([reward.score(prompt, response)])
    return OneAnswer(tokens, ours, theirs, scores.float(), torch.ones_like(ours, dtype=torch.bool))


def knowing_values(
    policy: GPT,
    reference: GPT,
    reward: RewardModel,
    prompt: str,
    response: str,
    beta: float,
    n: int = 64,
    seed: int = 0,
) -> torch.Tensor:
    """V before each token, (1, T), estimated by rolling out: the mean of n ends that the policy writes there.

    What an end is worth is its answer's score, with PPO's penalty of 1 for one that was cut off, minus β
    times the log-ratio of what is new in it. Before a token more probable than CERTAIN nothing is decided,
    and V is the token's reward plus V after it; the others have ends of their own.
    """
    seen = read(policy, reference, reward, prompt, response)
    chat, log_probs = policy.chat, seen.log_probs[0]
    rewards = -beta * (log_probs - seen.reference_log_probs[0])
    rewards[-1] += seen.scores[0]
    asked, written = chat.encode_prompt(prompt), chat.encode_response(response)
    forks = [t for t in range(len(written)) if t == 0 or log_probs[t].exp() <= CERTAIN]
    drawn = generate(policy, [asked + written[:t] for t in forks], n=n, max_new_tokens=96, seed=seed)
    begun = [chat.decode(written[:t]) for t in forks for _ in range(n)]
    whole = [begin + end for begin, end in zip(begun, drawn.texts)]
    scores = torch.from_numpy(reward.score([prompt] * len(whole), whole)) - 1.0 * ~drawn.finished
    with torch.no_grad():
        theirs = drawn.batch.by_parts(lambda part: sequence_log_probs(reference, part))
    worth = scores - beta * (drawn.log_probs.sum(-1) - theirs)
    of_fork = dict(zip(forks, worth.view(len(forks), n).mean(-1).tolist()))
    values, after = torch.zeros_like(log_probs), 0.0
    for t in reversed(range(len(written))):
        after = values[t] = of_fork.get(t, float(rewards[t]) + float(after))
    return values[None]
