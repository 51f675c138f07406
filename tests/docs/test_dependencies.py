import re

import dependencies


def test_dependencies_page_lists_each_package_with_its_licence():
    rows = re.findall(
        r"^\| \[(\S+)\]\(https://pypi\.org/project/\1/\) \| (?:`(\w+)`)? \| (.+?) \|",
        dependencies.PAGE.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert {name: extra for name, extra, _ in rows} == dependencies.asked_for()
    assert all(licence and licence != "not stated" for *_, licence in rows)


def test_cpu_installation_is_documented_and_used_in_the_dockerfile():
    command = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    for page in ("README.md", "docs/dependencies.md"):
        assert command in (dependencies.ROOT / page).read_text(encoding="utf-8")
    dockerfile = (dependencies.ROOT / "Dockerfile").read_text(encoding="utf-8")
    project = (dependencies.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    requirements = re.findall(r'"(torch(?:vision)?[<>=].*?)"', dockerfile)
    assert len(requirements) == 2
    assert all(f'"{requirement}"' in project for requirement in requirements)
