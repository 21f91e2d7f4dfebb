"""The critic: what it starts from, and how well it is said to foresee."""

import math
from functools import lru_cache

import pytest
import torch

from minialign.critic import Critic, explained_variance, gae, value_metrics
from minialign.gpt import GPTConfig
from minialign.ppo import clipped_policy_loss, kl_penalized_rewards
from minialign.reward_model import RewardModel
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import batch_of, lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=16)
TEXTS = ["Hello.", "Why?", "Who?", "Is it so?"], ["Yes!", "Maybe so.", "No, never.", "It is."]


def test_the_head_is_made_as_the_trunk_is():
    """In its precision and on its device ("meta" has neither numbers nor a GPU, but is another one)."""
    assert Critic(lively_gpt(CONFIG).double()).head.weight.dtype == torch.float64
    assert Critic(lively_gpt(CONFIG).to("meta")).head.weight.device.type == "meta"


# --- a critic from a reward model ---


def judge(reads_surprise: bool = False) -> RewardModel:
    model = RewardModel(lively_gpt(CONFIG), reads_surprise=reads_surprise)
    with torch.no_grad():
        model.head.bias.fill_(0.7)
    model.normalise(*TEXTS)
    return model


def values_after(critic: Critic, model: RewardModel) -> list[float]:
    """V where the whole response has been read: before one more token, whichever it is."""
    pairs = [model.trunk.chat.encode_prompt(x) for x in TEXTS[0]]
    pairs = [(x, [*model.trunk.chat.encode_response(y), 5]) for x, y in zip(pairs, TEXTS[1])]
    batch = batch_of(pairs)
    values = critic(batch).detach()
    return [float(values[i][batch.response_mask[i]][-1]) for i in range(len(pairs))]


def test_at_the_end_a_critic_from_a_reward_model_says_the_score():
    """In the scale of the normalised scores: the model's own head has another."""
    model = judge()
    scores = model.score(*TEXTS)
    assert values_after(Critic.from_reward_model(model), model) == pytest.approx(scores.tolist(), abs=1e-4)
    wrong = Critic(model.trunk)
    assert max(abs(values_after(wrong, model) - scores)) > 0.5, "a fresh head"
    wrong.head.load_state_dict(model.head.state_dict())
    assert max(abs(values_after(wrong, model) - scores)) > 0.5, "the head without gain and bias"


def test_it_is_a_copy_that_can_learn():
    model = judge().requires_grad_(False)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    critic = Critic.from_reward_model(model)
    assert all(p.requires_grad for p in critic.parameters()) and critic.trunk is not model.trunk
    assert same_parameters(critic.trunk, model.trunk)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(1.0)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


def test_a_reward_model_that_reads_surprise_lends_its_trunk_and_head():
    """Without the surprise, which it is not told: where the model heeds none, the critic says the score."""
    model = judge(reads_surprise=True)
    assert values_after(Critic.from_reward_model(model), model) == pytest.approx(
        model.score(*TEXTS).tolist(), abs=1e-4
    )
    with torch.no_grad():
        model.surprise_embedding[::2] = 0.3
    assert max(abs(values_after(Critic.from_reward_model(model), model) - model.score(*TEXTS))) > 0.1


def test_a_critic_from_what_is_no_reward_model():
    with pytest.raises(
        TypeError, match=r"GPT is no reward model: give one, or make Critic\(model\) of a GPT"
    ):
        Critic.from_reward_model(lively_gpt(CONFIG))


# --- how well it foresees ---

MASK = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random(seed: int) -> torch.Tensor:
    return normal(*MASK.shape, seed=seed) * MASK


