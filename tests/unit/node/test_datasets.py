from benchmark.node.interfaces import load_dataset
from benchmark.profiles import load_profile, profile_names
from benchmark.settings import Settings


def test_there_are_twenty_curated_prompts_of_varied_tasks() -> None:
    dataset = load_dataset("curated", Settings(), {})
    assert len(dataset.prompts) == len({prompt.id for prompt in dataset.prompts}) == 20
    assert len({prompt.id.split("-")[0] for prompt in dataset.prompts}) >= 6
    assert all(prompt.text.strip() == prompt.text and prompt.text for prompt in dataset.prompts)


def test_every_dataset_has_a_hash_that_depends_on_its_text() -> None:
    assert len(load_dataset("curated", Settings(), {}).sha256) == 64


def test_quick_measures_each_curated_prompt_once() -> None:
    assert load_profile("quick").samples == len(load_dataset("curated", Settings(), {}).prompts)
    assert "quick" in profile_names()
