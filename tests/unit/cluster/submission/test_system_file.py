"""system.yml: the template asks, and what is not answered, or not asked for, is refused in a sentence."""

from pathlib import Path

import pytest

from benchmark.cluster.submission.system_file import SystemFile, read_system, write_template
from benchmark.errors import InputError
from tests.unit.cluster.submission.conftest import ANSWERS


def test_the_template_asks_every_question(tmp_path: Path) -> None:
    write_template(tmp_path / "new" / "system.yml")
    text = (tmp_path / "new" / "system.yml").read_text()
    for name, field in SystemFile.model_fields.items():
        assert f"\n{field.alias or name}:\n" in text
        if field.is_required():
            assert f"# {field.description}\n{name}:\n" in text
    with pytest.raises(InputError) as refused:
        read_system(tmp_path / "new" / "system.yml", 1, False)
    needed = [name for name, field in SystemFile.model_fields.items() if field.is_required()]
    assert len(str(refused.value).splitlines()) == len(needed) + 3  # and three of the GPU


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("cooling: air", "coolng: air"), "coolng is not a known field: did you mean cooling?"),
        (("cooling: air", "cooling:"), "cooling has no answer: air, liquid"),
        (("cooling: air", "cooling: '  '"), "cooling has no answer"),
        (("status: rdi", "status: sold"), "status is 'sold': it must be available, preview or rdi."),
        (("node: 2", "node: none"), "host_processors_per_node is 'none': it must be a whole number."),
        (("cooling: air", "cooling: [air]"), "cooling is ['air']: it must be text"),
        (("cooling: air", "cooling: {"), "is not YAML"),
        ((ANSWERS, "- air\n"), "has no answers"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "system.yml"
    path.write_text(ANSWERS.replace(*change))
    with pytest.raises(InputError) as refused:
        read_system(path, 0, False)
    assert said in str(refused.value)


def test_a_gpu_needs_more_answers_unless_the_run_saw_them(tmp_path: Path) -> None:
    path = tmp_path / "system.yml"
    path.write_text(ANSWERS)
    with pytest.raises(InputError) as refused:
        read_system(path, 1, True)
    assert [line.split(": ")[1].split()[0] for line in str(refused.value).splitlines()] == [
        "accelerator_memory_configuration",
        "accelerator_interconnect",
    ]
    path.write_text(ANSWERS + "accelerator_memory_configuration: HBM2\naccelerator_interconnect: N/A\n")
    assert read_system(path, 1, True).accelerator_memory_configuration == "HBM2"


@pytest.mark.parametrize(("name", "directory"), [("A30 (2 sockets) / lab", "A30_2_sockets_lab"), ("서버", "system")])
def test_a_systems_name_becomes_a_directory(tmp_path: Path, name: str, directory: str) -> None:
    path = tmp_path / "system.yml"
    path.write_text(ANSWERS.replace("A server", name), encoding="utf-8")
    assert read_system(path, 0, False).directory == directory