def sampled_returns(rewards, gamma: float) -> list[float]:
    """Reward to go at each response token, row by row."""
    rows = [rewards[i][MASK[i]].tolist() for i in range(len(rewards))]
    return [sum(gamma**k * r for k, r in enumerate(row[t:])) for row in rows for t in range(len(row))]


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_values_are_held_against_what_really_came(gamma):
    rewards, values = random(0), random(1)
    returns = torch.tensor(sampled_returns(rewards, gamma), dtype=torch.float64)
    v = values[MASK]
    found = value_metrics(rewards, values, MASK, gamma)
    explained = float(1 - (returns - v).var(correction=0) / returns.var(correction=0))
    assert found["val/explained_variance"] == pytest.approx(explained)
    assert found["val/bias"] == pytest.approx(float(v.mean() - returns.mean()))
    # The returns that the critic is fitted to contain its own values.
    for lam in (0.0, 0.5):
        _, targets = gae(rewards, values, MASK, gamma, lam)
        wrong = explained_variance(v, targets[MASK])
        assert abs(wrong - explained) > 0.05


def test_a_constant_error_is_a_bias_and_leaves_the_explained_variance():
    rewards = random(0)
    perfect = torch.zeros_like(rewards)
    perfect[MASK] = torch.tensor(sampled_returns(rewards, 1.0), dtype=torch.float64)
    assert value_metrics(rewards, perfect, MASK, 1.0) == pytest.approx(
        {"val/explained_variance": 1.0, "val/bias": 0.0}
    )
    low = value_metrics(rewards, perfect - 0.6 * MASK, MASK, 1.0)
    assert low == pytest.approx({"val/explained_variance": 1.0, "val/bias": -0.6})


def test_without_variance_nothing_can_be_explained():
    """No reward at all, as where it arrives on the padding: no number, not a perfect critic."""
    found = value_metrics(torch.zeros_like(MASK, dtype=torch.float64), random(1), MASK, 1.0)
    assert math.isnan(found["val/explained_variance"])
    assert found["val/bias"] == pytest.approx(float(random(1)[MASK].mean()))


def test_returns_that_do_not_vary_have_no_share_that_is_explained():
    values, nearly = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 3.0, 3.0 + 3e-7])
    assert nearly.var() > 0
    for returns in (torch.full((3,), 3.0), nearly):
        assert math.isnan(explained_variance(values, returns))
    assert explained_variance(values, values + 7.0) == 1.0
    assert explained_variance(torch.zeros(3), values) == 0.0


# --- a critic that knows nothing, and λ: exactly, on the micro-world's token sequences ---


def next_value_forgotten(rewards, values, response_mask, gamma=1.0, lam=0.95):
    """δ_t = r_t − V_t."""
    return gae(rewards - values, 0 * values, response_mask, gamma, lam)


def own_value_forgotten(rewards, values, response_mask, gamma=1.0, lam=0.95):
    """δ_t = r_t + γ V_{t+1}."""
    after = torch.cat([values[:, 1:], 0 * values[:, :1]], 1)
    return gae((rewards + gamma * after) * response_mask, 0 * values, response_mask, gamma, lam)


WRONG = (next_value_forgotten, own_value_forgotten)


class Trie(torch.nn.Module):
    """A policy on the micro-world, token by token: a logit for every token that may follow a beginning."""

    def __init__(self, world: exact.MicroWorld, seed: int = 0):
        super().__init__()
        self.batch, nodes, edges = world.batch(), {}, {}
        self.edge, parents = torch.zeros_like(self.batch.ids), []
        for row, (ids, seen, said) in enumerate(
            zip(self.batch.ids.tolist(), self.batch.mask.tolist(), self.batch.response_mask.tolist())
        ):
            for t in (t for t in range(len(ids)) if said[t]):
                node = nodes.setdefault(tuple(ids[:t]), len(nodes))
                if (node, ids[t]) not in edges:
                    edges[node, ids[t]] = len(edges)
                    parents.append(node)
                self.edge[row, t] = edges[node, ids[t]]
        self.parent, self.n_nodes = torch.tensor(parents), len(nodes)
        self.logits = torch.nn.Parameter(0.5 * normal(len(edges), seed=seed))

    def forward(self) -> torch.Tensor:
        """log π(y_t | x, y_<t), (B, T)."""
        totals = torch.zeros(self.n_nodes, dtype=torch.float64).index_add(0, self.parent, self.logits.exp())
        return (self.logits - totals.log()[self.parent])[self.edge] * self.batch.response_mask

    def values(self, probabilities, scores) -> torch.Tensor:
        """What a perfect critic says, (B, T): E[score | x, y_<t]. Of whole responses, (B,), all."""
        node, mask = self.parent[self.edge], self.batch.response_mask
        weight, total = (torch.zeros(self.n_nodes, dtype=torch.float64) for _ in range(2))
        for sums, x in ((weight, probabilities), (total, probabilities * scores)):
            sums.index_add_(0, node[mask], x[:, None].expand_as(node)[mask])
        return (total / weight)[node] * mask


