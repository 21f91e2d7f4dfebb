"""The exercises of notebook 06."""

import torch
from torch.nn.functional import logsigmoid, relu

from minialign.course.exercises.exercise import Exercise, Mistake, logs_kept_finite
from minialign.course.exercises.puzzle import Puzzle
from minialign.dpo import dpo_loss, dpop_loss, gradient_weight, implicit_reward
from minialign.world.exact import optimal_policy


def _world(generator):
    """log π_ref and rewards of three prompts with five responses each, and β."""
    logits, rewards = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1), 2 * rewards, float(torch.rand(1, generator=generator)) + 0.2


def _log_probs(generator):
    policy, reference = -20 + 3 * torch.randn(2, 6, generator=generator)
    return policy.requires_grad_(), reference, float(torch.rand(1, generator=generator)) / 2 + 0.1


def _pairs(generator):
    """Log-probabilities of six pairs; one of them is a gross error, whose probability is 0 in float32."""
    chosen, rejected, reference_chosen, reference_rejected = -20 + 3 * torch.randn(4, 6, generator=generator)
    chosen[0] = rejected[0] - 4000
    beta = 0.1 + float(torch.rand(1, generator=generator)) / 3
    return chosen.requires_grad_(), rejected.requires_grad_(), reference_chosen, reference_rejected, beta


def _pairs_and_lambda(generator):
    return *_pairs(generator), 2.0 + 8 * float(torch.rand(1, generator=generator))


def _implicit_rewards(generator):
    chosen, rejected = 2 * torch.randn(2, 6, generator=generator)
    return chosen, rejected, 0.1 + float(torch.rand(1, generator=generator)) / 2


def _tilted(reference, rewards, beta):
    tilted = reference + rewards / beta
    log_z = tilted.logsumexp(-1)
    return tilted, log_z


def _with_log(log):
    """dpo_loss with another logarithm of σ."""

    def changed(w, lose, ref_w, ref_l, beta):
        p = torch.sigmoid(implicit_reward(w, ref_w, beta) - implicit_reward(lose, ref_l, beta))
        return -log(p), *dpo_loss(w, lose, ref_w, ref_l, beta)[1:]

    return changed


def _with_gradients(w, lose, ref_w, ref_l, beta):
    losses, _, _ = dpo_loss(w, lose, ref_w, ref_l, beta)
    return losses, implicit_reward(w, ref_w, beta), implicit_reward(lose, ref_l, beta)


def _normalised_by(log_z):
    """optimal_policy with another log Z: a number for each prompt, or one for all."""

    def changed(reference, rewards, beta):
        z = log_z(reference, rewards, beta)
        return reference + rewards / beta - z.reshape(-1, 1), z

    return changed


def _each_by_itself(w, lose, ref_w, ref_l, beta):
    chosen, rejected = implicit_reward(w, ref_w, beta), implicit_reward(lose, ref_l, beta)
    return logsigmoid(rejected) - logsigmoid(chosen), chosen.detach(), rejected.detach()


def _log_ratios_added(w, lose, ref_w, ref_l, beta):
    chosen, rejected = implicit_reward(w, ref_w, beta), implicit_reward(lose, ref_l, beta)
    return -logsigmoid(chosen + rejected), chosen.detach(), rejected.detach()


def _loss_changed(change):
    """dpo_loss with its losses changed."""

    def changed(*arguments):
        losses, chosen_rewards, rejected_rewards = dpo_loss(*arguments)
        return change(losses), chosen_rewards, rejected_rewards

    return changed


def _rewards_without_beta(*arguments):
    losses, chosen_rewards, rejected_rewards = dpo_loss(*arguments)
    return losses, chosen_rewards / arguments[-1], rejected_rewards / arguments[-1]


def _with_h(h):
    """dpop_loss with another h, of the policy's and the reference's log-probabilities, β and λ."""

    def changed(w, lose, ref_w, ref_l, beta, dpop_lambda):
        found = -logsigmoid(beta * h(w, lose, ref_w, ref_l, beta, dpop_lambda))
        return found, *dpo_loss(w, lose, ref_w, ref_l, beta)[1:]

    return changed


def _penalty_in_the_rewards(w, lose, ref_w, ref_l, beta, dpop_lambda):
    return dpo_loss(w - dpop_lambda * relu(ref_w - w), lose, ref_w, ref_l, beta)


def _rewards_with_gradients(w, lose, ref_w, ref_l, beta, dpop_lambda):
    losses, _, _ = dpop_loss(w, lose, ref_w, ref_l, beta, dpop_lambda)
    return losses, implicit_reward(w, ref_w, beta), implicit_reward(lose, ref_l, beta)


