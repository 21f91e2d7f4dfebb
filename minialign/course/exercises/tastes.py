"""The exercises of notebook 08 on people of different tastes."""

import numpy as np
import torch
from scipy.special import expit, log_expit, softmax

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.experiments.tastes import group_posterior
from minialign.social_choice import borda_scores, nash_policy
from minialign.world.exact import bradley_terry_optimum


def _mirrored(above: np.ndarray) -> np.ndarray:
    """A preference matrix with these shares above the diagonal, ½ on it."""
    above = np.triu(above, 1)
    return above + np.tril(1 - above.T, -1) + 0.5 * np.eye(len(above))


def _shares(generator):
    """Which share of people prefers each of five to each other one; none of them is one half."""
    rng = np.random.default_rng(generator.initial_seed())
    return (_mirrored(0.5 + rng.choice([-1, 1], (5, 5)) * rng.uniform(0.05, 0.45, (5, 5))),)


def _games(generator):
    """A preference matrix with one maximal lottery.

    By the seed it is a cycle of three, either way round, has a winner, or is a cycle of three with a fourth
    one that loses to all.
    """
    seed = generator.initial_seed()
    a, b, c, d = np.random.default_rng(seed).uniform(0.05, 0.4, 4)
    three = np.array([[0, a, -c], [0, 0, b], [0, 0, 0]]) * (-1 if seed % 2 else 1)
    if seed % 5 == 3:
        three = np.array([[0, -a, c], [0, 0, b], [0, 0, 0]])  # 1 beats both others
    if seed % 5 != 4:
        return (_mirrored(0.5 + three),)
    four = np.zeros((4, 4))
    four[:3, :3], four[:3, 3] = three, [d, a, b]
    return (_mirrored(0.5 + four),)


def _person(generator):
    """Margins of six comparisons by the rewards of three groups, which are of different sizes."""
    rng = np.random.default_rng(generator.initial_seed())
    return rng.normal(0.4, 1.5, (6, 3)), rng.dirichlet([6.0, 3.0, 2.0])


def _one_of(chosen, n):
    return np.eye(n)[int(chosen)]


def _share(values):
    return values / values.sum()


def _unbounded(shares):
    """The solution of Σ p_i (P[i, j] − ½) = 0 for all j and Σ p = 1, whatever its signs."""
    n = len(shares)
    return np.linalg.lstsq(np.vstack([shares.T - 0.5, np.ones(n)]), np.append(np.zeros(n), 1), rcond=None)[0]


def _other_twos(P):
    """To each of the first three the margin between the other two, as if they were a cycle."""
    margins = [abs(P[1, 2] - 0.5), abs(P[0, 2] - 0.5), abs(P[0, 1] - 0.5)]
    return _share(np.array(margins + [0.0] * (len(P) - 3)))


def _strengths(shares):
    return bradley_terry_optimum(torch.from_numpy(shares)).softmax(0).numpy()


