"""Notebook 03: REINFORCE on the fine-tuned model, with the judge's gold as reward, and famous bugs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minialign import policy_gradient
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, answers, different, held_out_prompts
from minialign.course.experiments.measuring import measured, over_seeds
from minialign.gpt import GPT, GPTConfig
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.policy_gradient import PolicyGradientConfig, reinforce_loss, rloo_advantages
from minialign.rollouts import Rollout, roll_out
from minialign.training import History, stop_if_interrupted
from minialign.world.exact import EnumeratedPolicy, MicroWorld, micro_world
from minialign.world.judge import WEIGHTS, gold_rewards
from minialign.world.prompts import prompts_of

LONG = PolicyGradientConfig(steps=100)
EVERY = 10  # updates between two measurements
COOLER = (0.7, 0.0)  # temperatures at which it is measured, too, before and after


def trained(
    sft: GPT, config: PolicyGradientConfig, on_step: Callable = lambda policy, metrics: None, **options
) -> tuple[GPT, History]:
    """A copy of `sft`, trained for the gold reward on the `policy` prompts, and its history.

    `on_step(policy, metrics)` sees every step.
    """
    policy = copy.deepcopy(sft)
    prompts, on_step = [p.text for p in prompts_of("policy")], partial(on_step, policy)
    return policy, policy_gradient.train(policy, prompts, gold_rewards, config, on_step=on_step, **options)


# --- what the notebook counts in full, and single steps ---

END_TOKEN, LONGEST = 4, 4


def tiny_language(seed: int = 1) -> tuple[GPT, Batch]:
    """A GPT with random weights that knows four words and an end token, and all 341 things it can say.

    An utterance ends with the end token, or is cut off after four tokens. The prompt is the single token 0.
    """

    def utterances(so_far: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
        if len(so_far) == LONGEST or END_TOKEN in so_far:
            return [so_far]
        return [y for token in range(END_TOKEN + 1) for y in utterances((*so_far, token))]

    said = utterances()
    ids = torch.tensor([(0, *y, *[0] * (LONGEST - len(y))) for y in said])
    mask = torch.arange(1 + LONGEST) <= torch.tensor([[len(y)] for y in said])
    response = mask & (torch.arange(1 + LONGEST) > 0)
    shape = GPTConfig(vocab_size=END_TOKEN + 1, context=1 + LONGEST, n_layer=1, n_head=1, n_embd=8)
    model = GPT(shape, seed=seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that a mistake shows
    return model, Batch(ids, mask, response)


def gradient_by_parameters(value: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """The gradient of a number by all D parameters of the model, as one vector, (D,)."""
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found])


def token_scores(model: GPT, batch: Batch) -> torch.Tensor:
    """∇ log π(y_t | x, y_<t) by all D parameters, (B, T, D), 0 wherever response_mask is False."""
    scores = []
    for row in range(len(batch.ids)):
        one = batch[torch.tensor([row])]
        log_probs = token_log_probs(model, one)[0]
        none = torch.zeros_like(torch.nn.utils.parameters_to_vector(model.parameters())).detach()
        scores += [
            gradient_by_parameters(log_prob, model) if counts else none
            for log_prob, counts in zip(log_probs, one.response_mask[0])
        ]
    return torch.stack(scores).view(*batch.ids.shape, -1)


def moved(model: GPT, loss_fn: Callable[[GPT], torch.Tensor], size: float) -> GPT:
    """A copy of the model, a step of length `size` down the gradient of loss_fn(copy)."""
    copied = copy.deepcopy(model)
    copied.zero_grad()
    loss_fn(copied).backward()
    norm = torch.nn.utils.clip_grad_norm_(copied.parameters(), torch.inf)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter -= size * parameter.grad / norm
    return copied


def change_of_table(
    n: int, drawn: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """How log π of n responses changes, (n,), by a step of length 1 × gradient from a table of equal logits.

    loss(log π of those drawn) is what goes down.
    """
    table = torch.zeros(n, requires_grad=True)
    before = table.log_softmax(-1)
    loss(before[drawn]).backward()
    return ((table - table.grad).log_softmax(-1) - before).detach()


def change_of_gpt(
    model: GPT,
    world: MicroWorld,
    drawn: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
    log_prob: Callable = sequence_log_probs,
    size: float = 0.02,
) -> torch.Tensor:
    """The same for a GPT, of the first prompt's responses, (N,), by a step of length `size`."""
    one_prompt = micro_world(world.prompts[:1])
    batch = model.chat.collate([(one_prompt.prompts[0], one_prompt.responses[0][y]) for y in drawn.tolist()])
    after = moved(model, lambda copied: loss(log_prob(copied, batch)), size)
    with torch.no_grad():
        before, now = (EnumeratedPolicy(policy, one_prompt)()[0] for policy in (model, after))
    return now - before


