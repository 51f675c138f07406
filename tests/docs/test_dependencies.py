import re

import dependencies


def test_dependencies_page_lists_all_dependencies() -> None:
    rows = re.findall(
        r"^\| \[(\S+)\]\(https://pypi\.org/project/\1/\) \| (?:the extra `(\w+)`)? \| (.+) \|$",
        dependencies.PAGE.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert {name: extra for name, extra, _ in rows} == dependencies.asked_for()
    assert all(licence and licence != "not stated" for *_, licence in rows)
