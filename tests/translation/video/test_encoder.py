"""Decoding times, and how videos are encoded by their properties."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.video.encoder import SegmentEncoder, choose_format
from cyclegan_cli.translation.video.muxer import decoding_times
from cyclegan_cli.translation.video.reader import VideoInfo
from cyclegan_cli.translation.video.threads import Consumer, Prefetcher


@given(st.lists(st.integers(-1000, 1000), unique=True, max_size=30))
def test_decoding_times_increase_and_are_not_late(pts):
    found = decoding_times(pts)
    assert len(found) == len(pts)
    assert all(early < late for early, late in pairwise(found))
    assert all(decoding <= shown for decoding, shown in zip(found, pts, strict=True))


def test_decoding_times_without_reordering_are_presentation_times():
    assert decoding_times([0, 40, 95, 100]) == [0, 40, 95, 100]


def info(width=48, height=32, bits=8):
    return VideoInfo(width, height, bits, Fraction(1, 1000), Fraction(25))


@pytest.mark.parametrize(
    ("codec", "found", "pixel_format", "remark"),
    [
        ("h264", info(), "yuv420p", ""),
        ("h264", info(47), "yuv444p", "4:4:4"),
        ("hevc", info(48, 31, 10), "yuv444p10le", "4:4:4"),
        ("av1", info(bits=12), "yuv420p10le", ""),
        ("ffv1", info(bits=12), "gbrp12le", ""),
        ("ffv1", info(), "bgr0", ""),
        ("prores", info(), "yuv422p10le", ""),
    ],
)
def test_pixel_formats(codec, found, pixel_format, remark):
    chosen = choose_format(found, codec, None)
    assert chosen.pixel_format == pixel_format
    assert remark in "".join(chosen.remarks)


def test_refused_sizes():
    for codec, size in (("hevc", (48, 64)), ("h264", (2**15, 4))):
        with pytest.raises(DataError, match=f"{codec} cannot encode a video of {size[0]}x"):
            SegmentEncoder(choose_format(info(*size), codec, None))


def test_errors_of_threads_are_raised_where_they_are_used():
    def items():
        yield 1
        raise KeyError("source")

    prefetcher = Prefetcher(items(), 2)
    with pytest.raises(KeyError, match="source"):
        list(prefetcher)
    prefetcher.close()

    def fail(_item):
        raise KeyError("sink")

    consumer = Consumer(fail, 2)
    with pytest.raises(KeyError, match="sink"):
        for index in range(10):
            consumer.put(index)
            if index == 9:
                consumer.finish()
    consumer.abandon()


def test_prefetcher_stops_without_being_consumed():
    prefetcher = Prefetcher(iter(range(10**9)), 2)
    assert next(iter(prefetcher)) == 0
    prefetcher.close()