def distance(model: torch.nn.Module, other: torch.nn.Module) -> float:
    """The distance of their parameters, all of them as one vector."""
    ours, theirs = (torch.nn.utils.parameters_to_vector(m.parameters()) for m in (model, other))
    return float((ours - theirs).detach().norm())


def shown(policy: GPT, sft: GPT, drawn: tuple[int, ...], temperatures=(1.0,)) -> list[dict]:
    """One answer to each held-out prompt, a row for each temperature: `measuring.measured`.

    Gold is the sum of the attributes, each times its weight: a gain in gold can be told apart by attribute.
    """
    return measured(policy, sft, held_out_prompts(), drawn, temperatures=temperatures, n=1)


def variety(policy: GPT, seed: int, n: int = 8, every: int = 8) -> float:
    """How many different answers there are among n samples for a prompt, on average, from 1 to n."""
    return different(answers(policy, held_out_prompts()[::every], seed=seed, n=n), n)


def reinforce(sft: GPT) -> list[dict]:
    """A hundred updates: what the run records at every step, and every 10 what held-out prompts show.

    Rows with a `temperature` are measured. Before and after there are some at lower temperatures too: to
    sample more coolly costs nothing, so the gain is to be held against that.
    """
    rows = []
    for seed in SEEDS:

        def on_step(policy: GPT, metrics: dict) -> None:
            if metrics["step"] % EVERY == 0:
                metrics |= shown(policy, sft, (seed, metrics["step"]))[0]

        policy, history = trained(sft, replace(LONG, seed=seed), on_step)
        stop_if_interrupted(history)
        steps = [{"step": 0, **shown(sft, sft, (seed, 0))[0]}, *history]
        for step, model in ((0, sft), (LONG.steps, policy)):
            steps[step] |= {"different_of_8": variety(model, seed)}
            steps += [{"step": step, **row} for row in shown(model, sft, (seed, step), COOLER)]
        rows += [{"seed": seed, **row} for row in steps]
    return rows


def parts_of_gain(
    rows: Sequence[dict], after: tuple[int, float], before: tuple[int, float]
) -> dict[str, np.ndarray]:
    """What each attribute adds to the gain in gold between two (update, temperature) of `reinforce`, (S,).

    It is the attribute's weight times its rise; together they are the gain.
    """

    def of(name: str, which: tuple[int, float]) -> np.ndarray:
        return over_seeds(rows, f"attribute/{name}", step=which[0], temperature=which[1])

    return {name: weight * (of(name, after) - of(name, before)) for name, weight in WEIGHTS.items()}


# --- what a baseline is worth on the model itself ---

DRAWS = 12  # gradients for each estimate of a variance
DESIGNS = {(16, 8): ("none", "mean", "leave one out"), (128, 1): ("none", "mean")}  # prompts × samples