TASTES = {
    "borda_scores": Exercise(
        borda_scores,
        _shares,
        (
            Mistake(
                "you count majorities: that is Copeland's score. Borda's takes the shares themselves, "
                "so a narrow win counts less than a wide one.",
                lambda P: (P > 0.5).sum(1) / (len(P) - 1),
                lambda P: (P > 0.5).sum(1),
                lambda P: (P > 0.5).mean(1),
                lambda P: (P > 0.5).sum(1) - (P < 0.5).sum(1),
            ),
            Mistake(
                "each is compared with itself, too: leave the diagonal out, and divide by N − 1.",
                lambda P: P.mean(1),
                lambda P: P.sum(1),
                lambda P: P.sum(1) / (len(P) - 1),
                lambda P: (P.sum(1) - 0.5) / len(P),
            ),
            Mistake(
                "the columns are added up: P[i, j] is the share that prefers i to j, so a row is i's own.",
                lambda P: borda_scores(P.T),
                lambda P: borda_scores(P.T) * (len(P) - 1),
                lambda P: P.mean(0),
                lambda P: P.sum(0),
            ),
            Mistake(
                "you add up where a mean is asked for: divide by the number of others.",
                lambda P: P.sum(1) - 0.5,
                lambda P: P.sum(1) - P.diagonal(),
            ),
            Mistake(
                "that is who comes first: a score for each is asked for.",
                lambda P: borda_scores(P).argmax(),
                lambda P: np.argsort(-borda_scores(P)),
                lambda P: np.argsort(borda_scores(P)),
                lambda P: np.argsort(np.argsort(borda_scores(P))),
                lambda P: np.argsort(np.argsort(-borda_scores(P))),
            ),
            Mistake(
                "these are rewards as Bradley and Terry fit them: they have the same order, "
                "but a mean of shares is asked for.",
                lambda P: bradley_terry_optimum(torch.from_numpy(P)).numpy(),
                _strengths,
            ),
            Mistake(
                "you take the smallest of the shares, not their mean: that is another rule (Simpson's).",
                lambda P: (P + np.eye(len(P))).min(1),
            ),
        ),
    ),
    "group_posterior": Exercise(
        group_posterior,
        _person,
        (
            Mistake(
                "the prior is missing: before any comparison, a person is more probably of the larger group.",
                lambda m, prior: softmax(log_expit(m).sum(0)),
            ),
            Mistake(
                "the prior enters once for each comparison: it is there once, before the first.",
                lambda m, prior: softmax((np.log(prior) + log_expit(m)).sum(0)),
            ),
            Mistake(
                "the probabilities are not normalised: divide by their sum over the groups.",
                lambda m, prior: prior * expit(m).prod(0),
            ),
            Mistake(
                "these are logarithms: probabilities are asked for.",
                lambda m, prior: np.log(prior) + log_expit(m).sum(0),
                lambda m, prior: np.log(group_posterior(m, prior)),
            ),
            Mistake(
                "you add up the margins: the likelihood of a comparison is σ(margin), its logarithm log σ.",
                lambda m, prior: softmax(np.log(prior) + m.sum(0)),
                lambda m, prior: softmax(m.sum(0)),
            ),
            Mistake(
                "σ of the margins' sum is no product of their σ: each comparison has its own likelihood.",
                lambda m, prior: _share(prior * expit(m.sum(0))),
            ),
            Mistake(
                "you take the mean over the comparisons: they are independent, so their likelihoods are "
                "multiplied, and more comparisons say more.",
                lambda m, prior: softmax(np.log(prior) + log_expit(m).mean(0)),
                lambda m, prior: _share(prior * expit(m).mean(0)),
            ),
            Mistake(
                "you add the likelihoods up: all the comparisons were made, so multiply.",
                lambda m, prior: _share(prior + expit(m).sum(0)),
                lambda m, prior: prior * expit(m).sum(0),
            ),
            Mistake(
                "the sign is wrong: the margin is positive where the reward agrees with the person, "
                "and that speaks for the group.",
                lambda m, prior: group_posterior(-m, prior),
            ),
            Mistake(
                "the prior's logarithm is missing: add log P(g), not P(g), to the log-likelihood.",
                lambda m, prior: softmax(prior + log_expit(m).sum(0)),
            ),
            Mistake(
                "that is the most probable group: how probable each is, is asked for.",
                lambda m, prior: _one_of(group_posterior(m, prior).argmax(), len(prior)),
                lambda m, prior: group_posterior(m, prior).argmax(),
            ),
            Mistake(
                "you count the comparisons on which a reward agrees: how sure it was counts, too.",
                lambda m, prior: _share(prior * (m > 0).mean(0)),
                lambda m, prior: _share(prior * (m > 0).sum(0)),
                lambda m, prior: (m > 0).mean(0),
            ),
            Mistake(
                "only the last comparison counts: start from what the ones before it have left.",
                lambda m, prior: group_posterior(m[-1:], prior),
            ),
            Mistake(
                "this is the posterior after each comparison: return the last one.",
                lambda m, prior: np.array([group_posterior(m[: k + 1], prior) for k in range(len(m))]),
            ),
        ),
    ),
    "nash_policy": Exercise(
        nash_policy,
        _games,
        (
            Mistake(
                "each gets the same: then one that loses more than it wins is answered too often.",
                lambda P: np.full(len(P), 1 / len(P)),
            ),
            Mistake(
                "this is in proportion to Borda's scores: it loses to the one that they overrate. "
                "Ask of a mixture what the others do against it.",
                lambda P: _share(borda_scores(P)),
                lambda P: softmax(borda_scores(P)),
            ),
            Mistake(
                "this is the softmax of Bradley-Terry rewards, a policy of RLHF: it loses to something.",
                _strengths,
            ),
            Mistake(
                "that is one answer for ever: in a cycle most people would prefer another one to it.",
                lambda P: _one_of(borda_scores(P).argmax(), len(P)),
                lambda P: _one_of((P > 0.5).sum(1).argmax(), len(P)),
                lambda P: _one_of(P.min(1).argmax(), len(P)),
            ),
            Mistake(
                "each has the probability of its own margin: in a cycle it is the margin between the *other* "
                "two that counts.",
                lambda P: _share(np.maximum(P - 0.5, 0).sum(1)),
            ),
            Mistake(
                "that is right for three answers in a cycle. Where one beats all the others, it gets all.",
                _other_twos,
            ),
            Mistake(
                "rows and columns are exchanged: P[i, j] is the share that prefers i to j. "
                "In a cycle that makes no difference; but here a loser is chosen.",
                lambda P: nash_policy(P.T),
            ),
            Mistake(
                "the mixture is level with all the others, and some probabilities are negative: "
                "ask for p ≥ 0, and that it loses to none.",
                _unbounded,
            ),
            Mistake(
                "this is how strongly the mixture is preferred to each: the mixture is asked for.",
                lambda P: nash_policy(P) @ P,
            ),
            Mistake(
                "the value of the game is returned, too: leave it out.",
                lambda P: np.append(nash_policy(P), 0.5),
                lambda P: np.append(nash_policy(P), 0.0),
            ),
        ),
    ),
}
