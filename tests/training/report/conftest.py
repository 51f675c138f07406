import pytest

from run_folders import make_plan


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path)
