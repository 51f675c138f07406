import re

import dependencies


def test_the_page_names_what_is_asked_for() -> None:
    rows = re.findall(
        r"^\| \[(\S+)\]\(https://pypi\.org/project/\1/\) \| (?:the extra `(\w+)`)? \| (.+) \|$",
        dependencies.PAGE.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert {name: extra for name, extra, _ in rows} == dependencies.asked_for()
    assert all(licence and licence != "not stated" for *_, licence in rows)
