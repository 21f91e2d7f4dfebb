"""What must hold of every algorithm alike: any model and tokenizer, any prompt that fits, equal rewards."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import default_dtype, same_parameters
from foreign import (
    ALGORITHMS,
    CONFIG,
    DEMONSTRATIONS,
    FOREIGN,
    PAIRS,
    PROMPTS,
    REWARD_MODELS,
    WORDS,
    count_words,
    everything,
    speaker,
)
from hypothesis import given
from hypothesis import strategies as st

from minialign import dpo, policy_gradient, ppo, pretraining, reward_model, sft
from minialign.best_of_n import best_of_n
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.language_model import LanguageModel
from minialign.logprobs import sequence_log_probs
from minialign.policy_gradient import PolicyGradientConfig
from minialign.ppo import Critic, PPOConfig
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.rollouts import roll_out
from minialign.sampling import generate
from minialign.sft import SFTConfig
from minialign.training import History

# --- another tokenizer, another template, other special tokens ---


@pytest.fixture
def foreign(monkeypatch):
    """Such a model, in a process where nobody can reach the course's tokenizer."""

    def forbidden():
        raise AssertionError("an algorithm asked for the course's tokenizer")

    for module in ("tokenizer", "chat"):
        monkeypatch.setattr(f"minialign.{module}.load_tokenizer", forbidden)
    for module in ("chat", "gpt"):
        monkeypatch.setattr(f"minialign.{module}.load_chat", forbidden)
    return speaker()


def test_every_algorithm_trains_a_model_with_another_tokenizer(foreign):
    found = everything(foreign)
    assert found.keys() == ALGORITHMS
    for name, (model, history) in found.items():
        assert len(history) == 1 and math.isfinite(history[0]["loss"]), name
        before = RewardModel(foreign, **REWARD_MODELS[name]) if name in REWARD_MODELS else foreign
        assert not same_parameters(model, before), f"{name} changed nothing"


def test_generation_stops_at_the_models_own_end(foreign):
    generated = generate(
        foreign, [FOREIGN.encode_prompt(prompt) for prompt in PROMPTS], n=20, max_new_tokens=12
    )
    assert generated.finished.any() and not generated.finished.all()
    rows = [ids[mask].tolist() for ids, mask in zip(generated.batch.ids, generated.batch.response_mask)]
    for row, done, text in zip(rows, generated.finished.tolist(), generated.texts):
        assert (row[-1] == FOREIGN.end) == done and FOREIGN.end not in row[:-1] and FOREIGN.pad not in row
        assert text == FOREIGN.decode(row[: len(row) - done])
    assert (generated.batch.ids[~generated.batch.mask] == FOREIGN.pad).all()


def test_the_template_is_the_models_own(foreign):
    """Prompt, response and end as FOREIGN has them, in what is sampled, scored and learned from."""
    batch = FOREIGN.collate([("why", "yes")])
    assert batch.ids.tolist() == [[3, 4, 24, 5, 6, 3, 20, 9]] and batch.response_mask.sum() == 2
    assert LanguageModel(foreign).log_prob("why", "yes") == pytest.approx(
        float(sequence_log_probs(foreign, batch).detach())
    )
    rollout = roll_out(foreign, ["why"], count_words, n=2, max_new_tokens=4)
    assert rollout.batch.ids[0, :6].tolist() == [3, 4, 24, 5, 6, 3]
    judge = RewardModel(foreign)
    assert judge.score("why", "yes") == pytest.approx(float(judge(batch).detach()), abs=1e-5)


def test_padding_that_ends_responses_is_refused():
    with pytest.raises(ValueError, match="the token 9 is both padding and the end of a response"):
        replace(FOREIGN, pad=9)


def test_a_copy_of_a_model_speaks_as_the_model_does(foreign):
    assert copy.deepcopy(foreign).chat is foreign.chat is FOREIGN


# --- a neighbour in the batch changes nothing ---

LIMIT = CONFIG.context - 6  # words of a prompt that leaves room for one token, and the template's five


