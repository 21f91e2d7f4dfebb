"""Wrong answers to the exercises as readers write them, each with words that its diagnosis must hold."""

import numpy as np
import torch
import torch.nn.functional as F

from minialign.logprobs import token_log_probs
from minialign.statistics import mean_with_interval
from minialign.world.judge import WEIGHTS

# --- notebook 01: merges ---


def merge_ignoring_the_second(sequence, pair, new):
    merged, i = [], 0
    while i < len(sequence):
        if i + 1 < len(sequence) and sequence[i] == pair[0] == sequence[i + 1]:
            merged.append(new)
            i += 2
        else:
            merged.append(sequence[i])
            i += 1
    return merged


def merge_by_the_first_alone(sequence, pair, new):
    merged, i = [], 0
    while i < len(sequence):
        if sequence[i] == pair[0]:
            merged.append(new)
            i += 2
        else:
            merged.append(sequence[i])
            i += 1
    return merged


def merge_dropping_the_last(sequence, pair, new):
    merged, i = [], 0
    while i < len(sequence) - 1:
        if (sequence[i], sequence[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(sequence[i])
            i += 1
    return merged


def merge_keeping_the_second(sequence, pair, new):
    merged = []
    for i in range(len(sequence)):
        merged.append(new if tuple(sequence[i : i + 2]) == pair else sequence[i])
    return merged


def merge_keeping_the_second_without_the_last(sequence, pair, new):
    return [new if (a, b) == pair else a for a, b in zip(sequence, sequence[1:])]


def merge_overlapping(sequence, pair, new):
    merged, inside = [], False
    for i in range(len(sequence)):
        begins = tuple(sequence[i : i + 2]) == pair
        if begins:
            merged.append(new)
        elif not inside:
            merged.append(sequence[i])
        inside = begins
    return merged


def merge_from_the_end(sequence, pair, new):
    merged, i = list(sequence), len(sequence) - 2
    while i >= 0:
        if (merged[i], merged[i + 1]) == pair:
            merged[i : i + 2] = [new]
            i -= 1
        i -= 1
    return merged


def merge_by_twos(sequence, pair, new):
    merged = []
    for i in range(0, len(sequence), 2):
        two = sequence[i : i + 2]
        merged += [new] if tuple(two) == pair else two
    return merged


def merge_always_two_on(sequence, pair, new):
    merged, i = [], 0
    while i < len(sequence):
        merged.append(new if tuple(sequence[i : i + 2]) == pair else sequence[i])
        i += 2
    return merged


# --- notebook 02 ---


def token_losses(logits, ids):
    return -logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def prompt_in_padding_out(logits, ids, response_mask):
    real = torch.zeros_like(response_mask)
    for row, last in enumerate(response_mask.int().cumsum(-1).argmax(-1)):
        real[row, : last + 1] = True
    real = real[:, 1:]
    return (token_losses(logits, ids) * real).sum() / real.sum()


def shifted_twice(logits, ids, response_mask):
    mask = response_mask.roll(-1, 1)[:, 1:]
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


# --- notebook 03 ---


def chosen(model, batch, log_softmax=lambda logits: logits.log_softmax(-1)):
    log_p = log_softmax(model(batch.ids, batch.mask)[:, :-1])
    return log_p.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)


def whitened(log_probs, rewards, baseline):
    advantages = (rewards - baseline).detach()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return -(advantages * log_probs).mean()


def right_but_a_number(log_probs, rewards, baseline):
    return -((rewards - baseline).detach() * log_probs).mean().item()


def whitened_rewards(log_probs, rewards, baseline):
    return -((rewards - rewards.mean()) / rewards.std() * log_probs).mean()


def divided_by_the_deviation(log_probs, rewards, baseline):
    advantages = (rewards - baseline).detach()
    return -(advantages / advantages.std() * log_probs).mean()


def discounted(rewards, gamma=0.99):
    following, found = 0.0, []
    for reward in rewards.unbind(-1)[::-1]:
        following = reward + gamma * following
        found.append(following)
    return torch.stack(found[::-1], -1)


# --- notebook 04 ---


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def zermelo(wins, rounds=2000):
    strengths = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(rounds):
        met = (wins + wins.T) / (strengths[:, None] + strengths[None, :])
        strengths = wins.sum(1) / met.sum(1)
    scores = strengths.log()
    return scores - scores.mean()


def by_margin(margins):
    parts = np.array_split(margins[np.argsort(margins)], 8)
    return np.array([sigmoid(x).mean() for x in parts]), np.array([(x > 0).mean() for x in parts])


def by_size(margins):
    return np.array_split(margins[np.argsort(np.abs(margins))], 8)


def of_the_mean(margins):
    parts = by_size(margins)
    return np.array([sigmoid(np.abs(x).mean()) for x in parts]), np.array([(x > 0).mean() for x in parts])


def of_equal_width(margins):
    confidence = sigmoid(np.abs(margins))
    which = np.digitize(confidence, np.linspace(0.5, 1, 9)) - 1
    parts = [which == i for i in range(8)]
    return np.array([confidence[x].mean() for x in parts]), np.array([(margins[x] > 0).mean() for x in parts])


def stacked(margins):
    parts = by_size(margins)
    return np.stack([[sigmoid(np.abs(x)).mean() for x in parts], [(x > 0).mean() for x in parts]])


# --- notebook 05 ---


def last_tokens(response_mask):
    return response_mask & ~F.pad(response_mask[:, 1:], (0, 1))


def kl_on_the_last_token(scores, log_probs, reference, response_mask, beta):
    rewards = torch.zeros_like(log_probs)
    for row in range(len(scores)):
        inside = response_mask[row]
        kl = (log_probs[row] - reference[row])[inside].sum()
        rewards[row, inside.nonzero()[-1, 0]] = scores[row] - beta * kl
    return rewards


def penalised(scores, log_probs, reference, response_mask, beta, penalty=lambda log_ratio: log_ratio):
    return (
        -beta * penalty(log_probs - reference) * response_mask + last_tokens(response_mask) * scores[:, None]
    )


def k3(log_ratio):
    return (-log_ratio).exp() - 1 + log_ratio


def forgotten_brackets(scores, log_probs, reference, response_mask, beta):
    rewards = -beta * (log_probs - reference) * response_mask
    return rewards + scores * last_tokens(response_mask)


def ratios(log_probs, old, clip):
    ratio = (log_probs - old).exp()
    return ratio, ratio.clamp(1 - clip, 1 + clip)


def mean_over(values, response_mask):
    return (values * response_mask).sum() / response_mask.sum()


def clipped(ratio, advantages, response_mask, clip):
    objective = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -objective[response_mask].mean()


def a_on_the_left(log_probs, old, advantages, response_mask, clip):
    free, cut = ratios(log_probs, old, clip)
    return -mean_over(torch.min(free * advantages, cut), response_mask)


def a_on_the_right(log_probs, old, advantages, response_mask, clip):
    free, cut = ratios(log_probs, old, clip)
    return -mean_over(torch.min(free, cut * advantages), response_mask)


def without_a(log_probs, old, advantages, response_mask, clip):
    free, cut = ratios(log_probs, old, clip)
    return -mean_over(torch.min(free, cut), response_mask)


def clipped_around_0(log_probs, old, advantages, response_mask, clip):
    ratio = (log_probs - old).exp()
    return -mean_over(torch.min(ratio * advantages, ratio.clamp(-clip, clip) * advantages), response_mask)


def larger_and_sign_turned(log_probs, old, advantages, response_mask, clip):
    free, cut = ratios(log_probs, old, clip)
    return mean_over(torch.max(free * advantages, cut * advantages), response_mask)


def unreduced(log_probs, old, advantages, response_mask, clip):
    free, cut = ratios(log_probs, old, clip)
    return -torch.min(free * advantages, cut * advantages) * response_mask


def divided(log_probs, old, advantages, response_mask, clip):
    return clipped(log_probs / old, advantages, response_mask, clip)


def of_responses(log_probs, old, advantages, response_mask, clip):
    ratio = ((log_probs - old) * response_mask).sum(-1).exp()[:, None]
    return clipped(ratio.expand_as(advantages), advantages, response_mask, clip)


def backwards(error=None, returns=lambda advantages, values, rewards: advantages + values, masked=True):
    """GAE in a loop, with another δ = error(t, rewards, values, γ) or other returns."""

    def right(t, rewards, values, gamma):
        following = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
        return rewards[:, t] + gamma * following - values[:, t]

    def attempt(rewards, values, response_mask, gamma, lam):
        advantages, following = torch.zeros_like(values), torch.zeros(len(values))
        for t in reversed(range(values.shape[1])):
            following = (error or right)(t, rewards, values, gamma) + gamma * lam * following
            following = following * response_mask[:, t] if masked else following
            advantages[:, t] = following
        return advantages, returns(advantages, values, rewards)

    return attempt


def next_value(t, values):
    return values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros(len(values))


def aimed_at_one_step(rewards, values, response_mask, gamma, lam):
    advantages, _ = backwards()(rewards, values, response_mask, gamma, lam)
    following = torch.stack([next_value(t, values) for t in range(values.shape[1])], 1)
    return advantages, rewards + gamma * following


def of_two_columns(rewards, values, response_mask, gamma, lam):
    return rewards + gamma * values[:, 1:] - values


# --- notebook 06 ---


def z_of(w, lose, ref_w, ref_l, beta):
    return beta * (w - ref_w) - beta * (lose - ref_l)


def dpo(w, lose, ref_w, ref_l, beta, losses=None, constant=lambda x: x.detach()):
    found = losses(torch.sigmoid(z_of(w, lose, ref_w, ref_l, beta))) if losses else None
    found = -F.logsigmoid(z_of(w, lose, ref_w, ref_l, beta)) if found is None else found
    return found, constant(beta * (w - ref_w)), constant(beta * (lose - ref_l))


def cross_entropy_of(p):
    return F.binary_cross_entropy(p, torch.ones_like(p), reduction="none")


def undetached_without_beta(w, lose, ref_w, ref_l, beta):
    return dpo(w, lose, ref_w, ref_l, 1.0, constant=lambda x: x)


def dpop(fine):
    """DPO-positive with another fine, of the chosen responses' log-probabilities."""

    def attempt(w, lose, ref_w, ref_l, beta, dpop_lambda):
        h = (w - ref_w) - (lose - ref_l) - dpop_lambda * fine(w, ref_w)
        return -F.logsigmoid(beta * h), (beta * (w - ref_w)).detach(), (beta * (lose - ref_l)).detach()

    return attempt


def best_policy(reference, rewards, beta, log_z):
    z = log_z(reference + rewards / beta)
    return reference + rewards / beta - z, z


# --- notebook 07 ---


def wins(ours, theirs):
    difference = ours[:, :, None] - theirs[:, None, :]
    return (difference > 0) + (difference == 0) / 2


def without_ties(ours, theirs):
    shares = []
    for mine, other in zip(ours, theirs):
        difference = np.subtract.outer(mine, other)
        shares.append((difference > 0).sum() / (difference != 0).sum())
    return mean_with_interval(shares)


def not_beaten(costs, values, axis=1):
    no_dearer, no_worse = costs[None] <= costs[:, None], values[None] >= values[:, None]
    strictly = (costs[None] < costs[:, None]) | (values[None] > values[:, None])
    return ~(no_dearer & no_worse & strictly).any(axis)


def nothing_strict(costs, values):
    return ~((costs[None, :] <= costs[:, None]) & (values[None, :] >= values[:, None])).any(1)


def highest_up_to_its_cost(costs, values):
    return np.array([values[i] >= max(values[costs <= costs[i]]) for i in range(len(costs))])


def best_when_sorted(costs, values):
    found, best = np.zeros(len(costs), bool), -np.inf
    for i in np.argsort(costs):
        if values[i] > best:
            found[i], best = True, values[i]
    return found


def crossing_after(first):
    def attempt(target, seconds, golds):
        for k in range(first, len(golds)):
            if golds[k] >= target:
                part = (target - golds[k - 1]) / (golds[k] - golds[k - 1])
                return seconds[k - 1] + part * (seconds[k] - seconds[k - 1])
        return np.inf

    return attempt


def first_above_by_argmax(target, seconds, golds):
    k = np.argmax(golds >= target)
    part = (target - golds[k - 1]) / (golds[k] - golds[k - 1])
    return seconds[k - 1] + part * (seconds[k] - seconds[k - 1])


WRONG = [  # (exercise, answer, words)
    ("weighted_sum", lambda a: sum(WEIGHTS[n] * abs(a[n]) for n in a), "the values lost their signs"),
    ("weighted_sum", lambda a: sum(abs(WEIGHTS[n]) * a[n] for n in a), "the weights lost their signs"),
    ("weighted_sum", lambda a: sum(abs(WEIGHTS[n] * a[n]) for n in a), "the terms lost their signs"),
    ("weighted_sum", lambda a: sum(WEIGHTS[n] * a[n] for n in a) / sum(WEIGHTS.values()), "you average"),
    ("weighted_sum", lambda a: sum(WEIGHTS[n] for n in a), "you add the weights without the attributes"),
    ("weighted_sum", lambda a: max(0, sum(WEIGHTS[n] * a[n] for n in a)), "you stop at zero"),
    ("standard_error_of_difference", lambda a, b: np.std(a - b), "np.std alone is the deviation of one diff"),
    (
        "standard_error_of_difference",
        lambda a, b: np.std(abs(a - b), ddof=1) / len(a) ** 0.5,
        "the differences lost their signs",
    ),
    (
        "standard_error_of_difference",
        lambda a, b: np.sqrt((np.var(a) + np.var(b) - 2 * np.cov(a, b)[0, 1]) / len(a)),
        "np.var divides by n and np.cov by n − 1",
    ),
    (
        "standard_error_of_difference",
        lambda a, b: a.std(ddof=1) / np.sqrt(len(a)),
        "the error of one model's mean",
    ),
    (
        "standard_error_of_difference",
        lambda a, b: np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b)),
        "you treat the two as independent",
    ),
    (
        "standard_error_of_difference",
        lambda a, b: np.sqrt((np.std(a) ** 2 + np.std(b) ** 2) / len(a)),
        "you treat the two as independent",
    ),
    (
        "standard_error_of_difference",
        lambda a, b: 1.96 * np.std(a - b, ddof=1) / np.sqrt(len(a)),
        "half the width of a 95 % interval",
    ),
    ("merge", merge_ignoring_the_second, "the pair's second token is not looked at"),
    ("merge", merge_by_the_first_alone, "the pair's second token is not looked at"),
    ("merge", merge_dropping_the_last, "the last token is lost where it is in no pair"),
    ("merge", merge_keeping_the_second, "the new token stands for both"),
    ("merge", merge_keeping_the_second_without_the_last, "and the last token is lost"),
    ("merge", merge_overlapping, "two merges share a token"),
    ("merge", merge_from_the_end, "you merge from right to left"),
    ("merge", merge_by_twos, "you go on by two everywhere"),
    ("merge", merge_always_two_on, "you go on by two everywhere"),
    (
        "merge",
        lambda s, pair, new: [new if (s[i], s[i + 1]) == pair else s[i] for i in range(len(s))],
        "nothing comes after the last token: look at the slice",
    ),
    ("shifted", lambda ids: (ids, torch.roll(ids, -1, 1)), "roll brings the first token round"),
    ("shifted", lambda ids: (ids, torch.roll(ids, -1)), "roll brings the first token round"),
    ("shifted", lambda ids: (ids, ids), "nothing is shifted, and nothing cut"),
    ("shifted", lambda ids: (ids, ids[:, 1:]), "the inputs are not cut"),
    ("shifted", lambda ids: (ids[:, :-1], ids), "the targets are not cut"),
    (
        "pretraining_loss",
        lambda x, y: F.cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
        "you shift once more",
    ),
    (
        "pretraining_loss",
        lambda x, y: F.cross_entropy(x.softmax(-1).flatten(0, 1), y.flatten()),
        "softmax is taken twice",
    ),
    ("pretraining_loss", lambda x, y: F.cross_entropy(x, y), "cross_entropy wants one row of logits for"),
    (
        "pretraining_loss",
        lambda x, y: -x.log_softmax(-1).gather(-1, y[..., None]),
        "you return a loss for each token",
    ),
    (
        "pretraining_loss",
        lambda x, y: -x.log_softmax(1).gather(-1, y[..., None]).mean(),
        "log_softmax runs over the wrong axis",
    ),
    (
        "pretraining_loss",
        lambda x, y: -x.log_softmax(-1).gather(-1, y).mean(),
        "gather wants an index with as many axes",
    ),
    ("perplexity_of", lambda log_probs: 2 ** (-log_probs.mean()), "this is a power of 2"),
    ("pretraining_loss", lambda x, y: -x.log_softmax(-1).mean(), "pick the log-probability of the target"),
    (
        "pretraining_loss",
        lambda x, y: -x.softmax(-1).gather(-1, y[..., None]).log().sum(1).mean(),
        "you add up along a text",
    ),
    ("perplexity_of", lambda lp: lp.exp().mean().reciprocal(), "this averages the probabilities"),
    (
        "attention_weights",
        lambda q, k: (
            (q @ k.T / 2).masked_fill(torch.ones(len(q), len(k)).tril().bool(), -torch.inf).softmax(-1)
        ),
        "it is the other way round",
    ),
    (
        "attention_weights",
        lambda q, k: (q @ k.T / 2).masked_fill(torch.ones(len(q), len(k)).triu(1), -torch.inf).softmax(-1),
        "add .bool()",
    ),
    (
        "few_shot_prompt",
        lambda examples, prompt: "\n\n".join([*(f"{q} {a}" for q, a in examples), prompt]) + "\n",
        "stand on one line",
    ),
    ("attention_weights", lambda q, k: (q @ k.T / 4**0.5).softmax(-1), "every place sees the whole text"),
    ("attention_weights", lambda q, k: (q @ k.T / 2).softmax(-1).tril(), "the mask comes after the softmax"),
    ("attention_weights", lambda q, k: (q @ k.T / 2).tril().softmax(-1), "a score of 0 is not hidden"),
    (
        "attention_weights",
        lambda q, k: (q @ k.T / 2).masked_fill(torch.ones(5, 5).triu() == 1, -torch.inf).softmax(-1),
        "the mask hides a place from itself",
    ),
    (
        "attention_weights",
        lambda q, k: (q @ k.T).masked_fill(torch.ones(5, 5).tril() == 0, float("-inf")).softmax(-1),
        "the root is missing",
    ),
    ("attention_weights", lambda q, k: (q @ k).softmax(-1), "transpose the keys: keys.T"),
    (
        "sft_loss",
        lambda x, ids, mask: ((token_losses(x, ids) * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)).mean(),
        "each row's mean is taken first",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: (token_losses(x, ids) * mask[:, 1:]).sum(1),
        "you return a loss for each row",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: (token_losses(x, ids) * mask[:, 1:]).sum(1).mean(),
        "you add up the tokens",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: token_losses(x, ids)[mask[:, 1:]],
        "you return a loss for each token",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: F.cross_entropy(x[:, :-1][mask[:, :-1]], ids[:, 1:][mask[:, :-1]]),
        "the mask is off by one",
    ),
    ("sft_loss", shifted_twice, "the mask is shifted twice"),
    ("sft_loss", prompt_in_padding_out, "the prompt is in the loss, without the padding"),
    (
        "sft_loss",
        lambda x, ids, mask: F.cross_entropy(
            (x * mask[..., None])[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        ),
        "you multiply the logits by the mask",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: F.cross_entropy(
            (x[:, :-1] * mask[:, 1:, None]).flatten(0, 1), ids[:, 1:].flatten()
        ),
        "you multiply the logits by the mask",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: F.cross_entropy(x[:, :-1][mask], ids[:, 1:][mask]),
        "shift the mask with the ids",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: (F.cross_entropy(x[:, :-1], ids[:, 1:], reduction="none") * mask[:, 1:]).mean(),
        "pick both with the mask",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: x[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:])[mask[:, 1:]].mean(),
        "gather wants an index with as many axes",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: F.cross_entropy(x[:, 1:][mask[:, 1:]], ids[:, :-1][mask[:, 1:]]),
        "the shift goes the wrong way",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: token_losses(x, ids)[~mask[:, 1:]].mean(),
        "the mask is upside down",
    ),
    (
        "sft_loss",
        lambda x, ids, mask: token_losses(x.softmax(-1), ids)[mask[:, 1:]].mean(),
        "softmax comes before cross_entropy",
    ),
    ("kl_divergence", lambda p, q: p.exp() * (p - q), "the last axis is still there"),
    ("kl_divergence", lambda p, q: (p.exp() * (p - q)).sum(0), "the sum runs over the places"),
    ("kl_divergence", lambda p, q: (p * (p / q).log()).sum(-1), "the inputs are logarithms already"),
    (
        "turns_mask",
        lambda ids, assistant, end: (
            (ids == assistant).cumsum(0) == (ids == end).cumsum(0) - (ids == end).int()
        ),
        "it is the other way round",
    ),
    ("kl_divergence", lambda p, q: (p.exp() * (p - q)).mean(-1), "you take the mean over the vocabulary"),
    (
        "kl_divergence",
        lambda p, q: F.kl_div(q, p, reduction="sum", log_target=True),
        "a KL for each place is wanted",
    ),
    ("kl_divergence", lambda p, q: (p.exp() * (p - q)).sum(), "a KL for each place is wanted"),
    (
        "kl_divergence",
        lambda p, q: F.kl_div(p, q, reduction="sum", log_target=True),
        "F.kl_div takes log q first",
    ),
    ("sequence_log_probs", lambda model, batch: chosen(model, batch).sum(-1), "no mask is used"),
    (
        "sequence_log_probs",
        lambda model, batch: (
            chosen(model, batch, lambda x: x.log_softmax(1)) * batch.response_mask[:, 1:]
        ).sum(-1),
        "log_softmax runs over the wrong axis",
    ),
    (
        "sequence_log_probs",
        lambda model, batch: chosen(model, batch) * batch.response_mask[:, 1:],
        "you return a number for each token",
    ),
    (
        "sequence_log_probs",
        lambda model, batch: model(batch.ids)[:, :-1].log_softmax(-1).gather(-1, batch.ids[:, 1:]),
        "gather wants an index with as many axes",
    ),
    ("sequence_log_probs", token_log_probs, "you return a number for each token"),
    ("reinforce_loss", lambda lp, r, b: -(r - b.detach()) * lp, "you return a loss for each response"),
    ("reinforce_loss", lambda lp, r, b: -(r - b.detach() * lp).mean(), "r − b needs brackets"),
    ("reinforce_loss", lambda lp, r, b: -((r - b) * lp), "you return a loss for each response"),
    ("reinforce_loss", whitened, "the advantages are whitened"),
    ("reinforce_loss", whitened_rewards, "the advantages are whitened"),
    ("reinforce_loss", divided_by_the_deviation, "the advantages are whitened"),
    ("optimal_baseline", lambda p, r, s: r.mean(), "this is the plain mean of the rewards"),
    ("optimal_baseline", lambda p, r, s: (r * s).sum() / s.sum(), "the probabilities are missing: both"),
    ("optimal_baseline", lambda p, r, s: (p @ r) / (p @ s), "‖∇ log π‖² is missing in the numerator"),
    ("rloo_advantages", lambda r: r - r.mean(), "the mean runs over everything"),
    ("rloo_advantages", lambda r: (r - r.mean()) / (r.std() + 1e-8), "the mean runs over everything"),
    (
        "rloo_advantages",
        lambda r: (r - (r.sum(-1, keepdim=True) - r) / (r.shape[-1] - 1)) / r.std(-1, keepdim=True),
        "you divide by the standard deviation: leave-one-out does not",
    ),
    (
        "rloo_advantages",
        lambda r: (r - r.mean(-1, keepdim=True)) / r.std(-1, keepdim=True),
        "this is GRPO's advantage",
    ),
    (
        "rloo_advantages",
        lambda r: (r - r.mean(-1, keepdim=True)) / (r.std(-1, keepdim=True) + 1e-4),
        "this is GRPO's advantage",
    ),
    ("rloo_advantages", lambda r: r - r.mean(-1), "has lost this axis; keepdim=True"),
    (
        "rloo_advantages",
        lambda r: r - (r.sum(-1) - r) / (r.shape[-1] - 1),
        "has lost this axis; keepdim=True",
    ),
    ("rloo_advantages", lambda r: r - r.mean(0, keepdim=True), "the mean runs over the prompts"),
    ("straight_through", lambda z, y: torch.eye(z.shape[-1])[y], "the rows are one-hot and have no slope"),
    (
        "straight_through",
        lambda z, y: torch.nn.functional.gumbel_softmax(z, hard=True),
        "you draw tokens of your own",
    ),
    (
        "straight_through",
        lambda z, y: torch.eye(z.shape[-1])[y] * z.softmax(-1) / z.softmax(-1).detach(),
        "only the drawn token has a slope",
    ),
    (
        "sequence_log_probs",
        lambda model, batch: (
            model(batch.ids, batch.mask)[:, :-1].log_softmax(-1).gather(-1, batch.ids[:, 1:, None])
            * batch.response_mask[:, 1:]
        ).sum(-1),
        "gather keeps an axis of length 1",
    ),
    ("reinforce_loss", lambda lp, r, b: -(lp * r - b.detach()).mean(), "r − b needs brackets"),
    ("straight_through", lambda z, y: torch.eye(z.shape[-1])[y] + z - z.detach(), "that of the logits"),
    ("straight_through", lambda z, y: z.softmax(-1) * torch.eye(z.shape[-1])[y], "multiplied by its prob"),
    ("reward_to_go", discounted, "later rewards are discounted"),
    ("reward_to_go", lambda r: r.cumsum(-1).flip(-1), "you flip after the cumulative sum only"),
    ("reward_to_go", lambda r: r.flip(-1).cumsum(-1), "flip back after the cumulative sum"),
    ("reward_to_go", lambda r: r.flip(-1).cumsum(0), "but add up along the batch"),
    ("reward_to_go", lambda r: r.flip(-1).cumsum(0).flip(-1), "but add up along the batch"),
    (
        "bradley_terry_loss",
        lambda w, lose: -torch.log(torch.sigmoid(w - lose) + 1e-8).mean(),
        "the logarithm of σ is kept finite by force",
    ),
    (
        "bradley_terry_loss",
        lambda w, lose: -torch.log(torch.sigmoid(w - lose).clamp(min=1e-6)).mean(),
        "the logarithm of σ is kept finite by force",
    ),
    (
        "bradley_terry_loss",
        lambda w, lose: F.binary_cross_entropy(torch.sigmoid(w - lose), torch.ones(len(w))),
        "the logarithm of σ is kept finite by force",
    ),
    ("bradley_terry_loss", lambda w, lose: (1 - (w - lose)).clamp(min=0).mean(), "the hinge loss"),
    ("bradley_terry_loss", lambda w, lose: (1 - torch.sigmoid(w - lose)).mean(), "this is 1 − σ"),
    (
        "bradley_terry_loss",
        lambda w, lose: -torch.log(torch.sigmoid(w - lose).mean()),
        "this is the logarithm of the mean",
    ),
    (
        "bradley_terry_loss",
        lambda w, lose: -F.logsigmoid((w - lose).mean()),
        "the mean of the differences before σ",
    ),
    ("bradley_terry_scores", lambda w: w.sum(1) / (w + w.T).sum(1), "the share of comparisons that each"),
    (
        "bradley_terry_scores",
        lambda w: torch.log(w.sum(1) / w.sum(0)) - torch.log(w.sum(1) / w.sum(0)).mean(),
        "the log-odds of the share that each has won",
    ),
    (
        "bradley_terry_scores",
        lambda w: torch.log((w + 1e-9) / (w.T + 1e-9)).mean(1),
        "the mean log-odds of an item's pairs",
    ),
    ("bradley_terry_scores", lambda w: w.sum(1) - w.sum(0), "these are wins minus losses"),
    ("bradley_terry_scores", lambda w: zermelo(w.T), "the table is read the other way round"),
    ("bradley_terry_scores", lambda w: zermelo(w).exp(), "these are strengths s = e^r"),
    ("bradley_terry_scores", lambda w: zermelo(w) - zermelo(w)[0], "right but for a shift"),
    ("bradley_terry_scores", lambda w: zermelo(w, rounds=1), "this is the first round only"),
    ("bradley_terry_scores", lambda w: zermelo(w, rounds=5), "it has not converged"),
    ("last_states", lambda s, m: s[m][-1], "the last state of all, of one row"),
    (
        "last_states",
        lambda s, m: s[torch.arange(len(s)), m.flip(1).int().argmax(1)],
        "argmax over the reversed mask counts from the right",
    ),
    (
        "last_states",
        lambda s, m: torch.stack([s[i, m[i].nonzero()[-1, 0] - 1] for i in range(len(s))]),
        "the token before the last one",
    ),
    ("reliability", by_margin, "sort by |margin|, and take σ(|margin|)"),
    ("reliability", of_the_mean, "you take σ of the mean |margin|"),
    ("reliability", of_equal_width, "the bins are equally wide"),
    ("kl_penalized_rewards", kl_on_the_last_token, "the whole KL is on the last token"),
    (
        "kl_penalized_rewards",
        lambda scores, lp, ref, mask, beta: scores - beta * ((lp - ref) * mask).sum(-1),
        "you return one number for each response",
    ),
    ("kl_penalized_rewards", lambda *a: penalised(*a, penalty=k3), "the penalty is k3 or k2"),
    ("kl_penalized_rewards", lambda s, *a: penalised(a[-1] * s, *a), "β multiplies the score, too"),
    (
        "kl_penalized_rewards",
        lambda scores, lp, ref, mask, beta: scores[:, None] - beta * (lp - ref) * mask,
        "the score is on every token",
    ),
    ("kl_penalized_rewards", forgotten_brackets, "write scores[:, None]"),
    ("kl_k3", lambda lr: lr.exp() - 1 + lr, "the sign in the exponent is wrong"),
    ("kl_k3", lambda lr: (-lr).exp() - 1 - lr, "the sign of the last term is wrong"),
    ("kl_k3", lambda lr: k3(lr).sum(), "the samples are added up"),
    ("kl_k3", lambda lr: lr**2, "that is k2"),
    ("clipped_policy_loss", divided, "you divide one log-probability by the other"),
    ("clipped_policy_loss", a_on_the_left, "only one of the two is multiplied by A"),
    ("clipped_policy_loss", a_on_the_right, "only one of the two is multiplied by A"),
    ("clipped_policy_loss", without_a, "the advantage is not used"),
    ("clipped_policy_loss", clipped_around_0, "the ratio is clipped to ±ε"),
    ("clipped_policy_loss", of_responses, "one ratio for each response"),
    ("clipped_policy_loss", larger_and_sign_turned, "and you take the larger of the two"),
    ("clipped_policy_loss", unreduced, "you return a loss for each token"),
    (
        "gae",
        backwards(returns=lambda a, v, r: r.flip(-1).cumsum(-1).flip(-1)),
        "the second result is the rewards",
    ),
    ("gae", backwards(returns=lambda a, v, r: discounted(r, 1.0)), "the second result is the rewards"),
    (
        "gae",
        lambda r, v, *a: (discounted(r, 1.0) - v, discounted(r, 1.0)),
        "γ and λ are both missing",
    ),
    ("gae", aimed_at_one_step, "the second result is r_t + γ V_{t+1}"),
    ("gae", backwards(returns=lambda a, v, r: a - v), "the returns are advantages *plus* values"),
    ("gae", backwards(lambda t, r, v, gamma: r[:, t] - v[:, t]), "V_{t+1} is missing in δ"),
    (
        "gae",
        backwards(lambda t, r, v, gamma: r[:, t] + gamma * v.roll(-1, 1)[:, t] - v[:, t]),
        "roll brings the first column round",
    ),
    (
        "gae",
        backwards(lambda t, r, v, gamma: r[:, t] + gamma * v.roll(-1)[:, t] - v[:, t]),
        "roll brings the first column round",
    ),
    (
        "gae",
        backwards(lambda t, r, v, gamma: r[:, t] + gamma * next_value(t, v) + v[:, t]),
        "a sign in δ is wrong",
    ),
    (
        "gae",
        backwards(lambda t, r, v, gamma: r[:, t] - gamma * next_value(t, v) + v[:, t]),
        "a sign in δ is wrong",
    ),
    ("gae", backwards(masked=False), "advantages leak out of the responses"),
    (
        "gae",
        backwards(lambda t, r, v, gamma: r[:, t] + gamma * v[:, t + 1] - v[:, t]),
        "there is no column t + 1 after the last one",
    ),
    ("gae", of_two_columns, "values[:, 1:] is a column short"),
    (
        "optimal_policy",
        lambda *a: best_policy(*a, log_z=lambda x: x.logsumexp((0, 1))),
        "Z sums over everything",
    ),
    (
        "optimal_policy",
        lambda ref, r, beta: (
            ref + r / beta - (r / beta).logsumexp(-1, keepdim=True),
            (r / beta).logsumexp(-1),
        ),
        "log Z is of the rewards alone",
    ),
    ("optimal_policy", lambda *a: best_policy(*a, log_z=lambda x: x.logsumexp(-1)), "write log_z[:, None]"),
    ("implicit_reward", lambda lp, ref, beta: beta * (lp + ref), "the log-probabilities are added"),
    ("implicit_reward", lambda lp, ref, beta: beta * torch.log(lp / ref), "the logarithm of log π / log π"),
    ("dpo_loss", lambda *a: dpo(*a, constant=lambda x: x), "the implicit rewards are not constants"),
    ("dpo_loss", lambda *a: dpo(*a, losses=cross_entropy_of), "the logarithm of σ is kept finite by force"),
    (
        "dpo_loss",
        lambda *a: dpo(*a, losses=lambda p: -torch.log(p + 1e-8)),
        "the logarithm of σ is kept finite by force",
    ),
    ("dpo_loss", undetached_without_beta, "β is missing"),
    ("dpop_loss", dpop(lambda w, ref_w: torch.clamp(w - ref_w, min=0)), "the penalty is the wrong way round"),
    ("dpop_loss", dpop(lambda w, ref_w: (ref_w - w).abs()), "the penalty counts what is gained, too"),
    ("dpop_loss", dpop(lambda w, ref_w: F.relu(ref_w - w).detach()), "the penalty has no gradient"),
    ("dpop_loss", dpop(lambda w, ref_w: F.relu(ref_w - w).mean()), "the penalty is one for all pairs"),
    ("win_rate", without_ties, "ties are left out"),
    ("win_rate", lambda *a: wins(*a).mean(), "this is the share alone"),
    ("win_rate", lambda *a: mean_with_interval(wins(*a).mean((0, 1))), "the mean runs over the prompts"),
    ("win_rate", lambda *a: mean_with_interval(wins(*a).mean(0).ravel()), "the mean runs over the prompts"),
    ("win_rate", lambda *a: mean_with_interval(wins(*a).mean(0)), "takes one number for each prompt"),
    (
        "win_rate",
        lambda ours, theirs: mean_with_interval((ours[:, :, None] > theirs[:, None]).ravel()),
        "a tie counts as a loss, and the interval",
    ),
    (
        "win_rate",
        lambda ours, theirs: mean_with_interval(ours.mean(-1) > theirs.mean(-1)),
        "you compare the means of the responses",
    ),
    ("frontier", nothing_strict, "no inequality is strict, so every point beats itself"),
    ("frontier", lambda *a: ~nothing_strict(*a), "no inequality is strict, so every point beats itself"),
    ("frontier", lambda costs, values: not_beaten(costs, values, axis=0), "rows and columns are exchanged"),
    ("frontier", highest_up_to_its_cost, "a point of the same value at a lower cost beats, too"),
    ("frontier", lambda *a: np.flatnonzero(not_beaten(*a)), "these are the places of the points"),
    (
        "one_standard_error_rule",
        lambda means, errors, order: int(np.argmax(means)),
        "this is the best one: the rule takes the simplest",
    ),
    (
        "one_standard_error_rule",
        lambda means, errors, order: np.argmin(order[means > means.max() - errors[means.argmax()]]),
        "that is the place among those that tie",
    ),
    (
        "one_standard_error_rule",
        lambda means, errors, order: sorted(
            (i for i in range(len(means)) if means[i] + errors[i] >= means.max()), key=lambda i: order[i]
        )[0],
        "each setting's own standard error",
    ),
    (
        "one_standard_error_rule",
        lambda means, errors, order: np.where(means >= (means - errors)[means.argmax()], order, 1e9).argmin(),
        "of two that have gone equally far",
    ),
    (
        "best_and_worst",
        lambda scores, n: torch.stack(
            [scores.view(-1, n).max(1).indices, scores.view(-1, n).min(1).indices]
        ).unbind(),
        "these are places among the samples of a prompt",
    ),
    (
        "best_and_worst",
        lambda scores, n: scores.view(-1, n).sort(1).values[:, [-1, 0]].T.unbind(),
        "these are the scores themselves",
    ),
    (
        "best_and_worst",
        lambda scores, n: torch.arange(len(scores)) * n + scores.view(-1, n).max(1).indices,
        "there is one first row for each prompt",
    ),
    (
        "win_rate",
        lambda ours, theirs: mean_with_interval(np.sign(ours[:, :, None] - theirs[:, None]).mean((1, 2))),
        "a loss counts −1",
    ),
    ("frontier", best_when_sorted, "of points with the same cost the one that comes first is kept"),
    ("seconds_to", crossing_after(0), "where the first point meets the target there is none before it"),
    ("seconds_to", crossing_after(1), "where the first point meets the target there is none before it"),
    ("seconds_to", first_above_by_argmax, "two cases are left"),
    (
        "seconds_to",
        lambda target, seconds, golds: seconds[np.argmax(golds >= target)],
        "where the target is never met, argmax of nothing but False is 0",
    ),
    (
        "seconds_to",
        lambda target, seconds, golds: np.interp(target, golds, seconds, right=np.inf),
        "np.interp wants golds that only rise",
    ),
    (
        "seconds_to",
        lambda target, seconds, golds: min(
            (s for s, gold in zip(seconds, golds) if gold >= target), default=float("inf")
        ),
        "this is the first point that was measured above the target",
    ),
]
