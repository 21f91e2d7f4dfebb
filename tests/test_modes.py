"""Who has dropout on, and when: what is frozen never, what is trained at most while it is trained, and
afterwards nobody, however a run ends.
"""

import copy

import pytest
import torch

from minialign import dpo, policy_gradient, ppo, pretraining, reward_model, sft
from minialign.chat import load_chat
from minialign.documents import encode_corpus
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPTConfig
from minialign.policy_gradient import PolicyGradientConfig
from minialign.ppo import Critic, PPOConfig
from minialign.preferences import Preference
from minialign.pretraining import PretrainingConfig
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.rollouts import roll_out
from minialign.sampling import generate
from minialign.sft import SFTConfig
from minialign.tokenizer import load_tokenizer
from tests.engine import favour, lively_gpt, same_parameters

CONFIG = GPTConfig(
    vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=16, dropout=0.3
)
PROMPTS = ["Hello.", "Why?"]
PAIRS = [Preference(x, "Yes!", "No, never.") for x in PROMPTS]
ROLLOUTS = dict(prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4)


def network(seed: int = 0):
    """A model with dropout, left in training mode by somebody."""
    return favour(lively_gpt(CONFIG, seed), load_chat().end, 6.5).train()


def length(prompts, responses):
    return [len(response) / 10 for response in responses]


def modes(model: torch.nn.Module) -> set[bool]:
    """The modes of all its parts."""
    return {module.training for module in model.modules()}


# Each: its models by the part they play, and the run. What plays no frozen part is trained.


def pretrained(**options):
    model = network()
    documents = encode_corpus(PROMPTS, load_chat())
    return {"model": model}, lambda: pretraining.train(
        model, documents, PretrainingConfig(steps=3), **options
    )


def fine_tuned(**options):
    model = network()
    texts = [(pair.prompt, pair.chosen) for pair in PAIRS]
    return {"model": model}, lambda: sft.train(model, texts, SFTConfig(steps=3), **options)


def judging(**options):
    model = RewardModel(network(), reads_surprise=True).train()
    models = {"trunk": model.trunk, "reader": model.reader}
    return models, lambda: reward_model.train(model, PAIRS, RewardModelConfig(steps=3), **options)


def reinforced(**options):
    policy, config = network(), PolicyGradientConfig(steps=3, **ROLLOUTS)
    return {"policy": policy}, lambda: policy_gradient.train(policy, PROMPTS, length, config, **options)


def preferring(**options):
    policy = network()
    return {"policy": policy}, lambda: dpo.train(policy, PAIRS, DPOConfig(steps=3), **options)


def preferring_online(**options):
    policy, reference, config = network(), network(2), OnlineDPOConfig(steps=3, **ROLLOUTS)
    options |= {"reference": reference}
    models = {"policy": policy, "reference": reference}
    return models, lambda: dpo.train_online(policy, PROMPTS, length, config, **options)


def optimized(**options):
    policy, reference, critic = network(), network(2), Critic(network(3)).train()
    options |= {"reference": reference, "critic": critic}
    models = {"policy": policy, "reference": reference, "critic": critic}
    config = PPOConfig(steps=3, **ROLLOUTS)
    return models, lambda: ppo.train(policy, PROMPTS, length, config, **options)


def without_critic(**options):
    policy, reference = network(), network(2)
    config = PPOConfig(steps=3, advantages="rloo", **ROLLOUTS)
    options |= {"reference": reference}
    models = {"policy": policy, "reference": reference}
    return models, lambda: ppo.train(policy, PROMPTS, length, config, **options)


def warmed_up(**options):
    models, _ = optimized(**options)
    options |= {name: models[name] for name in ("reference", "critic")}
    config = PPOConfig(steps=1, critic_warmup=2, **ROLLOUTS)
    return models, lambda: ppo.train(models["policy"], PROMPTS, length, config, **options)