@lru_cache
def on_the_trie(seed: int = 0):
    """A policy, the probabilities (B,) of all responses, and scores of mean 0 and deviation 1."""
    world = exact.micro_world(n=48)
    policy = Trie(world, seed)
    probabilities = policy().detach().sum(-1).exp()
    assert float(probabilities.sum()) == pytest.approx(len(world.prompts)), "the test needs all responses"
    scores = world.rewards.flatten()
    return policy, probabilities, (scores - scores.mean()) / scores.std()


def of_logits(policy: Trie, objective: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(objective, policy.logits)[0]


def expected_by_gae(lam: float, scores, values, policy, probabilities, estimator=gae) -> torch.Tensor:
    """E of PPO's gradient at ratio 1, over all responses."""
    log_probs, mask = policy(), policy.batch.response_mask
    rewards = kl_penalized_rewards(scores, log_probs, log_probs, mask, 0.0)
    advantages, _ = estimator(rewards, values, mask, lam=lam)
    weighted = advantages * probabilities[:, None] * mask.sum()  # the loss is a mean over tokens
    return -of_logits(policy, clipped_policy_loss(log_probs, log_probs.detach(), weighted, mask))


def compared_with(gradient, true) -> tuple[float, float]:
    """Cosine, and length in units of the true one."""
    length = float(gradient.norm() / true.norm())
    return float((gradient * true).sum() / true.norm() ** 2) / length, length


def test_a_critic_that_expects_nothing_makes_a_brake_of_lambda():
    """λ = 1: only variance. λ = 0.95: the first of 13 tokens gets half of the credit of the last, and the
    gradient is another and shorter one. With a critic that knows, every λ is right.
    """
    policy, p, scores = on_the_trie()
    true = of_logits(policy, policy().sum(-1).exp() @ scores)
    nothing, perfect = torch.zeros_like(policy()).detach(), policy.values(p, scores)
    found = {
        lam: compared_with(expected_by_gae(lam, scores, nothing, policy, p), true) for lam in (1, 0.95, 0.9)
    }
    print("cosine and length of the gradient:", found)
    assert found[1] == pytest.approx((1.0, 1.0), abs=1e-9)
    assert found[0.95] == pytest.approx((0.990, 0.707), abs=0.001)
    assert found[0.9] == pytest.approx((0.964, 0.505), abs=0.001)
    for wrong in WRONG:
        shifted = compared_with(expected_by_gae(0.95, scores, perfect, policy, p, wrong), true)
        assert shifted != pytest.approx((1.0, 1.0), abs=0.05), wrong.__name__
    for lam in (1.0, 0.95, 0.0):
        torch.testing.assert_close(expected_by_gae(lam, scores, perfect, policy, p), true, atol=1e-9, rtol=0)


def test_of_a_constant_score_lambda_makes_a_reason_to_stop():
    """Nothing can be learned from it. But what ends a response soon is credited with more of it."""
    policy, p, scores = on_the_trie()
    nothing, same = torch.zeros_like(policy()).detach(), torch.ones_like(scores)
    lengths = policy.batch.response_mask.sum(-1).double()
    longer = of_logits(policy, policy().sum(-1).exp() @ lengths)
    pushes = {lam: expected_by_gae(lam, same, nothing, policy, p) for lam in (1.0, 0.95)}
    assert pushes[1.0].abs().max() < 1e-9
    assert compared_with(pushes[0.95], longer)[0] < -0.9
