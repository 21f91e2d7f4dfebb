"""Every setting of every algorithm has an effect, and every option arrives: an algorithm that ignores one
trains all the same.
"""

from dataclasses import fields, replace
from functools import lru_cache

import pytest
import torch

from minialign import dpo, policy_gradient, ppo, pretraining, reward_model, sft
from minialign.chat import load_chat
from minialign.documents import encode_corpus
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPTConfig
from minialign.policy_gradient import PolicyGradientConfig
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.pretraining import PretrainingConfig
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.sft import SFTConfig
from minialign.tokenizer import load_tokenizer
from minialign.training import TrainingConfig
from tests.engine import favour, lively_gpt

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=16)
PROMPTS = ["Hello.", "Why?", "Tell me about the moon.", "Who is it?"]
ANSWERS = ("Yes!", "Maybe so.", "No, never, not at all.")
PAIRS = [Preference(x, ANSWERS[i], ANSWERS[j]) for i, j in ((0, 1), (1, 2)) for x in PROMPTS]
DEMONSTRATIONS = [(pair.prompt, pair.chosen) for pair in PAIRS]
DOCUMENTS = ["The moon is far away.", "A cat.", "Nothing ever happens here.", "It rains.", "Bees."]


def policy():
    return favour(lively_gpt(CONFIG), load_chat().end, 6.5)


def length(prompts, responses):
    return [len(response) / 10 for response in responses]


def pretrained(config, **options):
    documents = encode_corpus(DOCUMENTS, load_chat())
    return (model := policy()), pretraining.train(model, documents, config, **options)


def fine_tuned(config, **options):
    return (model := policy()), sft.train(model, DEMONSTRATIONS, config, documents=DOCUMENTS, **options)


def judging(config, **options):
    return (model := RewardModel(policy())), reward_model.train(model, PAIRS, config, **options)


def reinforced(config, **options):
    return (model := policy()), policy_gradient.train(model, PROMPTS, length, config, **options)


def preferring(config, **options):
    return (model := policy()), dpo.train(model, PAIRS, config, **options)


def preferring_online(config, **options):
    return (model := policy()), dpo.train_online(model, PROMPTS, length, config, **options)


def optimized(config, **options):
    reference = favour(lively_gpt(CONFIG, seed=2), load_chat().end, 6.5)
    options |= {"reference": reference, "documents": DOCUMENTS}
    return (model := policy()), ppo.train(model, PROMPTS, length, config, **options)


# Each setting at a value where it counts, and at another.
BASE = dict(steps=5, learning_rate=1e-2, warmup=2, final_lr=0.1, decay="cosine", weight_decay=0.0)
BASE |= dict(betas=(0.9, 0.95), eps=1e-8, max_grad_norm=1.0, muon=False, seed=0)
OTHER = dict(steps=3, learning_rate=2e-2, warmup=0, final_lr=0.8, decay="linear", weight_decay=0.9)
OTHER |= dict(betas=(0.5, 0.6), eps=1e-2, max_grad_norm=1e-3, muon=True, seed=1)
ROLLOUTS = dict(prompts_per_step=2, samples_per_prompt=4, max_new_tokens=6)
OTHER_ROLLOUTS = dict(prompts_per_step=1, samples_per_prompt=3, max_new_tokens=3)
PENALTIES = dict(beta=0.3, missing_end_penalty=1.0)
OTHER_PENALTIES = dict(beta=0.9, missing_end_penalty=0.0)
PPO = dict(temperature=1.0, epochs=2, minibatches=2, kl_target=1.0, horizon=100)
PPO |= dict(max_approx_kl=None, gamma=1.0, lam=0.95, clip=0.2, value_clip=0.2, value_coef=0.5)
PPO |= dict(whiten_rewards=False, ptx_coef=0.5, advantages="gae", critic_warmup=0)
OTHER_PPO = dict(temperature=0.7, epochs=1, minibatches=1, kl_target=None, horizon=10)
OTHER_PPO |= dict(max_approx_kl=1e-9, gamma=0.8, lam=0.0, clip=0.01, value_clip=0.001, value_coef=3.0)
OTHER_PPO |= dict(whiten_rewards=True, ptx_coef=0.0, advantages="rloo", critic_warmup=1)
ALGORITHMS = {  # name: (train, its config, settings, other settings, title of the progress bar)
    "pretraining": (pretrained, PretrainingConfig, dict(batch_size=2), dict(batch_size=1), "pre-training"),
    "sft": (
        fine_tuned,
        SFTConfig,
        dict(batch_size=2, replay_coef=0.5, replay_batch_size=2),
        dict(batch_size=1, replay_coef=2.0, replay_batch_size=1),
        "fine-tuning",
    ),
    "reward_model": (
        judging,
        RewardModelConfig,
        dict(prompts_per_step=2),
        dict(prompts_per_step=1),
        "reward model",
    ),
    "policy_gradient": (
        reinforced,
        PolicyGradientConfig,
        ROLLOUTS | dict(temperature=1.0, baseline="rloo"),
        OTHER_ROLLOUTS | dict(temperature=0.7, baseline="none"),
        "policy gradient",
    ),
    "dpo": (
        preferring,
        DPOConfig,
        dict(prompts_per_step=2, beta=0.3, sft_coef=0.0),
        dict(prompts_per_step=1, beta=0.9, sft_coef=0.5),
        "DPO",
    ),
    "online_dpo": (
        preferring_online,
        OnlineDPOConfig,
        ROLLOUTS | PENALTIES | dict(sft_coef=0.0),
        OTHER_ROLLOUTS | OTHER_PENALTIES | dict(sft_coef=0.5),
        "online DPO",
    ),
    "ppo": (
        optimized,
        PPOConfig,
        ROLLOUTS | PENALTIES | PPO,
        OTHER_ROLLOUTS | OTHER_PENALTIES | OTHER_PPO,
        "PPO",
    ),
}


