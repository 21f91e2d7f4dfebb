"""Direct preference optimization: learn from comparisons without a reward model and without sampling.

The policy that maximises E[r] − β KL(π‖π_ref) is π*(y|x) = π_ref(y|x) exp(r(x, y)/β) / Z(x). Read backwards,
every policy is the best one for a reward, r(x, y) = β log(π_θ(y|x) / π_ref(y|x)) + β log Z(x), and
comparisons of responses to one prompt do not see Z. So the likelihood of the comparisons is a loss for the
policy itself. (Rafailov et al. 2023.)
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F

from minialign.config import Count, Natural, NonNegative, Positive, at_least
from minialign.gpt import GPT, network_of
from minialign.labels import Labels, as_labels
from minialign.logprobs import sequence_log_probs
from minialign.preferences import Comparisons, Preference, as_preferences, batches_of_comparisons
from minialign.rollouts import Reward, Rollout, as_prompts, roll_out, unscored
from minialign.training import History, Optimizer, TrainingConfig, epochs, repeat, require_apart


@dataclass(frozen=True)
class DPOConfig(TrainingConfig):
    steps: Count = 60
    learning_rate: Positive = 3e-4
    warmup: Natural = 10
    weight_decay: NonNegative = 0.0
    prompts_per_step: Count = 8  # all pairs of a prompt go into one batch
    beta: Positive = 0.1  # reward that one nat of KL to the reference costs; at 0, pairs teach nothing
    sft_coef: NonNegative = 0.0  # of the SFT term on y_w that `rpo_loss` adds, to whatever loss is used


def implicit_reward(policy_logps, reference_logps, beta: float) -> torch.Tensor:
    """r̂_θ(x, y) = β log(π_θ(y|x) / π_ref(y|x)), up to a constant for each prompt; any shape.

    Source: Rafailov et al. 2023, §4 (after Eq. 7).
    """
    return beta * (policy_logps - reference_logps)


def dpo_loss(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """−log σ(r̂_w − r̂_l) of each pair, and the implicit rewards r̂_w and r̂_l, constants; all (M,).

    The arguments are log-probabilities of whole responses, log π(y|x) in nats, (M,) each: sums over tokens,
    not means. ln 2 is knowing nothing. Source: Rafailov et al. 2023, Eq. 7.
    """
    chosen_rewards = implicit_reward(policy_chosen_logps, reference_chosen_logps, beta)
    rejected_rewards = implicit_reward(policy_rejected_logps, reference_rejected_logps, beta)
    losses = -F.logsigmoid(chosen_rewards - rejected_rewards)
    return losses, chosen_rewards.detach(), rejected_rewards.detach()


def gradient_weight(chosen_rewards, rejected_rewards, beta: float) -> torch.Tensor:
    """β σ(r̂_l − r̂_w), (M,): how strongly a pair pulls. ∇L = −weight · (∇ log π(y_w|x) − ∇ log π(y_l|x)).

    Source: Rafailov et al. 2023, §4, "What does the DPO update do?"
    """
    return beta * torch.sigmoid(rejected_rewards - chosen_rewards)


def conservative_dpo_loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta: float,
    label_smoothing: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `dpo_loss`, for labels that are wrong with probability ε = label_smoothing.

    The loss is −(1 − ε) log σ(z) − ε log σ(−z) with z = r̂_w − r̂_l. Source: Mitchell 2023, "A note on DPO
    with noisy preferences" (cDPO). Raises ValueError for ε outside [0, ½).
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}: the share of wrong labels lies between 0 and 0.5"
        )
    logps = policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    right, chosen_rewards, rejected_rewards = dpo_loss(*logps, beta)
    wrong, _, _ = dpo_loss(*logps, -beta)
    return (1 - label_smoothing) * right + label_smoothing * wrong, chosen_rewards, rejected_rewards


def ipo_loss(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `dpo_loss`, with (h − 1/(2β))² in place of −log σ(βh): h has a goal it can reach.

    h is the difference of the log-ratios, β the paper's τ, and the log-probabilities are sums, as there.
    Source: Azar et al. 2023, Eq. 17.
    """
    h = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    chosen_rewards = implicit_reward(policy_chosen_logps, reference_chosen_logps, beta)
    rejected_rewards = implicit_reward(policy_rejected_logps, reference_rejected_logps, beta)
    return (h - 1 / (2 * beta)) ** 2, chosen_rewards.detach(), rejected_rewards.detach()


