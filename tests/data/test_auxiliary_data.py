"""Films, gain maps and depth maps in a photo: left out with a warning, and not pointed to."""

import io
import struct

import pytest
from PIL import Image, features

from cyclegan_cli.data import metadata
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.metadata import strip_auxiliary_xmp
from images import encoded, noise, open_image, round_trip

PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description dc:kept="yes" '
    "{attributes}>{elements}<dc:title>kept too</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
)
DIRECTORY = (
    '<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="Primary"/></rdf:li>'
    '<rdf:li><Container:Item Item:Semantic="{}" Item:Length="12"/></rdf:li></rdf:Seq>'
    "</Container:Directory>"
)
VIDEO, GAIN_MAP, DEPTH = ((metadata.VIDEO,), (metadata.GAIN_MAP,), (metadata.DEPTH_MAP,))


@pytest.mark.parametrize(
    ("attributes", "elements", "remarks"),
    [
        ('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"', "", VIDEO),
        ('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="4122"', "", VIDEO),
        ("Camera:MotionPhoto='1'", DIRECTORY.format("MotionPhoto"), VIDEO),
        ("", "<GCamera:MicroVideoOffset>4122</GCamera:MicroVideoOffset>", VIDEO),
        ("", DIRECTORY.format("MotionPhoto"), VIDEO),
        ('GCamera:MotionPhoto="0"', "", ()),
        ('hdrgm:Version="1.0"', DIRECTORY.format("GainMap"), GAIN_MAP),
        ("", "<hdrgm:Gamma><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></hdrgm:Gamma>", GAIN_MAP),
        ('HDRGainMap:HDRGainMapVersion="65536"', "", GAIN_MAP),
        ('GDepth:Format="RangeInverse" GDepth:Mime="image/png"', "", DEPTH),
        ('xmpNote:HasExtendedXMP="C0FFEE"', "", (metadata.EXTENDED,)),
        ("", "", ()),
    ],
)  # fmt: skip
def test_xmp_references_to_auxiliary_data_are_removed(attributes, elements, remarks):
    packet = PACKET.format(attributes=attributes, elements=elements).encode()
    read, _, output, _ = round_trip(encoded(noise(), "JPEG", xmp=packet), "JPEG")
    assert read.remarks == remarks
    kept = open_image(output).info["xmp"]
    for name in (b"MotionPhoto", b"MicroVideo", b"Directory", b"hdrgm", b"GainMap", b"GDepth",
                 b"HasExtendedXMP"):  # fmt: skip
        assert name not in kept
    assert b'dc:kept="yes"' in kept
    assert b"<dc:title>kept too</dc:title>" in kept


@pytest.mark.parametrize(
    "packet",
    [b"<hdrgm:Version ", b"<Container:Directory>", b"</hdrgm:Version>", b' hdrgm:Version="'],
)
def test_malformed_xmp_is_kept(packet):
    assert strip_auxiliary_xmp(packet)[0] == packet


def with_segment(jpeg: bytes, content: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def test_auxiliary_data_in_jpeg_without_xmp_is_reported():
    jpeg = encoded(noise(), "JPEG")
    film = b"\0\0\0\x18ftypmp42" + bytes(200)
    cases: list[tuple[bytes, tuple[str, ...]]] = [
        (jpeg, ()),
        (jpeg + bytes(16), ()),
        (jpeg + b"garbage", ()),
        (jpeg + film, VIDEO),
        (jpeg + film + b"SEFHSEFT", VIDEO),
        (with_segment(jpeg, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)), GAIN_MAP),
    ]
    for content, remarks in cases:
        assert decode(io.BytesIO(content)).remarks == remarks


def test_gain_map_in_mpo_is_reported():
    stream = io.BytesIO()
    noise().save(stream, "MPO", save_all=True, append_images=[noise(12, 8)])
    assert decode(io.BytesIO(stream.getvalue())).remarks == ()
    # As if the second image's XMP data said so, which Pillow's writer leaves out.
    behind = stream.getvalue() + b'<rdf:Description hdrgm:Version="1.0"/>'
    assert decode(io.BytesIO(behind)).remarks == GAIN_MAP


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_gain_map_in_avif_is_reported():
    avif = encoded(noise(), "AVIF")
    assert decode(io.BytesIO(avif)).remarks == ()
    # Brands and items of one: without the item itself the decoder would refuse it.
    with open_image(avif) as image:
        image.fp = io.BytesIO(avif[:20] + b"tmap" + avif[20:])
        assert metadata.auxiliary_data(image) == GAIN_MAP


def test_heic_gain_map_and_depth_map_are_reported():
    class Stub:
        format = "HEIF"

        def __init__(self, **info):
            self.info = info

    assert metadata.auxiliary_data(Stub(depth_images=[1])) == DEPTH
    aux = {"urn:com:apple:photo:2020:aux:hdrgainmap": [3]}
    assert metadata.auxiliary_data(Stub(aux=aux, depth_images=[])) == GAIN_MAP
    assert metadata.auxiliary_data(Stub()) == ()
    assert metadata.auxiliary_data(Image.new("RGB", (1, 1))) == ()