def config_of(name: str):
    _, kind, settings, _, _ = ALGORITHMS[name]
    return kind(**(BASE | settings))


@lru_cache
def plain_run(name: str) -> torch.nn.Module:
    return ALGORITHMS[name][0](config_of(name))[0]


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return max(float((p - q).abs().max().detach()) for p, q in zip(a.parameters(), b.parameters()))


COMMON = dict(final_lr=0.1, decay="cosine", weight_decay=0.0, betas=(0.9, 0.95), eps=1e-8, max_grad_norm=1.0)
COMMON |= dict(muon=False, seed=0)
DEFAULTS = {
    TrainingConfig: dict(steps=1000, learning_rate=1e-3, warmup=20, weight_decay=0.1),
    PretrainingConfig: dict(steps=8000, learning_rate=6e-3, warmup=100, final_lr=0.01, weight_decay=0.01)
    | dict(betas=(0.9, 0.99), muon=True, batch_size=24),
    SFTConfig: dict(steps=650, learning_rate=1.5e-4, warmup=20, weight_decay=0.01, betas=(0.9, 0.99))
    | dict(batch_size=16, replay_coef=0.0, replay_batch_size=16),
    RewardModelConfig: dict(steps=150, learning_rate=1e-3, warmup=20, weight_decay=0.01, prompts_per_step=8),
    PolicyGradientConfig: dict(steps=25, learning_rate=5e-4, warmup=3, final_lr=1.0, baseline="rloo")
    | dict(prompts_per_step=16, samples_per_prompt=8, max_new_tokens=96, temperature=1.0),
    DPOConfig: dict(steps=60, learning_rate=3e-4, warmup=10, prompts_per_step=8, beta=0.1, sft_coef=0.0),
    OnlineDPOConfig: dict(steps=40, learning_rate=3e-4, warmup=5, prompts_per_step=32, beta=0.1)
    | dict(samples_per_prompt=2, max_new_tokens=96, missing_end_penalty=1.0, sft_coef=0.0),
    PPOConfig: dict(steps=25, learning_rate=3e-4, warmup=0, decay="linear", eps=1e-5)
    | dict(prompts_per_step=16, samples_per_prompt=4, max_new_tokens=96, temperature=1.0)
    | dict(epochs=2, minibatches=2, rows_per_pass=16, beta=0.05, kl_target=None, horizon=128)
    | dict(max_approx_kl=None, gamma=1.0, lam=1.0, clip=0.2, value_clip=0.2, value_coef=0.1)
    | dict(missing_end_penalty=1.0, whiten_rewards=False, ptx_coef=0.0)
    | dict(advantages="gae", critic_warmup=0),
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_defaults_are_those_of_models_and_tables(kind):
    """Who changes one builds them anew."""
    assert vars(kind()) == COMMON | DEFAULTS[kind]


NO_EFFECT = {("ppo", "rows_per_pass")}  # what the memory holds at a time: test_ppo has it
FIELDS = [(name, field.name) for name in ALGORITHMS for field in fields(ALGORITHMS[name][1])]


@pytest.mark.parametrize(("name", "field"), [pair for pair in FIELDS if pair not in NO_EFFECT])
def test_every_setting_has_an_effect(name, field):
    """On what is learned, not only on what is printed."""
    train, _, _, others, _ = ALGORITHMS[name]
    config, other = config_of(name), (OTHER | others)[field]
    assert getattr(config, field) != other, "the test needs two values"
    model, _ = train(replace(config, **{field: other}))
    assert distance(model, plain_run(name)) > 1e-4


@pytest.mark.parametrize("name", ALGORITHMS)
def test_options_arrive_and_the_bar_shows_who_is_at_work(name, monkeypatch, capsys):
    monkeypatch.setenv("MINIALIGN_PROGRESS", "1")
    train, _, _, _, title = ALGORITHMS[name]
    seen = []
    _, history = train(config_of(name), on_step=lambda metrics: seen.append(metrics["step"]))
    assert seen == [1, 2, 3, 4, 5] == history.column("step").tolist()
    bar = capsys.readouterr().err.strip().splitlines()[-1].split("\r")[-1]
    shown = "objective/scores" if name in ("ppo", "online_dpo") else "loss"
    assert bar.startswith(f"{title}: 100%") and f"{shown}={history[-1][shown]:.3f}" in bar


@pytest.mark.parametrize("name", ALGORITHMS)
def test_metrics_are_numbers_without_a_graph(name, recwarn):
    """Turned into numbers, a tensor with a graph makes torch warn, on a reader's screen."""
    torch.set_warn_always(True)
    try:
        _, history = ALGORITHMS[name][0](config_of(name))
    finally:
        torch.set_warn_always(False)
    assert [str(warning.message) for warning in recwarn] == []
    assert all(type(value) in (int, float) for row in history for value in row.values())
