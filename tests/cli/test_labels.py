"""``cyclegan translate --copy-labels``: labels of the images that were translated."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from pycocotools.coco import COCO

from images import files, noise

VOC = """<?xml version="1.0"?>
<annotation>
  <folder>images</folder>
  <filename>a.png</filename>
  <path>/home/me/a.png</path>
  <size><width>13</width><height>10</height><depth>3</depth></size>
  <object><name>car</name></object>
</annotation>
"""


@pytest.fixture
def labelled(here):
    """``photos`` has a.png, b.jpg and sub/c.png, and ``labels`` a label of each."""
    Path("labels/sub").mkdir(parents=True)
    Path("labels/a.xml").write_text(VOC)
    Path("labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    Path("labels/b.txt").write_text("")
    Image.new("L", (13, 10), 7).save("labels/sub/c.png")
    return here


def coco_of(*names: str) -> dict:
    """A data set with an image and two boxes per name; ids begin at 7."""
    ids = range(7, 7 + len(names))
    return {
        "info": {"year": 2024},
        "categories": [{"id": 1, "name": "car"}],
        "images": [
            {"id": number, "file_name": name, "width": 13, "height": 10}
            for number, name in zip(ids, names, strict=True)
        ],
        "annotations": [
            {"id": 2 * number + box, "image_id": number, "category_id": 1, "area": 4,
             "bbox": [box, 1, 2, 2], "iscrowd": 0}
            for number in ids for box in (0, 1)
        ],
    }  # fmt: skip


def save_coco(path: str, *names: str) -> None:
    Path(path).write_text(json.dumps(coco_of(*names)))


def test_labels_of_each_image_are_copied_by_name(labelled, cyclegan):
    command = ["translate", "photos", "-o", "out", "--copy-labels", "labels"]
    done = cyclegan(*command, "--format", "bmp", "--suffix", "_night", "--json", "--ordered")
    assert done.code == 0, done.err
    assert "warning" not in done.err
    assert files("out/labels") == ["a_night.txt", "a_night.xml", "b_night.txt", "sub/c_night.png"]
    assert done.documents[0]["labels"] == ["out/labels/a_night.txt", "out/labels/a_night.xml"]
    for old, new in (("a.txt", "a_night.txt"), ("sub/c.png", "sub/c_night.png")):
        assert Path("labels", old).read_bytes() == Path("out/labels", new).read_bytes()
    root = ElementTree.parse("out/labels/a_night.xml").getroot()
    assert root.findtext("filename") == "a_night.bmp"
    assert root.findtext("path") == "out/a_night.bmp"
    assert root.findtext("size/width") == "13"
    assert root.findtext("object/name") == "car"


def test_folder_beside_images_and_chosen_folder(labelled, cyclegan):
    command = ["translate", "photos", "--copy-labels", "labels"]
    assert cyclegan(*command, "-o", "new/images").code == 0
    assert files("new/labels") == ["a.txt", "a.xml", "b.txt", "sub/c.png"]
    assert cyclegan(*command, "-o", "out", "--labels-output", "chosen").code == 0
    assert files("chosen") == ["a.txt", "a.xml", "b.txt", "sub/c.png"]


def test_failed_images_get_no_labels_and_skipped_ones_get_missing_labels(labelled, cyclegan):
    save_coco("labels/train.json", "a.png", "b.jpg", "sub/c.png")
    Path("photos/b.jpg").write_bytes(b"no image")
    command = ["translate", "photos", "-o", "out", "--copy-labels", "labels"]
    done = cyclegan(*command)
    assert done.code == 6
    assert files("out/labels") == ["a.txt", "a.xml", "sub/c.png", "train.json"]
    assert "2 of 3 images and 4 of 6 annotations kept" in " ".join(done.err.split())
    # As after a kill between an image and its labels; an edited copy is kept.
    Path("out/labels/a.txt").unlink()
    Path("out/labels/a.xml").write_text("edited")
    noise(13, 10).save("photos/b.jpg")
    done = cyclegan(*command, "--json", "--ordered")
    assert [one["status"] for one in done.documents[:-1]] == ["skipped", "ok", "skipped"]
    assert files("out/labels") == ["a.txt", "a.xml", "b.txt", "sub/c.png", "train.json"]
    assert Path("out/labels/a.xml").read_text() == "edited"
    assert len(COCO("out/labels/train.json").imgs) == 3
    done = cyclegan(*command, "--overwrite")
    assert "the label out/labels/a.xml existed with other contents and was replaced" in (
        " ".join(done.err.split())
    )


def test_coco_loads_in_pycocotools_with_the_names_of_the_outputs(labelled, cyclegan):
    Path("photos/sub/d.png").write_bytes(b"no image")
    names = ("train/a.png", "b.jpg", "photos/sub/c.png", "sub/d.png", "gone.png")
    save_coco("labels/instances.json", *names)
    command = ["translate", "photos", "-o", "out", "--copy-labels", "labels"]
    done = cyclegan(*command, "--format", "bmp", "--suffix", "_n")
    assert done.code == 6
    before, after = COCO("labels/instances.json"), COCO("out/labels/instances.json")
    assert after.getImgIds() == [7, 8, 9]
    shown = {one["id"]: one["file_name"] for one in after.imgs.values()}
    assert shown == {7: "a_n.bmp", 8: "b_n.bmp", 9: "sub/c_n.bmp"}
    for number, name in shown.items():
        with Image.open(Path("out", name)) as image:
            assert image.size == (after.imgs[number]["width"], after.imgs[number]["height"])
        assert after.imgToAnns[number] == before.imgToAnns[number]
    assert after.dataset["info"] == before.dataset["info"]
    assert after.cats == before.cats


def test_ambiguous_names_and_other_json_files(labelled, cyclegan):
    noise(13, 10).save("photos/sub/a.png")
    noise(13, 10).save("photos/c.png")
    save_coco("labels/one.json", "a.png", "x/c.png", "c.png")
    Path("labels/other.json").write_text("[1, 2]")
    done = cyclegan("translate", "photos", "-o", "out", "--copy-labels", "labels")
    assert done.code == 0
    err = " ".join(done.err.split())
    # a.png is in two folders: an equal path is taken. x/c.png ends like c.png alone.
    shown = [one["file_name"] for one in COCO("out/labels/one.json").imgs.values()]
    assert shown == ["a.png", "c.png", "c.png"]
    assert "1 translated images are not in it" in err
    assert not Path("out/labels/other.json").exists()
    save_coco("labels/one.json", "b.jpg")
    Path("photos/sub/b.jpg").write_bytes(Path("photos/b.jpg").read_bytes())
    os.rename("photos/b.jpg", "photos/c.jpg")
    Path("photos/e").mkdir()
    Path("photos/e/b.jpg").write_bytes(Path("photos/c.jpg").read_bytes())
    done = cyclegan("translate", "photos", "-o", "new", "--copy-labels", "labels")
    assert "1 names match several images, e.g. b.jpg" in " ".join(done.err.split())
    assert COCO("new/labels/one.json").imgs == {}


def test_panoptic_masks_follow_their_images(labelled, cyclegan):
    document = coco_of("a.png")
    document["info"]["description"] = "\ud83d"  # Half of a character: no UTF-8, but JSON.
    document["annotations"] = [{"image_id": 7, "file_name": "a.png", "segments_info": []}]
    Path("labels/panoptic.json").write_text(json.dumps(document))
    command = ["translate", "photos", "-o", "out", "--copy-labels", "labels", "--suffix", "_n"]
    assert cyclegan(*command, "--format", "bmp").code == 0
    found = json.loads(Path("out/labels/panoptic.json").read_text())
    assert found["annotations"][0]["file_name"] == "a_n.png"


def test_missing_and_doubtful_labels_are_reported(labelled, cyclegan):
    for name in ("a.txt", "a.xml"):
        Path("labels", name).unlink()
    Path("labels/b.xml").write_text(VOC.replace("<width>13", "<width>10").replace("filename", "f"))
    Image.new("L", (9, 9)).save("labels/sub/c.png")
    done = cyclegan(
        "translate", "photos", "-o", "out", "--copy-labels", "labels", "--json", "--ordered"
    )
    assert done.code == 0
    assert [one["warnings"] for one in done.documents[:-1]] == [
        ["has no label in labels"],
        ["its label labels/b.xml has no <filename> element and was copied as it is",
         "its label labels/b.xml is for 10x10 pixels, and the translation, which is upright, has "
         "13x10"],
        ["its label labels/sub/c.png is for 9x9 pixels, and the translation, which is upright, has "
         "13x10"],
    ]  # fmt: skip
    assert "photos/a.png: has no label in labels" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-o", "out/", "--copy-labels", "gone"], 3, "gone is not a folder: found nothing"),
        (["-o", "x.png", "--copy-labels", "labels"], 2, "--copy-labels needs an output folder"),
        (["-o", ".", "--copy-labels", "labels"], 2, "would be copied onto themselves"),
        (["-o", "out/", "--labels-output", "x"], 2, "--labels-output needs labels"),
        (["-o", "out/", "--copy-labels", "bad"], 3, "bad/x.json: it is not valid JSON"),
    ],
)
def test_options_that_contradict_each_other(labelled, cyclegan, arguments, code, sentence):
    Path("bad").mkdir()
    Path("bad/x.json").write_text("{")
    done = cyclegan("translate", "photos/a.png", *arguments)
    assert done.code == code
    assert sentence in done.err
    assert not Path("out").exists()


def test_a_mask_never_replaces_its_image(labelled, cyclegan):
    done = cyclegan("translate", "photos/sub/c.png", "--root", "photos", "-o", "out",
                    "--copy-labels", "labels", "--labels-output", "out")  # fmt: skip
    assert done.code == 6
    assert "out/sub/c.png is the translation of its image" in " ".join(done.err.split())


def test_the_last_shard_writes_all_images(labelled, cyclegan):
    save_coco("labels/train.json", "a.png", "b.jpg", "sub/c.png")
    for shard in (1, 2):
        command = ["translate", "photos", "-o", "out", "--copy-labels", "labels"]
        assert cyclegan(*command, "--shard", f"{shard}/2").code == 0
    assert len(COCO("out/labels/train.json").imgs) == 3
