from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.profiles import load_profile, plugins, profile_names
from benchmark.resolve import resolve
from benchmark.verdict import metric_paths

OWN = "name: own\nversion: 1\nscenario: closed_loop\nengine: sequential\ndataset: curated\nsamples: 5\n"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_comes_along_is_sound(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert bool(profile.limits) is profile.loads_model
    assert {limit.metric for limit in profile.limits} <= set(metric_paths())


def test_quick_is_what_the_documentation_says() -> None:
    profile = load_profile("quick")
    assert (profile.samples, profile.scenario, profile.kind) == (20, "closed_loop", "health-check")
    generation = profile.generation
    assert (generation.max_new_tokens, generation.min_new_tokens, generation.temperature) == (64, 64, 0.7)


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    assert load_profile(str(path)).samples == 5


def test_off_is_not_false(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "accuracy: off\n")
    assert load_profile(str(path)).accuracy == resolve({"benchmark_accuracy": False}).profile.accuracy == "off"


def test_plugins_are_the_files_that_are_there() -> None:
    assert {"sequential", "simulated"} <= set(plugins("engines"))
    assert "closed_loop" in plugins("scenarios")
    assert "curated" in plugins("datasets")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not YAML"),
        ("- 1\n", "own.yaml is [1]: it must be a mapping"),
        (OWN.replace("samples: 5", "samples: 0"), "samples is 0: it must be at least 1."),
        (OWN.replace("sequential", "vlln"), "engine is 'vlln': there is no such engine: did you mean vllm? Engines:"),
        (OWN.replace("curated", "pile"), "dataset is 'pile': there is no such dataset. Datasets:"),
        (OWN + "sample: 3\n", "own.yaml: sample is not a field: did you mean samples? Known: name, version,"),
        (OWN + "fallback_engine: vllm\n", "fallback_engine is 'vllm': it must be"),
        (OWN + "limits: [{metric: qps}]\n", "limits.0: give exactly one of"),
        (OWN + "generation: {max_new_tokens: 4, min_new_tokens: 5}\n", "min_new_tokens is above"),
        (OWN + "generation: {temperature: .nan}\n", "generation.temperature is not a finite number: it must be"),
        (OWN + "generation: {max_token: 4}\n", "generation.max_token is not a field: did you mean generation.max_new_"),
        (OWN + "temperature: 0\n", "temperature is not a field: did you mean generation.temperature?"),
        (
            OWN + "limits: [{metrik: qps, at_least: 1}]\n",
            "limits.0.metrik is not a field: did you mean limits.0.metric?",
        ),
        (OWN + "accuracy: with-performence\n", "must be off, with-performance or only: did you mean with-performance?"),
        (OWN.replace("engine: sequential\n", ""), "own.yaml: engine is missing."),
    ],
)
def test_a_bad_profile_is_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_profile(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_profile_and_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'quack', which is not a profile: did you mean quick.*Profiles: .*quick"):
        load_profile("quack")
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        load_profile(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("names", "rouge", "characters"),
    [
        (
            ["mlperf-server", "mlperf-interactive", "mlperf-offline", "mlperf-singlestream"],
            [38.7792, 15.9075, 24.4957, 35.793],
            8167644,
        ),
        (["mlperf-edge-singlestream", "mlperf-edge-offline"], [39.06, 16.1147, 24.6375, 36.124], 3051113),
    ],
)
def test_accuracy_limits_are_99_percent_of_the_reference(names: list[str], rouge: list[float], characters: int) -> None:
    for name in names:
        limits = load_profile(name).accuracy_limits
        least = [limit.at_least for limit in limits if limit.metric.startswith("rouge")]
        assert least == pytest.approx([0.99 * each for each in rouge], rel=1e-12)
        length = [(limit.at_least, limit.at_most) for limit in limits if limit.metric == "generated_characters"]
        assert length == [(pytest.approx(0.9 * characters), None), (None, pytest.approx(1.1 * characters))]


def test_the_edge_benchmark_has_5000_articles_and_two_scenarios() -> None:
    for name, scenario in (("mlperf-edge-singlestream", "SingleStream"), ("mlperf-edge-offline", "Offline")):
        profile = load_profile(name)
        assert profile.scenario_options == {"scenario": scenario, "model": "llama3_1-8b-edge"}
        assert (profile.dataset, profile.dataset_options, profile.min_prompts) == (
            "cnn_dailymail",
            {"edge": True},
            5000,
        )