@given(st.lists(st.integers(1, LIMIT), min_size=1, max_size=6), st.integers(1, 30))
def test_any_list_is_answered_as_its_prompts_are(lengths, room):
    model = speaker(seed=3)
    prompts = [
        " ".join(WORDS[(i + k) % len(WORDS)] for i in range(length)) for k, length in enumerate(lengths)
    ]
    asked = LanguageModel(model)
    alone = [asked.respond(prompt, max_new_tokens=room) for prompt in prompts]
    assert asked.respond(prompts, max_new_tokens=room) == alone


def test_every_row_gets_the_room_it_would_have_alone(foreign):
    long, short = [20] * (CONFIG.context - 1), [20]
    generated = generate(foreign, [long, short], max_new_tokens=100, ends=())
    assert generated.batch.response_mask.sum(-1).tolist() == [1, CONFIG.context - 1]
    assert generated.batch.mask.sum(-1).tolist() == [CONFIG.context] * 2


@pytest.mark.parametrize("free", [1, 2, 5])
def test_a_prompt_that_nearly_fills_the_context(foreign, free):
    """It is answered, scored by a reward model and learned from like any other, beside a short one."""
    prompts = ["why", " ".join(["so"] * (CONFIG.context - 5 - free))]
    judge = RewardModel(foreign)
    small = dict(steps=2, prompts_per_step=2, samples_per_prompt=4, max_new_tokens=50)
    ppo.train(copy.deepcopy(foreign), prompts, judge.score, PPOConfig(**small))
    policy_gradient.train(copy.deepcopy(foreign), prompts, judge.score, PolicyGradientConfig(**small))
    dpo.train_online(copy.deepcopy(foreign), prompts, judge.score, OnlineDPOConfig(**small))
    best = best_of_n(foreign, prompts, judge.score, 4)
    assert np.isfinite(best.rewards).all()
    rollout = roll_out(foreign, prompts, judge.score, n=16, max_new_tokens=50)
    lengths = rollout.batch.response_mask.sum(-1)
    assert lengths[16:].max() <= free and (lengths[:16].max() > 5)
    cut = [i for i in range(16, 32) if not rollout.finished[i]]
    assert cut, "nothing was cut off: the test tests nothing"
    for i in cut:  # the score of what was cut off is that of its tokens, without an end that has no room
        row = rollout.batch[[i]]
        assert float(rollout.rewards[i]) == pytest.approx(float(judge(row).detach()), abs=1e-4)


def test_a_response_that_is_much_too_long_is_refused(foreign):
    judge = RewardModel(foreign)
    with pytest.raises(
        ValueError, match="the prompt 'why' and its response have 67 tokens, .* holds 24: shorten"
    ):
        judge.score("why", "so " * 60)
    with pytest.raises(ValueError, match="shorten the prompt"):
        judge.score("so " * 30, "yes")


# --- equal rewards teach nothing ---

CONSTANTS = (0.1, 0.7, -1.7, 1 / 3, 1e-3, 1e4, -1e-7, 0.0)


@pytest.mark.parametrize("constant", CONSTANTS)
def test_equal_rewards_leave_the_policy_bit_for_bit_as_it_was(foreign, constant):
    def same_for_all(prompts, responses):
        return [constant] * len(responses)

    small = dict(steps=3, prompts_per_step=3, max_new_tokens=8, warmup=0, weight_decay=0.0)
    for k in (2, 3, 7):
        policy = copy.deepcopy(foreign)
        policy_gradient.train(
            policy, PROMPTS, same_for_all, PolicyGradientConfig(**small, samples_per_prompt=k)
        )
        assert same_parameters(policy, foreign), f"REINFORCE, {k} samples"
    policy = copy.deepcopy(foreign)
    config = OnlineDPOConfig(**small, samples_per_prompt=4, missing_end_penalty=0.0)
    dpo.train_online(policy, PROMPTS, same_for_all, config)
    assert same_parameters(policy, foreign), "online DPO"
    # PPO with λ = 1 and a critic of its own, which learns the constant: no answer is better than another.
    policy = copy.deepcopy(foreign)
    config = PPOConfig(
        **small, samples_per_prompt=4, lam=1.0, missing_end_penalty=0.0, epochs=1, minibatches=1
    )
    ppo.train(policy, PROMPTS, same_for_all, replace(config, steps=1), critic=Critic(copy.deepcopy(foreign)))
    assert same_parameters(policy, foreign), "PPO"