def advantages(rewards: torch.Tensor, baseline: str) -> torch.Tensor:
    """rewards (prompts, k) minus nothing, minus the mean of all, or minus that of the prompt's others."""
    if baseline == "leave one out":
        return rloo_advantages(rewards)
    return rewards - rewards.mean() if baseline == "mean" else rewards


def signal_and_noise(gradients: torch.Tensor) -> dict[str, float]:
    """Of independent estimates (R, D) of one gradient: their total variance, and ‖E g‖², both unbiased."""
    mean = gradients.mean(0)
    variance = float((gradients - mean).square().sum()) / (len(gradients) - 1)
    return {"variance": variance, "signal": float(mean.square().sum()) - variance / len(gradients)}


def gradient_of(policy: GPT, rollout: Rollout, baseline: str) -> torch.Tensor:
    """The policy gradient's estimate from one rollout, over all parameters, (D,)."""
    policy.zero_grad()
    weights = advantages(rollout.rewards.view(-1, rollout.n), baseline).flatten()
    log_probs = rollout.batch.by_parts(partial(sequence_log_probs, policy), 32)
    reinforce_loss(log_probs, weights).backward()
    return -torch.cat([p.grad.flatten() for p in policy.parameters()])


def gradient_noise(sft: GPT) -> list[dict]:
    """Variance of the gradient from 128 samples of the fine-tuned model, with and without a baseline.

    The samples are 8 for each of 16 prompts, or 1 for each of 128.
    """
    policy, prompts, rows = copy.deepcopy(sft), [p.text for p in prompts_of("policy")], []
    for seed in SEEDS:
        for (n_prompts, n), baselines in DESIGNS.items():
            found = {baseline: [] for baseline in baselines}
            for draw in range(DRAWS):
                chosen = np.random.default_rng((seed, draw)).permutation(len(prompts))[:n_prompts]
                asked = [prompts[i] for i in chosen]
                rollout = roll_out(policy, asked, gold_rewards, n=n, seed=(seed, n, draw))
                for baseline, gradients in found.items():
                    gradients.append(gradient_of(policy, rollout, baseline))
            design = {"seed": seed, "prompts": n_prompts, "samples": n}
            for baseline, gradients in found.items():
                rows.append(design | {"baseline": baseline, **signal_and_noise(torch.stack(gradients))})
    return rows


# --- the famous bugs of policy gradients: each is another log π(y|x) ---


def sign_flipped(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """Descent where there should be ascent."""
    return -sequence_log_probs(policy, batch, temperature)


def averaged_over_tokens(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """log π(y|x) divided by the number of tokens."""
    return sequence_log_probs(policy, batch, temperature) / batch.response_mask.sum(-1)


def end_token_dropped(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """log π(y|x) without its last factor: when to stop is never trained."""
    return token_log_probs(policy, batch, temperature).masked_fill(batch.ids == policy.chat.end, 0.0).sum(-1)


BUGS: dict[str, Callable] = {
    "correct": sequence_log_probs,
    "sign flipped": sign_flipped,
    "averaged over tokens": averaged_over_tokens,
    "end token dropped": end_token_dropped,
}


SHORT = PolicyGradientConfig(steps=20)


def reinforce_bugs(sft: GPT) -> list[dict]:
    """Twenty updates with each bug, and without a baseline, which is no bug but slower, as `shown`."""
    rows = []
    for seed in SEEDS:
        rows.append({"seed": seed, "bug": "before", **shown(sft, sft, (seed, 0))[0]})
        for number, bug in enumerate((*BUGS, "no baseline"), 1):
            config = replace(SHORT, seed=seed, baseline="none" if bug == "no baseline" else "rloo")
            policy, history = trained(sft, config, log_prob=BUGS.get(bug, sequence_log_probs))
            stop_if_interrupted(history)
            rows.append({"seed": seed, "bug": bug, **shown(policy, sft, (seed, number))[0]})
    return rows


TABLES = (reinforce, gradient_noise, reinforce_bugs)