def _penalty_outside(scale):
    """The penalty joins the loss, times `scale(β, λ)`, where it should join h."""

    def changed(w, lose, ref_w, ref_l, beta, dpop_lambda):
        losses, chosen_rewards, rejected_rewards = dpo_loss(w, lose, ref_w, ref_l, beta)
        return losses + scale(beta, dpop_lambda) * relu(ref_w - w), chosen_rewards, rejected_rewards

    return changed


DIRECT_PREFERENCE = {
    "optimal_policy": Exercise(
        optimal_policy,
        _world,
        (
            Mistake(
                "β is missing: the reward is divided by β.", lambda ref, r, beta: optimal_policy(ref, r, 1.0)
            ),
            Mistake(
                "the reward is multiplied by β: divide it. "
                "An expensive KL (a large β) must keep the policy near the reference.",
                lambda ref, r, beta: optimal_policy(ref, r, 1 / beta),
            ),
            Mistake("β is squared.", lambda ref, r, beta: optimal_policy(ref, r, beta**2)),
            Mistake(
                "the reference is missing: π* is the *reference*, tilted by exp(r/β).",
                lambda ref, r, beta: optimal_policy(torch.zeros_like(ref), r, beta),
            ),
            Mistake(
                "the reference is tilted the wrong way: a higher reward must make a response more probable.",
                lambda ref, r, beta: optimal_policy(ref, -r, beta),
            ),
            Mistake("the policy is not normalised: subtract log Z(x).", _tilted),
            Mistake(
                "Z sums over everything: each prompt has its own, so sum over the last axis only.",
                _normalised_by(lambda ref, r, beta: (ref + r / beta).flatten().logsumexp(0)),
                _normalised_by(lambda ref, r, beta: (ref + r / beta).flatten().logsumexp(0).expand(len(r))),
            ),
            Mistake(
                "log Z is of the rewards alone: Z is the sum of π_ref exp(r/β), so add log π_ref first.",
                _normalised_by(lambda ref, r, beta: (r / beta).logsumexp(-1)),
            ),
            Mistake(
                "Z sums over the prompts: it belongs to one prompt, "
                "so sum over its responses, the last axis.",
                lambda ref, r, beta: ((ref + r / beta).log_softmax(0), (ref + r / beta).logsumexp(0)),
            ),
            Mistake(
                "these are probabilities: return their logarithms.",
                lambda ref, r, beta: (optimal_policy(ref, r, beta)[0].exp(), optimal_policy(ref, r, beta)[1]),
            ),
            Mistake(
                "the second result is Z: return log Z, or it overflows where r/β is large.",
                lambda ref, r, beta: (optimal_policy(ref, r, beta)[0], optimal_policy(ref, r, beta)[1].exp()),
            ),
            Mistake(
                "log π_ref was multiplied by exp(r/β): it is a logarithm already, so add r/β.",
                lambda ref, r, beta: (ref * (r / beta).exp(), (ref * (r / beta).exp()).sum(-1)),
            ),
            Mistake(
                "Z was subtracted where log Z is meant.",
                _normalised_by(lambda ref, r, beta: (ref + r / beta).logsumexp(-1).exp()),
            ),
            Mistake(
                "the reference's probabilities were added where their logarithms are meant.",
                lambda ref, r, beta: optimal_policy(ref.exp(), r, beta),
            ),
        ),
        errors=(
            Mistake(
                "log Z is (P,) and the policy (P, N): write log_z[:, None] where you subtract it, "
                "or keepdim=True in the sum.",
                lambda ref, r, beta: ref - r.sum(-1),
            ),
        ),
    ),
    "implicit_reward": Exercise(
        implicit_reward,
        _log_probs,
        (
            Mistake(
                "β is missing: the reward is β times the log-ratio.",
                lambda lp, ref, beta: implicit_reward(lp, ref, 1.0),
            ),
            Mistake("β is squared.", lambda lp, ref, beta: implicit_reward(lp, ref, beta**2)),
            Mistake(
                "you divide by β: solving log π* = log π_ref + r/β − log Z for r multiplies by it.",
                lambda lp, ref, beta: implicit_reward(lp, ref, 1 / beta),
            ),
            Mistake(
                "the reference is missing: what counts is how much "
                "more probable than under the reference a response is.",
                lambda lp, ref, beta: beta * lp,
            ),
            Mistake(
                "the log-ratio is upside down: what the policy likes "
                "more than the reference does has the higher reward.",
                lambda lp, ref, beta: implicit_reward(ref, lp, beta),
            ),
            Mistake(
                "that is the ratio of the probabilities: "
                "take its logarithm, the difference of the log-probabilities.",
                lambda lp, ref, beta: beta * (lp - ref).exp(),
            ),
            Mistake(
                "you divide one log-probability by the other: the logarithm of a ratio is a difference.",
                lambda lp, ref, beta: beta * lp / ref,
            ),
            Mistake(
                "that is the logarithm of log π / log π_ref: these are logarithms already, "
                "and that of a ratio is their difference.",
                lambda lp, ref, beta: beta * torch.log(lp / ref),
            ),
            Mistake(
                "the log-probabilities are added: the logarithm of a ratio is their difference.",
                lambda lp, ref, beta: implicit_reward(lp, -ref, beta),
            ),
            Mistake(
                "no gradient flows into the policy: nothing could be learned.",
                lambda lp, ref, beta: implicit_reward(lp, ref, beta).detach(),
            ),
        ),
    ),
    "dpo_loss": Exercise(
        dpo_loss,
        _pairs,
        (
            Mistake(
                "chosen and rejected are swapped: "
                "the loss must fall when the *chosen* response becomes more probable.",
                lambda w, lose, ref_w, ref_l, beta: dpo_loss(lose, w, ref_l, ref_w, beta),
            ),
            Mistake("β is missing.", lambda *a: dpo_loss(*a[:-1], 1.0)),
            Mistake(
                "β is squared: it is in the implicit rewards already.",
                lambda *a: dpo_loss(*a[:-1], a[-1] ** 2),
            ),
            Mistake(
                "the reference is missing: subtract its log-probabilities, "
                "or a response is rewarded for having been probable before.",
                lambda w, lose, ref_w, ref_l, beta: dpo_loss(w, lose, 0 * ref_w, 0 * ref_l, beta),
            ),
            Mistake(
                "the two reference log-probabilities are swapped.",
                lambda w, lose, ref_w, ref_l, beta: dpo_loss(w, lose, ref_l, ref_w, beta),
            ),
            Mistake(
                "policy and reference are swapped: "
                "the gradient would make the chosen response less probable.",
                lambda w, lose, ref_w, ref_l, beta: dpo_loss(ref_w, ref_l, w, lose, beta),
            ),
            Mistake(
                "the sign of the loss is wrong: "
                "an optimizer makes it small, so it is *minus* the log-likelihood.",
                _loss_changed(lambda x: -x),
            ),
            Mistake(
                "the mean is taken: return one loss for each pair, the training loop takes the mean.",
                _loss_changed(lambda x: x.mean()),
            ),
            Mistake("the logarithm is missing: −log σ, not −σ.", _loss_changed(lambda x: -(-x).exp())),
            Mistake(
                "the logarithm of σ is infinite where σ underflows to 0, "
                "as in one of these pairs: use logsigmoid.",
                _with_log(torch.log),
            ),
            Mistake(
                "the logarithm of σ is kept finite by force (binary_cross_entropy cuts it off at −100): then "
                "the pair that is most wrong has a wrong loss and teaches nothing. Use logsigmoid.",
                *map(_with_log, logs_kept_finite()),
            ),
            Mistake(
                "the losses are right, the implicit rewards are not constants: detach them, "
                "they are only to be watched.",
                _with_gradients,
            ),
            Mistake(
                "σ has to be taken of the difference of the rewards, not of each reward by itself.",
                _each_by_itself,
            ),
            Mistake("the losses are right; the rewards lack β.", _rewards_without_beta),
            Mistake(
                "the losses are right; the two rewards are in the wrong order: chosen first.",
                lambda *a: tuple(dpo_loss(*a)[i] for i in (0, 2, 1)),
            ),
            Mistake(
                "the log-ratios are added: it is their *difference* that a comparison sees.",
                _log_ratios_added,
            ),
        ),
    ),
    "gradient_weight": Exercise(
        gradient_weight,
        _implicit_rewards,
        (
            Mistake(
                "the difference is the wrong way round: "
                "a pair pulls where the model is *wrong*, so it is σ(r̂_l − r̂_w).",
                lambda w, lose, beta: gradient_weight(lose, w, beta),
            ),
            Mistake(
                "β is missing: it comes down from the exponent by the chain rule.",
                lambda w, lose, beta: torch.sigmoid(lose - w),
            ),
            Mistake("β is squared.", lambda w, lose, beta: beta * gradient_weight(w, lose, beta)),
            Mistake(
                "β is inside σ as well: the implicit rewards have it already.",
                lambda w, lose, beta: beta * torch.sigmoid(beta * (lose - w)),
            ),
            Mistake(
                "that is minus the weight: the minus stands before it, in the gradient.",
                lambda w, lose, beta: -gradient_weight(w, lose, beta),
            ),
            Mistake(
                "that is the derivative of σ; the loss is −log σ, "
                "whose derivative is −σ of minus its argument.",
                lambda w, lose, beta: beta * torch.sigmoid(lose - w) * torch.sigmoid(w - lose),
            ),
            Mistake("that is the loss, not its slope.", lambda w, lose, beta: -logsigmoid(w - lose)),
            Mistake(
                "β belongs before σ, not inside it: the implicit rewards have it already, "
                "and once more it comes down by the chain rule.",
                lambda w, lose, beta: torch.sigmoid(beta * (lose - w)),
            ),
        ),
    ),
    "dpop_loss": Exercise(
        dpop_loss,
        _pairs_and_lambda,
        (
            Mistake(
                "the penalty is missing: this is the DPO loss.",
                lambda *a: dpo_loss(*a[:-1]),
            ),
            Mistake(
                "λ is missing: each nat that the chosen response has lost costs λ nats of h.",
                lambda *a: dpop_loss(*a[:-1], 1.0),
            ),
            Mistake(
                "the penalty is the wrong way round: it is for a chosen response that has become *less* "
                "probable than it is under the reference.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(w - rw)),
            ),
            Mistake(
                "the penalty has the wrong sign: it is taken off h, so that the loss grows with it.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) + k * relu(rw - w)),
            ),
            Mistake(
                "the penalty is never 0: without max(0, …) what the chosen response has gained counts "
                "λ times as well.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * (rw - w)),
            ),
            Mistake(
                "the penalty counts what is gained, too: it is for what the chosen response has lost.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * (rw - w).abs()),
            ),
            Mistake(
                "the penalty has no gradient: it must be computed from log-probabilities that have one.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(rw - w).detach()),
            ),
            Mistake(
                "the penalty is one for all pairs: each pair has its own.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(rw - w).mean()),
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(rw - w).sum()),
            ),
            Mistake(
                "the penalty is for the rejected response: it is the chosen one that must not fall.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(rl - lo)),
            ),
            Mistake(
                "the penalty is for the rejected response as well: only the chosen one must not fall.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * (relu(rw - w) + relu(rl - lo))),
            ),
            Mistake(
                "the penalty stands outside σ: take it off h, so that β and σ apply to it, too.",
                _penalty_outside(lambda beta, dpop_lambda: dpop_lambda),
                _penalty_outside(lambda beta, dpop_lambda: beta * dpop_lambda),
            ),
            Mistake(
                "β is missing from the penalty: β multiplies all of h, the penalty included.",
                _with_h(lambda w, lo, rw, rl, b, k: w - rw - (lo - rl) - k * relu(rw - w) / b),
            ),
            Mistake("β is missing.", lambda *a: dpop_loss(*a[:-2], 1.0, a[-1])),
            Mistake(
                "the losses are right, the chosen reward is not: it stays β times the log-ratio, "
                "so that one sees what the policy does, and not the penalty.",
                _penalty_in_the_rewards,
            ),
            Mistake(
                "the losses are right, the implicit rewards are no constants: detach them.",
                _rewards_with_gradients,
            ),
            Mistake(
                "chosen and rejected are swapped.",
                lambda w, lo, rw, rl, b, k: dpop_loss(lo, w, rl, rw, b, k),
            ),
        ),
    ),
}


LOGS = Puzzle(
    options=("mean for sum", "no reference", "the reference moves", "pairs swapped"),
    answers={"A": "pairs swapped", "B": "mean for sum", "C": "no reference"},
    look={
        "A": "Loss and accuracy are those of a healthy run. Which of the panels do they not agree with?",
        "B": "It begins at ln 2. Now compare the sizes: what kind of log π differs so little in a pair?",
        "C": "Look at the very first loss. What must be true of two models for it to be ln 2?",
    },
    why={
        "A": "The run believes itself. But it pushes log π of the chosen below that of the rejected, and on "
        "pairs that other code reads it is wrong more often than right.",
        "B": "Two responses differ by several nats in all, a token of theirs by a tenth of one.",
        "C": "The first loss is not ln 2: without a reference the implicit rewards do not begin at 0.",
    },
)
DIRECT_PREFERENCE_PUZZLES = {"which log": LOGS}
