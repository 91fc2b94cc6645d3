import io

import numpy as np
import pytest
from PIL import Image

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.report import write_pictures
from emsuite.evaluation.section_images import COLORS, draw_sections, id_colors
from emsuite.evaluation.split_merge_errors import VoxelError
from emsuite.evaluation.threshold_sweep import score_thresholds
from emsuite.io.skeletons import Skeletons


def volume(tmp_path, name, voxels, voxel_size=(20, 5, 5), offset=(100, 0, 0)):
    return write_array(tmp_path / "v.zarr" / name, voxels, voxel_size, offset)


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def scene(tmp_path, depth=12, height=32, width=48):
    """Two halves, the right one cut in two by the segmentation; raw and affinities of one value each."""
    labels = np.ones((depth, height, width), np.uint64)
    labels[..., width // 2 :] = 2
    segmentation = labels + 10
    segmentation[..., -width // 4 + 2 :] = 99
    raw = np.full(labels.shape, 128, np.uint8)
    affinities = np.zeros((4, *labels.shape), np.uint8)
    affinities[1] = 200
    volumes = (
        volume(tmp_path, "seg", segmentation),
        volume(tmp_path, "raw", raw),
        volume(tmp_path, "affs", affinities),
    )
    return GroundTruth(volume(tmp_path, "labels", labels)), *volumes


def scored_over(found, truth, tmp_path, roi=None):
    return score_thresholds(compare(found, truth, roi or truth.common_roi(found), tmp_path / "compared"))


def test_shows_three_sections_and_a_cut_across(tmp_path):
    truth, found, raw, affinities = scene(tmp_path)
    made = draw_sections(scored_over(found, truth, tmp_path), truth, found, raw, affinities)
    assert [section.caption for section in made] == [
        "x, y at z = 140 nm", "x, y at z = 220 nm", "x, y at z = 300 nm", "x, z at y = 80 nm"
    ]  # fmt: skip
    assert [list(section.pictures) for section in made] == 4 * [
        ["raw", "affinities", "segmentation", "ground truth", "errors"]
    ]
    # 20 nm sections are shown four times as thick as 5 nm voxels
    assert [picture(section.pictures["errors"]).shape for section in made] == [(32, 48, 3)] * 3 + [(48, 48, 3)]


def test_a_volume_of_one_section_is_shown_once_and_cut_across(tmp_path):
    truth, found, raw, affinities = scene(tmp_path, depth=1)
    evaluation = scored_over(found, truth, tmp_path)
    made = draw_sections(evaluation, truth, found, raw, affinities)
    assert [section.caption for section in made] == ["x, y at z = 100 nm", "x, z at y = 80 nm"]
    assert [picture(section.pictures["errors"]).shape for section in made] == [(32, 48, 3), (4, 48, 3)]
    write_pictures(tmp_path, evaluation, made)
    assert len(list((tmp_path / "sections").iterdir())) == 2
    write_pictures(tmp_path, evaluation, made[:1])
    assert len(list((tmp_path / "sections").iterdir())) == 1


@pytest.mark.parametrize("own", ["sections/0001.tif", "curves/notes.txt", "sections/x, y at z = 100 nm/own.jpg"])
@pytest.mark.parametrize("of_earlier_run", [False, True])
def test_a_users_files_in_the_place_of_pictures_stay(tmp_path, own, of_earlier_run):
    truth, found, raw, affinities = scene(tmp_path, depth=1)
    evaluation = scored_over(found, truth, tmp_path)
    made = draw_sections(evaluation, truth, found, raw, affinities)
    if of_earlier_run:
        write_pictures(tmp_path, evaluation, made)
    elif own.endswith("jpg"):
        return  # pictures of earlier versions have no record
    (tmp_path / own).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / own).write_text("mine")
    with pytest.raises(BadInput, match="holds something else than pictures of this suite"):
        write_pictures(tmp_path, evaluation, made)
    assert (tmp_path / own).read_text() == "mine"


def test_right_segments_wear_their_labels_color_and_errors_are_marked(tmp_path):
    truth, found, raw, affinities = scene(tmp_path)
    first = draw_sections(scored_over(found, truth, tmp_path), truth, found, raw, affinities)[0]
    shown = {name: picture(content) for name, content in first.pictures.items()}
    right, wrong = np.s_[:, :36], np.s_[:, 40:]
    assert np.abs(shown["segmentation"][right] - shown["ground truth"][right]).mean() < 4
    assert np.abs(shown["segmentation"][wrong] - shown["ground truth"][wrong]).mean() > 20
    marked = shown["errors"][wrong].mean(axis=(0, 1))
    assert marked == pytest.approx(0.75 * np.array(COLORS[VoxelError.SPLIT]) + 0.25 * shown["raw"][wrong].mean(), abs=8)
    assert shown["errors"][right][:, :30].std(axis=-1).max() < 4  # grey
    assert shown["affinities"].mean(axis=(0, 1)) == pytest.approx([0, 200, 0], abs=4)


def test_shows_a_window_of_what_all_cover(tmp_path):
    labels = np.ones((2, 600, 700), np.uint64)
    labels[:, :, 94:606] = 2  # the 512 in the middle
    truth = GroundTruth(volume(tmp_path, "labels", labels))
    raw = volume(tmp_path, "raw", np.zeros((2, 100, 700), np.uint16), offset=(100, 50, 0))
    made = draw_sections(scored_over(truth.labels, truth, tmp_path), truth, truth.labels, raw, None)
    assert [picture(section.pictures["ground truth"]).shape for section in made] == [(100, 512, 3)] * 2 + [(8, 512, 3)]
    assert picture(made[0].pictures["ground truth"]).std(axis=(0, 1)).max() < 1


def test_without_raw_there_are_colors_alone(tmp_path):
    truth, found, _, _ = scene(tmp_path)
    assert list(draw_sections(scored_over(found, truth, tmp_path), truth, found, None, None)[0].pictures) == [
        "segmentation", "ground truth", "errors"
    ]  # fmt: skip


def test_without_labels_there_is_no_ground_truth_to_draw(tmp_path):
    _, found, raw, _ = scene(tmp_path)
    positions = np.array([[110.0, 5, 5], [110, 5, 100]])
    skeletons = Skeletons(np.arange(2), np.ones(2, int), positions, np.ones(2), np.array([[0, 1]]))
    truth = GroundTruth(None, None, skeletons)
    made = draw_sections(scored_over(found, truth, tmp_path), truth, found, raw, None)
    assert [list(section.pictures) for section in made] == 4 * [["raw", "segmentation"]]


def test_a_part_without_some_of_the_segments_can_be_shown(tmp_path):
    truth, found, raw, _ = scene(tmp_path)
    scored = scored_over(found, truth, tmp_path, Roi((100, 0, 0), (40, 160, 100)))
    assert [section.caption for section in draw_sections(scored, truth, found, raw, None)] == [
        "x, y at z = 100 nm", "x, y at z = 120 nm", "x, z at y = 80 nm"
    ]  # fmt: skip


def test_ids_have_colors_of_their_own():
    colors = id_colors(np.arange(2000, dtype=np.uint64))
    assert colors[0].tolist() == [0, 0, 0]
    assert len(np.unique(colors, axis=0)) > 1900
    assert colors[1:].max(axis=1).min() > 150


@pytest.mark.parametrize(
    ("voxel_size", "offset", "message"),
    [((20, 5, 4), (100, 0, 0), "raw: voxel size"), ((20, 5, 5), (9000, 0, 0), "raw: covers .* which does not overlap")],
)
def test_raw_of_another_place_is_refused(tmp_path, voxel_size, offset, message):
    truth, found, _, _ = scene(tmp_path)
    raw = volume(tmp_path, "other/raw", np.zeros((4, 4, 4), np.uint8), voxel_size, offset)
    with pytest.raises(BadInput, match=message):
        draw_sections(scored_over(found, truth, tmp_path), truth, found, raw, None)
