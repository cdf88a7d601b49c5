"""docs/profiles.md says how a profile is written: every field with its meaning, and an example that is one."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from benchmark.option_models import DATASET_OPTIONS, ENGINE_OPTIONS, SCENARIO_OPTIONS
from benchmark.profiles import Generation, Limit, Profile
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve
from tools.generate import CHECKOUT

PAGE = (CHECKOUT / "docs" / "profiles.md").read_text()
OPTIONS = [*ENGINE_OPTIONS.values(), *SCENARIO_OPTIONS.values(), *DATASET_OPTIONS.values()]
OPTIONS += [engine.options for engine in ENGINES.values()]


@pytest.mark.parametrize("model", [Profile, Generation, Limit, *filter(None, OPTIONS)])
def test_every_field_is_there_with_its_meaning(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert re.search(rf"^\| `{name}` \| .+ \| .* \| {re.escape(field.description)} \|$", PAGE, re.MULTILINE), name


def test_the_examples_are_profiles(tmp_path: Path) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = {}
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example)
        settings = {"benchmark_endpoint_urls": ["http://127.0.0.1:8000"], "benchmark_dataset_path": "/data/trace.jsonl"}
        asked = settings if "engine: endpoint" in example else {}
        profile = resolve({"benchmark_profile": str(path), **asked}).profile
        found[profile.name] = profile
    assert found["chat"].samples == 200
    assert found["chat-hour"].replays
