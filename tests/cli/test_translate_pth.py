"""``cyclegan translate`` with checkpoints of the original implementation."""

import pytest
import torch
from PIL import Image

from original import original_generator

pytestmark = pytest.mark.cpu_features


@pytest.mark.parametrize(
    ("file", "options", "output"),
    [
        ("latest_net_G_A.pth", [], "photo_B.png"),
        ("latest_net_G_B.pth", [], "photo_A.png"),
        ("latest_net_G_B.pth", ["--domains", "day, night"], "photo_day.png"),
        ("horse2zebra.pth", ["--to", "zebra"], "photo_zebra.png"),
    ],
)
def test_translate_with_a_pth_file(cyclegan, tmp_path, draw, file, options, output):
    photo, checkpoint = draw(tmp_path / "photo.png"), tmp_path / file
    torch.save(original_generator().state_dict(), checkpoint)
    answer = cyclegan("translate", photo, "--checkpoint", checkpoint, *options)
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / output) as translated:
        assert translated.size == (13, 10)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--direction", "b2a"], 4, "this checkpoint translates A to B (a2b) only"),
        (["--to", "A"], 4, "this checkpoint translates A to B (a2b) only"),
        (["--to", "night"], 2, "--to night: the domains of this checkpoint are 'A' and 'B'"),
        (["--domains", "day"], 2, "--domains day: expected two different names"),
        (["--domains", "day,day"], 2, "--domains day,day: expected two different names"),
        (["--domains", "../day,night"], 2, "--domains ../day,night: expected two different names"),
    ],
)
def test_invalid_options_for_a_pth_file_are_refused(
    cyclegan, tmp_path, draw, options, code, message
):
    photo, checkpoint = draw(tmp_path / "photo.png"), tmp_path / "latest_net_G_A.pth"
    torch.save(original_generator().state_dict(), checkpoint)
    answer = cyclegan("translate", photo, "--checkpoint", checkpoint, *options)
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.errors[0]
