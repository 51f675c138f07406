from pathlib import Path

import pytest

from cyclegan_cli.training.plan import Plan
from run_folders import make_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path)