# --- what plays one part cannot play another ---


def test_a_reference_that_is_the_policy_is_refused(foreign):
    with pytest.raises(ValueError, match="the reference is the model that is trained.*copy.deepcopy"):
        ppo.train(foreign, PROMPTS, count_words, reference=foreign)
    with pytest.raises(ValueError, match="the reference is the model that is trained"):
        dpo.train(foreign, PAIRS, reference=foreign)
    with pytest.raises(ValueError, match="the reference is the model that is trained"):
        dpo.train_online(foreign, PROMPTS, count_words, reference=LanguageModel(foreign))


def test_a_reference_that_shares_some_weights_is_refused(foreign):
    shares = copy.deepcopy(foreign)
    shares.token_embedding = foreign.token_embedding
    with pytest.raises(ValueError, match="shares its weights"):
        ppo.train(foreign, PROMPTS, count_words, reference=shares)
    foreign.token_embedding.requires_grad_(False)  # frozen weights may be shared: they do not change
    require = PPOConfig(steps=1, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4)
    ppo.train(foreign, PROMPTS, count_words, require, reference=shares)


def test_a_critic_that_is_the_reference_or_no_critic_is_refused(foreign):
    reference = copy.deepcopy(foreign)
    with pytest.raises(ValueError, match="the reference is the model that is trained"):
        ppo.train(foreign, PROMPTS, count_words, reference=reference, critic=Critic(reference))
    with pytest.raises(TypeError, match=r"the critic is GPT: give ppo.Critic\(model\), or leave it out"):
        ppo.train(foreign, PROMPTS, count_words, critic=foreign)


def test_a_reward_model_that_reads_with_the_policy_is_refused(foreign):
    judge = RewardModel(foreign)
    judge.trunk = foreign
    for reward in (judge, judge.score):
        with pytest.raises(ValueError, match="the reward is the model that is trained"):
            ppo.train(foreign, PROMPTS, reward)
        with pytest.raises(ValueError, match="the reward is the model that is trained"):
            policy_gradient.train(foreign, PROMPTS, reward)
        with pytest.raises(ValueError, match="the reward is the model that is trained"):
            dpo.train_online(foreign, PROMPTS, reward)


def test_a_reader_that_is_the_trunk_is_refused(foreign):
    judge = RewardModel(foreign, reads_surprise=True)
    judge.reader = judge.trunk
    with pytest.raises(ValueError, match="the reader is the model that is trained"):
        reward_model.train(judge, PAIRS)


# --- what a user tries first ---


def test_what_load_gives_can_be_trained(foreign):
    """A LanguageModel for a network, a reward model for a function, dicts for pairs."""
    small = dict(steps=1, prompts_per_step=2)
    dicts = [vars(pair) for pair in PAIRS]
    asked, judge = LanguageModel(copy.deepcopy(foreign)), RewardModel(LanguageModel(foreign))
    dpo.train(asked, dicts, DPOConfig(**small), reference=LanguageModel(foreign))
    reward_model.train(judge, dicts, RewardModelConfig(**small))
    sampling = dict(small, samples_per_prompt=2, max_new_tokens=6)
    ppo.train(asked, PROMPTS, judge, PPOConfig(**sampling), reference=LanguageModel(foreign))
    policy_gradient.train(asked, PROMPTS, judge, PolicyGradientConfig(**sampling))
    dpo.train_online(asked, PROMPTS, judge, OnlineDPOConfig(**sampling))
    assert np.isfinite(best_of_n(asked, PROMPTS, judge, 2, max_new_tokens=6).rewards).all()
    demonstrations = [{"prompt": x, "response": y} for x, y in DEMONSTRATIONS]
    demonstrations += [{"prompt": x, "completion": y} for x, y in DEMONSTRATIONS]
    sft.train(asked, demonstrations, SFTConfig(steps=1))
    assert not same_parameters(asked.model, foreign)


