"""The documents and the operating files tell the truth about the code, as far as a machine can see."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from server import cli
from server.formats import FORMATS
from server.metrics import Metrics

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@cache
def pinned_versions() -> dict[str, Version]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(version) for name, version in pins}


def consoles(document: Path) -> str:
    """What a document tells people to type, and what it names between backticks."""
    text = document.read_text()
    typed = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return "\n".join([*typed, *re.findall(r"`([^`\n]+)`", text)])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_inside_the_repository_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_documents_name_only_make_targets_and_commands_that_exist(document: Path):
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    typed = consoles(document)
    assert set(re.findall(r"(?:^|[\s/])make ([a-z-]+)", typed)) <= targets
    assert set(re.findall(r"(?:^|[\s/])hark ([a-z][a-z-]*)", typed)) <= commands


def test_every_command_is_documented():
    documented = consoles(ROOT / "docs" / "command-line.md")
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"hark {name}" in documented, f"docs/command-line.md does not name `hark {name}`"


def test_the_readme_starts_with_two_commands_and_one_curl():
    typed = re.findall(r"^\$ (\S+ \S+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert typed[:3] == ["make serve", "make test", "curl -F"]


def test_every_document_is_reached_from_the_readme():
    reached = set(re.findall(r"docs/[\w-]+\.md", (ROOT / "README.md").read_text()))
    reached |= {f"docs/{name}" for doc in DOCUMENTS for name in re.findall(r"\]\(([\w-]+\.md)", doc.read_text())}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= reached


def test_every_format_is_documented():
    serving = (ROOT / "docs" / "serving.md").read_text()
    assert all(f"| `{name}` |" in serving for name in FORMATS)
    assert [member.value for member in cli.OutputFormat] == ["table", *FORMATS]


def test_the_changelog_has_this_version():
    assert f"\n## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_constraints_pin_every_dependency_that_installs_without_a_gpu():
    extras = project()["optional-dependencies"]
    wanted = [Requirement(line) for line in project()["dependencies"]]
    wanted += [Requirement(line) for extra in extras.keys() - {"gpu"} for line in extras[extra]]
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert pinned_versions()[name] in requirement.specifier, f"{name} is pinned outside {requirement.specifier}"
    assert pinned_versions()["torch"] == Version("2.13.0")


def test_alerts_name_only_metrics_that_exist():
    served = set(re.findall(r"# TYPE (\S+)", Metrics().render().decode()))
    rules = yaml.safe_load((ROOT / "docs" / "operations" / "alerts.yml").read_text())["groups"][0]["rules"]
    named = {name for rule in rules for name in re.findall(r"\bhark_\w+", rule["expr"])}
    assert named
    assert named <= served


def test_compose_uses_files_targets_and_settings_that_exist():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {"cpu", "gpu"} <= targets
    services = compose["services"]
    assert {service["build"]["target"] for service in services.values() if "build" in service} == {"cpu", "gpu"}
    for mount in services["prometheus"]["volumes"]:
        source = mount.split(":")[0]
        assert source in compose["volumes"] or (ROOT / source).is_file()
    documented = (ROOT / "docs" / "configuration.md").read_text()
    assert all(f"`{name}`" in documented for name in services["hark"]["environment"])


def test_images_run_without_rights_and_check_their_health():
    final_stages = [stage for stage in (ROOT / "Dockerfile").read_text().split("\nFROM ") if "ENTRYPOINT" in stage]
    assert len(final_stages) == 2
    assert all("USER hark" in stage and "HEALTHCHECK" in stage and "VOLUME" in stage for stage in final_stages)


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda script: script.name)
def test_scripts_parse_and_can_be_run(script: Path):
    if script.suffix:
        return
    shell = script.read_text().splitlines()[0].split()[-1].rpartition("/")[2]
    assert subprocess.run([shell, "-n", script], capture_output=True).returncode == 0
    assert script.stat().st_mode & 0o111
