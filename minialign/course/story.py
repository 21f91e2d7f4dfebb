"""The whole story on one page, from a base model to PPO and DPO: python -m minialign.course.story"""

import copy
from itertools import combinations

from minialign import dpo, load, ppo, reward_model, sft
from minialign.course.experiments.comparisons import labelled
from minialign.world.annotator import typical_annotator
from minialign.world.corpus import build_corpus
from minialign.world.demonstrations import course_demonstrations
from minialign.world.judge import gold_rewards
from minialign.world.prompts import MOON_LANDING, prompts_of, sample_prompts


def story(size: float = 1.0) -> dict[str, float]:
    """From a base model to aligned ones; returns the mean gold reward of each. `size` shortens it all."""

    def few(n: int) -> int:
        return max(1, round(n * size))

    held_out, golds = [p.text for p in sample_prompts("evaluation", few(196), seed=1)], {}

    def show(name: str, model) -> None:
        golds[name] = float(gold_rewards(held_out, model.respond(held_out, temperature=1.0)).mean())
        print(f"\n{name}: gold reward {golds[name]:.2f} on held-out prompts\n  {model.respond(MOON_LANDING)}")

    # 1. A language model, pre-trained on a small world: asked a question, it goes on with more prompts.
    start = load("base")
    show("base", start)

    # 2. Instruction fine-tuning: imitate what people wrote, and repeat what was read, not to forget it.
    sft.introduce_template(start.model)
    demonstrations = [(d.prompt.text, d.response) for d in course_demonstrations(few(10_000))]
    config = sft.SFTConfig(steps=few(400), learning_rate=2e-3, replay_coef=1.0)
    sft.train(start, demonstrations, config, documents=[text for _, text in build_corpus(few(1_000_000))])
    show("SFT", start)

    # 3. People compare answers, two and two.
    prompts, people = [p.text for p in sample_prompts("reward", few(400))], typical_annotator()
    samples, pairs = [start.respond(prompts, temperature=1.0, seed=seed) for seed in range(4)], []
    for prompt, *answers in zip(prompts, *samples):
        pairs += [labelled(prompt, *pair, people) for pair in combinations(dict.fromkeys(answers), 2)]

    # 4. A reward model learns to choose as they do, and PPO to write what it likes.
    reward = reward_model.RewardModel(start, likelihood=True)
    reward_model.train(reward, pairs, reward_model.RewardModelConfig(steps=few(150)))
    reward.normalise(prompts, samples[0])
    policy, asked = copy.deepcopy(start), [p.text for p in prompts_of("policy")]
    ppo.train(policy, asked, reward, ppo.PPOConfig(steps=few(25), critic_warmup=few(5)), reference=start)
    show("PPO", policy)

    # 5. DPO learns from the same comparisons, without a reward model and without sampling.
    policy = copy.deepcopy(start)
    dpo.train(policy, pairs, dpo.DPOConfig(steps=few(60)), reference=start)
    show("DPO", policy)
    return golds


if __name__ == "__main__":
    story()