# name: (its set-up, the parts that have dropout on between two updates)
ALGORITHMS = {
    "pretraining": (pretrained, {"model"}),
    "sft": (fine_tuned, {"model"}),
    "reward_model": (judging, {"trunk"}),
    "policy_gradient": (reinforced, {"policy"}),
    "dpo": (preferring, set()),
    "online_dpo": (preferring_online, set()),
    "ppo": (optimized, set()),
    "ppo without critic": (without_critic, set()),
    "ppo with warm-up": (warmed_up, set()),
}


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_modes_during_a_run_and_after_any_end(name, ending):
    setup, noisy = ALGORITHMS[name]
    seen = []

    def look(metrics):
        seen.append({part: modes(model) for part, model in models.items()})
        if ending and len(seen) == 2:
            raise ending

    models, train = setup(on_step=look)
    if ending is RuntimeError:
        with pytest.raises(RuntimeError):
            train()
    else:
        assert train().interrupted == (ending is KeyboardInterrupt)
    assert seen == [{part: {part in noisy} for part in models}] * (2 if ending else 3)
    assert all(modes(model) == {False} for model in models.values())


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["policy_gradient", "online_dpo", "ppo", "ppo without critic"])
def test_modes_where_the_reward_is_asked_and_after_it_fails(name, ending, monkeypatch):
    asked = []

    def reward(prompts, responses):
        asked.append(prompts)
        if len(asked) == 2:
            raise ending
        return [len(response) / 10 for response in responses]

    monkeypatch.setattr(f"{__name__}.length", reward)
    models, train = ALGORITHMS[name][0]()
    if ending is ValueError:
        with pytest.raises(ValueError):
            train()
    else:
        assert train().interrupted
    assert len(asked) == 2 and all(modes(model) == {False} for model in models.values())


# --- the reward model's reader ---


def test_the_reader_never_has_dropout():
    """Whatever mode the model it was copied from is in, and whatever mode the whole is put into."""
    for start in (network(), network().eval()):
        model = RewardModel(start, reads_surprise=True)
        assert modes(model.reader) == {False}
        for mode in (True, False, True):
            assert model.train(mode) is model
            assert modes(model.reader) == {False} and modes(model.trunk) == {mode}
        assert modes(copy.deepcopy(model).train().reader) == {False}
        assert model.eval() is model and modes(model) == {False}


def test_what_the_reader_says_is_the_same_while_the_trunk_is_trained(monkeypatch):
    """With dropout in the reader, every look at a response would find another surprise."""
    model, batch = RewardModel(network(), reads_surprise=True), load_chat().collate([("Hello.", "Yes!")])
    with torch.no_grad():
        model.surprise_embedding.fill_(1.0)
    told = [model.train(mode).told(batch).detach() for mode in (True, True, False)]
    assert torch.equal(told[0], told[1]) and torch.equal(told[0], told[2]) and told[0].any()
    assert not torch.equal(network()(batch.ids), network()(batch.ids)), "the test needs dropout"


def test_without_a_reader_there_is_none_to_keep_still():
    model = RewardModel(network(), reads_surprise=False)
    assert model.reader is None and modes(model.train()) == {True} and modes(model.eval()) == {False}


# --- noise where nobody trains ---


def test_the_reference_of_dpo_is_read_without_dropout():
    histories = []
    for mode in (True, False):
        options = {"reference": network(2).train(mode)}
        histories.append(preferring(**options)[1]())
        assert modes(options["reference"]) == {False}
    assert histories[0] == histories[1]


def test_scores_have_no_dropout():
    model = RewardModel(network())
    scores = [model.train(mode).score("Hello.", "Yes!") for mode in (True, True, False)]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("training", [True, False])
def test_an_end_in_the_middle_of_sampling_leaves_the_mode(ending, training, monkeypatch):
    model = network().train(training)
    before, head = copy.deepcopy(model), model.head

    def stopped(states):
        assert modes(model) == {False}
        raise ending

    monkeypatch.setattr(model, "head", stopped)
    for sample in (
        lambda: generate(model, [[1, 2]], max_new_tokens=3),
        lambda: roll_out(model, PROMPTS, length, max_new_tokens=3),
    ):
        with pytest.raises(ending):
            sample()
        assert modes(model) == {training}
    monkeypatch.setattr(model, "head", head)
    assert same_parameters(model, before) and torch.is_grad_enabled()
