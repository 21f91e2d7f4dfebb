"""A model with a tokenizer, a template and special tokens of its own, and every algorithm, one step on it."""

import copy

from minialign import dpo, policy_gradient, ppo, pretraining, reward_model, sft
from minialign.chat import Chat
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPT, GPTConfig
from minialign.labels import sampled_labels
from minialign.policy_gradient import PolicyGradientConfig
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.pretraining import PretrainingConfig
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.sft import SFTConfig
from tests.engine import favour, lively_gpt

WORDS = "yes no maybe so why how who me you it is not".split()


class Words:
    """A tokenizer whose every token is a word; those below 20 are x0, x1, …"""

    names = [*(f"x{i}" for i in range(20)), *WORDS]

    def encode_ordinary(self, text):
        return [self.names.index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(self.names[i] for i in ids)


# A template of several tokens on either side, an end and a padding in the middle of the vocabulary.
FOREIGN = Chat(Words(), user=(3, 4), assistant=(5, 6, 3), end=9, separator=11, pad=10)
CONFIG = GPTConfig(vocab_size=20 + len(WORDS), context=24, n_layer=1, n_head=2, n_embd=16)
PROMPTS = ["why", "how is it", "who is it not"]
PAIRS = [Preference(x, "yes it is", "no") for x in PROMPTS] + [Preference("why", "maybe so", "not me")]
DEMONSTRATIONS = [(pair.prompt, pair.chosen) for pair in PAIRS]


def speaker(seed=0):
    """A small model that speaks FOREIGN and ends a response after a few words."""
    model = GPT(CONFIG, chat=FOREIGN).eval()
    model.load_state_dict(favour(lively_gpt(CONFIG, seed), FOREIGN.end, 2.0).state_dict())
    return model


def count_words(prompts, responses):
    return [len(response.split()) for response in responses]


def everything(policy, **options):
    """Each algorithm, one step, on a copy of the policy: {its name: (the trained module, its history)}."""
    found = {}

    def run(name, train, model, *arguments, **more):
        found[name] = model, train(model, *arguments, **more, **options)

    small = dict(steps=1, warmup=0)
    sampling = dict(small, prompts_per_step=2, max_new_tokens=8)
    run("pretraining", pretraining.train, copy.deepcopy(policy), PROMPTS, PretrainingConfig(**small))
    run("sft", sft.train, copy.deepcopy(policy), DEMONSTRATIONS, SFTConfig(**small))
    for name, kind in REWARD_MODELS.items():
        run(name, reward_model.train, RewardModel(policy, **kind), PAIRS, RewardModelConfig(**small))
    run("dpo", dpo.train, copy.deepcopy(policy), PAIRS, DPOConfig(**small))
    run(
        "policy_gradient",
        policy_gradient.train,
        copy.deepcopy(policy),
        PROMPTS,
        count_words,
        PolicyGradientConfig(**sampling, samples_per_prompt=4),
    )
    config = PPOConfig(**sampling, samples_per_prompt=4, ptx_coef=0.1)
    run("ppo", ppo.train, copy.deepcopy(policy), PROMPTS, count_words, config, documents=PROMPTS)
    online = OnlineDPOConfig(**sampling, samples_per_prompt=4)
    run("online dpo", dpo.train_online, copy.deepcopy(policy), PROMPTS, count_words, online)
    online = OnlineDPOConfig(**sampling, samples_per_prompt=4, sft_coef=0.1)
    labels = sampled_labels(count_words)
    run("online dpo, sampled labels", dpo.train_online, copy.deepcopy(policy), PROMPTS, labels, online)
    return found


REWARD_MODELS = {
    "reward_model": {},
    "reward_model, surprise": {"reads_surprise": True},
    "reward_model, likelihood": {"likelihood": True},
}
ALGORITHMS = {
    "pretraining",
    "sft",
    *REWARD_MODELS,
    "dpo",
    "policy_gradient",
    "ppo",
    "online dpo",
    "online dpo, sampled labels",
}