def test_a_single_prompt_may_come_as_it_is(foreign):
    """And is not taken for a list of characters."""
    small = dict(steps=1, samples_per_prompt=2, max_new_tokens=4)
    asked = []

    def reward(prompts, responses):
        asked.extend(prompts)
        return count_words(prompts, responses)

    ppo.train(copy.deepcopy(foreign), "why", reward, PPOConfig(**small))
    policy_gradient.train(copy.deepcopy(foreign), "why", reward, PolicyGradientConfig(**small))
    dpo.train_online(copy.deepcopy(foreign), "why", reward, OnlineDPOConfig(**small))
    assert len(best_of_n(foreign, "why", reward, 3, max_new_tokens=4).responses) == 1
    assert roll_out(foreign, "why", reward, n=2, max_new_tokens=4).prompts == ["why"] * 2
    assert set(asked) == {"why"}


def test_a_base_model_becomes_an_assistant(foreign):
    base = LanguageModel(foreign, template=False)
    sft.train(base, DEMONSTRATIONS, SFTConfig(steps=1))
    assert base.template, "what was fine-tuned in the template is asked in it"


@pytest.mark.parametrize("wrong", ["sft", None, 3, torch.nn.Linear(2, 2), torch.zeros(2)])
def test_no_model_at_all(foreign, wrong):
    attempts = [
        lambda: dpo.train(wrong, PAIRS),
        lambda: dpo.train_online(wrong, PROMPTS, count_words),
        lambda: ppo.train(wrong, PROMPTS, count_words),
        lambda: policy_gradient.train(wrong, PROMPTS, count_words),
        lambda: sft.train(wrong, DEMONSTRATIONS),
        lambda: pretraining.train(wrong, PROMPTS),
        lambda: RewardModel(wrong),
        lambda: generate(wrong, [[1]]),
        lambda: roll_out(wrong, PROMPTS, count_words),
        lambda: ppo.train(foreign, PROMPTS, count_words, reference="none" if wrong is None else wrong),
    ]
    for attempt in attempts:
        with pytest.raises(
            TypeError, match="a language model is wanted here, not .*: give a GPT, or what"
        ) as error:
            attempt()
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match=r"a reward model is trained here, not .*: give RewardModel\(model\)"):
        reward_model.train(wrong, PAIRS)


@pytest.mark.parametrize(
    "wrong",
    ["why", ("why",), ("why", "yes", "no"), {"prompt": "why"}, {"prompt": "why", "response": 3}, None, 5],
)
def test_demonstrations_of_another_form(foreign, wrong):
    with pytest.raises(
        TypeError, match=r"^demonstration 1 is .*: give \(prompt, response\) texts, or a dict"
    ):
        sft.train(foreign, [DEMONSTRATIONS[0], wrong])


# --- numbers that are none, gradients that are off, another default ---


def poisoned(model, value):
    with torch.no_grad():
        model.ln_f.weight[0] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_diverged_model_says_so(foreign, value, temperature):
    for training in (True, False):
        model = poisoned(foreign, value).train(training)
        with pytest.raises(
            FloatingPointError, match="the model's logits are not finite: its weights have diverged"
        ):
            LanguageModel(model).respond("why", temperature=temperature)
        assert model.training == training, "and it is left in the mode it was in"
    with pytest.raises(FloatingPointError, match="the model's log-probabilities are not finite"):
        LanguageModel(foreign).log_prob("why", "yes")
    with pytest.raises(FloatingPointError, match="the model's scores are not finite"):
        RewardModel(foreign, reads_surprise=False).score("why", "yes")


@pytest.mark.parametrize("temperature", [math.inf, math.nan, 1e-38, 1e-7, 1e5, -0.5])
def test_extreme_temperatures(foreign, temperature):
    with pytest.raises(
        ValueError, match="the temperature is .*: probabilities need one from 1e-06 to 10,000"
    ):
        LanguageModel(foreign).respond("why", temperature=temperature)
    with pytest.raises(ValueError, match="the temperature is "):
        sequence_log_probs(foreign, FOREIGN.collate([("why", "yes")]), temperature)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e4])
def test_temperatures_at_the_edge_still_give_probabilities(foreign, temperature):
    generated = generate(foreign, [[20]], n=8, max_new_tokens=4, temperature=temperature)
    assert generated.log_probs.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_another_default_dtype(foreign, dtype):
    """The default decides what is made anew, and stops nobody."""
    with default_dtype(dtype):
        everything(foreign)
        LanguageModel(foreign).respond(PROMPTS, temperature=1.0)
        RewardModel(foreign).score("why", "yes")