# --- two cures of displacement, where y_w becomes less likely as long as y_l does so faster ---


def rpo_loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta: float,
    chosen_lengths,
    sft_coef: float = 1.0,
    loss: Callable = dpo_loss,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `loss`, plus an SFT term, sft_coef · (−log π_θ(y_w|x) / |y_w|), in nats a token.

    chosen_lengths (M,) are the tokens |y_w|, the end included. Source: Pang et al. 2024, Eq. 1 (iterative
    RPO; their α); Liu et al. 2024, "Your SFT loss is implicitly an adversarial regularizer".
    """
    losses, chosen_rewards, rejected_rewards = loss(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta
    )
    return losses - sft_coef * policy_chosen_logps / chosen_lengths, chosen_rewards, rejected_rewards


def dpop_loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta: float,
    dpop_lambda: float = 50.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `dpo_loss`, with a penalty of λ = dpop_lambda for each nat that y_w lost against the reference.

    DPO-positive: −log σ(β (h − λ max(0, log π_ref(y_w|x) − log π_θ(y_w|x)))), h the difference of the
    log-ratios. Source: Pal et al. 2024, Eq. 3. Raises ValueError for a negative λ.
    """
    if dpop_lambda < 0:
        raise ValueError(f"dpop_lambda is {dpop_lambda}: it must be at least 0, which is DPO")
    shortfall = F.relu(reference_chosen_logps - policy_chosen_logps)
    losses, _, rejected_rewards = dpo_loss(
        policy_chosen_logps - dpop_lambda * shortfall,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
    )
    chosen_rewards = implicit_reward(policy_chosen_logps, reference_chosen_logps, beta)
    return losses, chosen_rewards.detach(), rejected_rewards


# --- training ---


@torch.no_grad()
def reference_log_probs(reference: GPT, pairs: Sequence[Preference]) -> dict[tuple[str, str], float]:
    """log π_ref(y|x) of every different response in the pairs, by (prompt, response).

    The reference does not change, so once is enough.
    """
    texts = list(dict.fromkeys((pair.prompt, y) for pair in pairs for y in (pair.chosen, pair.rejected)))
    batch = reference.chat.collate(texts, reference.config.context).to(reference.device)
    return dict(zip(texts, batch.by_parts(partial(sequence_log_probs, reference)).tolist()))


def preference_loss(
    logps: torch.Tensor,
    reference_logps: torch.Tensor,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    beta: float,
    loss: Callable = dpo_loss,
    sft_coef: float = 0.0,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict]:
    """The mean loss of M pairs, a scalar, and its metrics under TRL's names.

    logps, reference_logps (R,) are of all responses, chosen and rejected together; chosen, rejected (M,) say
    which of them make a pair. Twice the same is a pair without a label: it counts, and has no gradient. The
    SFT term needs the lengths (R,) in tokens.
    """
    nll = {}
    if sft_coef:
        loss = partial(rpo_loss, chosen_lengths=lengths[chosen], sft_coef=sft_coef, loss=loss)
        nll = {"nll_loss": -(logps / lengths)[chosen].detach().mean()}  # nats a token
    losses, chosen_rewards, rejected_rewards = loss(
        logps[chosen], logps[rejected], reference_logps[chosen], reference_logps[rejected], beta
    )
    losses = torch.where(chosen == rejected, losses.detach(), losses)
    margins, logps = chosen_rewards - rejected_rewards, logps.detach()
    return losses.mean(), {
        "rewards/chosen": chosen_rewards.mean(),
        "rewards/rejected": rejected_rewards.mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).float().mean(),
        "logps/chosen": logps[chosen].mean(),
        "logps/rejected": logps[rejected].mean(),
        **nll,
    }


def train(
    policy: GPT,
    pairs: Sequence[Preference],
    config: DPOConfig = DPOConfig(),
    *,
    loss: Callable = dpo_loss,
    reference: GPT | None = None,
    **options,
) -> History:
    """Fit `policy`, in place, to the comparisons; returns the history.

    `loss` takes the arguments of `dpo_loss`; what else it takes is bound beforehand, as in
    `partial(dpop_loss, dpop_lambda=5)`. Left out, the reference is the policy as it is now. `options` go
    to `training.repeat`.
    """
    policy, pairs = network_of(policy), as_preferences(pairs)
    if reference is not None:
        reference = network_of(reference).eval()
        require_apart(policy, reference=reference)
    policy.eval()  # no dropout, in neither
    comparisons_at = batches_of_comparisons(pairs, config.prompts_per_step, config.seed, policy)
    cached = reference_log_probs(policy if reference is None else reference, pairs)
    optimizer = Optimizer(policy, config)

    def loss_fn(seen: Comparisons):
        logps = seen.batch.by_parts(partial(sequence_log_probs, policy))  # of chosen and rejected alike
        reference_logps = logps.new_tensor([cached[text] for text in seen.texts])
        pairs, lengths = (seen.chosen, seen.rejected), seen.batch.response_mask.sum(-1)
        return preference_loss(logps, reference_logps, *pairs, config.beta, loss, config.sft_coef, lengths)

    def update(step: int) -> dict:
        return optimizer.update([comparisons_at(step).to(policy.device)], loss_fn)

    return repeat(update, config.steps, History(), title="DPO", **options)


@dataclass(frozen=True)
class OnlineDPOConfig(DPOConfig):
    steps: Count = 40
    warmup: Natural = 5
    prompts_per_step: Count = 32
    samples_per_prompt: Annotated[int, at_least(2, "a comparison needs at least 2")] = 2
    max_new_tokens: Count = 96
    missing_end_penalty: NonNegative = 1.0  # taken from the score of a response that was cut off


def train_online(
    policy: GPT,
    prompts: Sequence[str],
    labels: Labels | Reward,
    config: OnlineDPOConfig = OnlineDPOConfig(),
    *,
    loss: Callable = dpo_loss,
    reference: GPT | None = None,
    **options,
) -> History:
    """DPO on comparisons of the policy's own samples: sample, have pairs labelled, learn.

    `labels` is made by one of `minialign.labels`; a reward, `reward(prompts, responses)`, prefers the best
    sample to the worst. The same loss as `train`, on responses of today's policy in place of yesterday's.
    Source: Guo et al. 2024, Algorithm 1.
    """
    policy, labels = network_of(policy), as_labels(labels)
    reference = copy.deepcopy(policy) if reference is None else network_of(reference)
    require_apart(policy, reference=reference, reward=labels.reward)
    torch.nn.ModuleList([policy, reference]).eval()  # no dropout
    optimizer = Optimizer(policy, config)
    prompts = as_prompts(prompts)
    prompts_at = epochs([1] * len(prompts), config.prompts_per_step, config.seed)
    sampling = dict(n=config.samples_per_prompt, max_new_tokens=config.max_new_tokens)

    def update(step: int) -> dict:
        asked = [prompts[i] for i in prompts_at(step)]
        rollout = roll_out(policy, asked, labels.reward, seed=(config.seed, step), **sampling)
        scores = rollout.rewards - config.missing_end_penalty * ~rollout.finished
        chosen, rejected = labels(rollout, scores)
        with torch.no_grad():
            reference_logps = rollout.batch.by_parts(partial(sequence_log_probs, reference))

        def loss_fn(rollout: Rollout):
            logps = rollout.batch.by_parts(partial(sequence_log_probs, policy))
            pairs, lengths = (chosen, rejected), rollout.batch.response_mask.sum(-1)
            return preference_loss(
                logps, reference_logps, *pairs, config.beta, loss, config.sft_coef, lengths
            )

        metrics = {"objective/kl": float((rollout.log_probs.sum(-1) - reference_logps).mean())}
        metrics |= {"labels": labels.given, "ties": float((chosen == rejected).float().mean())}
        return rollout.metrics() | metrics | optimizer.update([rollout], loss_fn)

    show = "loss" if labels.reward is unscored else "objective/scores"
    return repeat(update, config.steps, History(), title="online DPO", show=show, **options)