def test_a_model_in_double_precision(foreign):
    """For a check by finite differences: what is computed from float64 weights has float64's precision."""
    double = copy.deepcopy(foreign).double()
    everything(double)
    batch = FOREIGN.collate(DEMONSTRATIONS)
    for loss in (
        lambda: sft.sft_loss(double(batch.ids, batch.mask), batch.ids, batch.response_mask),
        lambda: pretraining.pretraining_loss(double(batch.ids)[:, :-1], batch.ids[:, 1:]),
        lambda: sequence_log_probs(double, batch).mean(),
    ):
        double.zero_grad()
        loss().backward()
        weight, h = double.ln_f.weight, 1e-6
        slope, values = weight.grad[2].item(), []
        for shift in (h, -2 * h):
            with torch.no_grad():
                weight[2] += shift
                values.append(loss().item())
        with torch.no_grad():
            weight[2] += h
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_gradients_switched_off(foreign, off):
    def attempt(name, train, *arguments):
        with off(), pytest.raises(RuntimeError, match="gradients are switched off here: .* train again"):
            train(*arguments)
        torch.set_grad_enabled(True)

    small = dict(steps=1, prompts_per_step=2)
    sampling = dict(small, samples_per_prompt=2, max_new_tokens=4)
    attempt("sft", sft.train, copy.deepcopy(foreign), DEMONSTRATIONS, SFTConfig(steps=1))
    attempt("reward", reward_model.train, RewardModel(foreign), PAIRS, RewardModelConfig(**small))
    attempt("dpo", dpo.train, copy.deepcopy(foreign), PAIRS, DPOConfig(**small))
    attempt("ppo", ppo.train, copy.deepcopy(foreign), PROMPTS, count_words, PPOConfig(**sampling))
    config = PolicyGradientConfig(**sampling)
    attempt("pg", policy_gradient.train, copy.deepcopy(foreign), PROMPTS, count_words, config)
    config = OnlineDPOConfig(**sampling)
    attempt("online", dpo.train_online, copy.deepcopy(foreign), PROMPTS, count_words, config)


def test_what_on_step_records_may_be_numpys_or_torchs(foreign, tmp_path):
    """Recorded, written as JSON, and saved in the middle of a run that goes on from there."""

    def record(metrics):
        metrics |= {"a": np.float32(1.5), "b": np.int64(2), "c": torch.tensor(2.5), "d": np.array([1, 2])}
        metrics |= {"e": torch.ones(2, requires_grad=True), "f": np.bool_(True)}

    state = tmp_path / "run.state"
    options = dict(on_step=record, resume_from=state, save_every=1)
    history = sft.train(foreign, DEMONSTRATIONS, SFTConfig(steps=2), **options)
    again = History.from_json_lines(history.to_json_lines())
    assert [again[1][name] for name in "abcdef"] == [1.5, 2, 2.5, [1, 2], [1.0, 1.0], True]
    longer = sft.train(foreign, DEMONSTRATIONS, SFTConfig(steps=3), **options)
    assert len(longer) == 3
    with pytest.raises(
        TypeError, match="cannot be recorded: a history holds numbers, texts, and lists of them"
    ):
        History([{"a": object()}]).to_json_lines()


# --- chance ---


@pytest.mark.parametrize(
    ("train", "kind"),
    [
        (policy_gradient.train, PolicyGradientConfig),
        (ppo.train, PPOConfig),
        (dpo.train_online, OnlineDPOConfig),
    ],
)
def test_every_step_and_every_seed_draws_other_responses(foreign, train, kind):
    """To the same prompt, of a policy that hardly changes."""

    def drawn(seed):
        steps = []

        def reward(prompts, responses):
            steps.append(responses)
            return count_words(prompts, responses)

        config = dict(steps=3, learning_rate=1e-9, samples_per_prompt=8, max_new_tokens=8, seed=seed)
        train(copy.deepcopy(foreign), ["why"], reward, kind(**config))
        return steps

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first == again and len({tuple(step) for step in first + other}) == 6


def test_the_global_random_state_stays_put(foreign):
    """A reader's own random numbers do not depend on what was trained before."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    everything(foreign)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
