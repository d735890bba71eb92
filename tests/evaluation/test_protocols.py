# SPDX-License-Identifier: Apache-2.0
"""Each protocol against its description, followed step by step in other words."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlr.data.datasets.kitti import kb_region
from mlr.evaluation import METRICS, PROTOCOLS, Scores, depth_metrics, get_protocol


def scene(seed: int, height: int, width: int, batch: int = 1, far: float = 9.0) -> torch.Tensor:
    coarse = torch.rand(batch, 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    return 0.5 + far * F.interpolate(coarse, size=(height, width), mode="bilinear")


class Scored(Scores):
    """Scores of images that need no name."""

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        self.add([""] * len(pred), pred, target)

    def compute(self) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.means().items()}


def test_every_protocol_of_the_field_is_there_and_states_its_choices():
    names = ["paper", "nyu-toolbox", "bts", "full"]
    names += ["relative", "kitti-garg", "kitti-eigen", "make3d-c1", "make3d-c2", "make3d-md2"]
    assert set(names) == set(PROTOCOLS)
    stated = {
        "crop",
        "min_depth",
        "max_depth",
        "clamp_min",
        "clamp_max",
        "resize",
        "align",
        "aggregation",
        "comparison",
    }
    for name, protocol in PROTOCOLS.items():
        record = json.loads(json.dumps(protocol.record()))
        assert record["name"] == name
        assert record["version"] >= 1
        assert stated <= record.keys()


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean paper.*make3d-c1"):
        get_protocol("papers")


# --- NYUv2 ------------------------------------------------------------------------------------------------------------


def test_paper_step_by_step():
    target, pred = scene(0, 480, 640, batch=2), scene(1, 288, 384, batch=2) - 2  # some predictions are negative
    assert (pred < 0).any()
    # the authors: relu(x - 1e-4) + 1e-4, bicubic to full size, crop 20 and 24 pixels, the same once more
    p = F.relu(pred - 1e-4) + 1e-4
    p = torch.nn.Upsample(size=[480, 640], mode="bicubic")(p)
    p = F.relu(p[:, :, 0 + 20 : 480 - 20, 0 + 24 : 640 - 24] - 1e-4) + 1e-4
    g = target[:, :, 0 + 20 : 480 - 20, 0 + 24 : 640 - 24]
    expected = {}
    ratio = torch.max(p / g, g / p)
    for k in (1, 2, 3):
        expected[f"delta{k}"] = (ratio <= 1.25**k).double().mean((1, 2, 3)).mean().item()
    expected["rmse"] = ((p - g) ** 2).double().mean((1, 2, 3)).sqrt().mean().item()
    expected["abs_rel"] = ((p - g).abs() / g).double().mean().item()
    expected["log10"] = (p.log10() - g.log10()).abs().double().mean().item()
    expected["rmse_log"] = ((p.log() - g.log()) ** 2).double().mean((1, 2, 3)).sqrt().mean().item()
    expected["sq_rel"] = ((p - g) ** 2 / g).double().mean().item()

    metric = Scored("paper")
    metric.update(pred[:1], target[:1])
    metric.update(pred[1:], target[1:])
    result = {name: value.item() for name, value in metric.compute().items()}
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metric.pixels.sum() == 2 * 440 * 592


def test_paper_clamps_before_the_resize():
    # one deep negative spike: clamped late, its bicubic neighbours would be pulled down and overshoot
    target, pred = torch.full((1, 1, 480, 640), 2.0), torch.full((1, 1, 48, 64), 2.0)
    pred[0, 0, 24, 32] = -1000.0
    p, _, _ = get_protocol("paper").prepare(pred, target)
    assert p.max() < 2.5
    assert p.min() >= 1e-4


def test_paper_has_no_cap_and_compares_inclusively():
    target = torch.full((1, 1, 480, 640), 2.0)
    metric = Scored("paper")
    metric.update(1.25 * target, target)
    assert metric.compute()["delta1"] == 1
    p, _, _ = get_protocol("paper").prepare(100 * target, target)
    assert (p == 200).all()


def test_border_outside_the_crop_does_not_count():
    for name, (top, bottom, left, right) in {
        "paper": (20, 460, 24, 616),
        "nyu-toolbox": (44, 471, 40, 601),
        "bts": (45, 471, 41, 601),
    }.items():
        target = torch.full((1, 1, 480, 640), 2.0)
        pred = 3 * target
        pred[..., top:bottom, left:right] = 2.0
        metric = Scored(name)
        metric.update(pred, target)
        assert metric.compute()["rmse"] == 0, name
        assert metric.pixels.sum() == (bottom - top) * (right - left), name
        for row, column in ((top, left), (bottom - 1, right - 1)):  # the corners are inside
            corner = target.clone()
            corner[..., row, column] = 3.0
            metric = Scored(name)
            metric.update(corner, target)
            assert metric.compute()["rmse"] > 0, name


def test_protocols_on_filled_depth_refuse_holes_and_other_sizes():
    target = torch.full((1, 1, 480, 640), 2.0)
    target[..., 100, 100:103] = 0
    for name in ("paper", "nyu-toolbox"):
        with pytest.raises(ValueError, match=r"3 pixels of the targets have none: fill them"):
            Scored(name).update(target, target)
        with pytest.raises(ValueError, match=r"480 x 640 pixels, got 288 x 384.*'full'"):
            Scored(name).update(torch.ones(1, 288, 384), torch.ones(1, 288, 384))
    get_protocol("paper").prepare(target, target, target > 0)  # a mask says that the holes are meant


def test_toolbox_pools_the_error_over_pixels():
    target = torch.full((2, 1, 480, 640), 2.0)
    pred = target.clone()
    pred[0] += 3.0
    pred[1] += 4.0
    pooled, averaged = Scored("nyu-toolbox"), Scored("paper")
    for metric in (pooled, averaged):
        metric.update(pred, target)
    assert pooled.compute()["rmse"].item() == pytest.approx(math.sqrt((9 + 16) / 2))
    assert averaged.compute()["rmse"].item() == pytest.approx(3.5)
    assert pooled.compute()["abs_rel"].item() == pytest.approx(averaged.compute()["abs_rel"].item())


def test_bts_masks_and_clamps():
    target = torch.full((1, 1, 480, 640), 2.0)
    target[..., 100:200, :] = 0  # unknown
    target[..., 200:300, :] = 10  # not below 10 m
    pred = target.clone()
    pred[..., 100:300, :] = 5
    pred[..., 50, 60], pred[..., 51, 60], pred[..., 52, 60] = math.nan, math.inf, -7
    p, g, mask = get_protocol("bts").prepare(pred, target)
    assert int(mask.sum()) == (426 - 200) * 560
    assert [p[0, 0, row - 45, 60 - 41].item() for row in (50, 51, 52)] == pytest.approx([1e-3, 10, 1e-3])
    assert (g[mask] == 2).all()
    small = scene(3, 240, 320)
    p, _, _ = get_protocol("bts").prepare(small, target)
    full = F.interpolate(small, size=(480, 640), mode="bilinear", align_corners=True)
    assert torch.equal(p, full[..., 45:471, 41:601].clamp(1e-3, 10))


# --- KITTI ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "box"), [("kitti-garg", (153, 371, 44, 1197)), ("kitti-eigen", (124, 342, 44, 1197))])
def test_kitti_crops_on_the_usual_frame(name, box):
    assert get_protocol(name).box(375, 1242) == box


def test_kitti_prediction_of_the_bottom_centre_crop_is_pasted_back():
    target = scene(4, 375, 1242, far=70)
    inner = target[..., 375 - 352 :, (1242 - 1216) // 2 : (1242 - 1216) // 2 + 1216]
    region = kb_region((375, 1242), "frame")
    p, g, mask = get_protocol("kitti-garg").prepare(inner, target, region=region)
    assert torch.equal(p, g)  # Garg's crop lies inside
    p, _, _ = get_protocol("kitti-eigen").prepare(torch.full((1, 1, 352, 1216), math.nan), target, region=region)
    assert (p == 1e-3).all()
    assert mask.all()


def test_depth_of_a_part_is_pasted_where_the_protocol_says_so_and_refused_elsewhere():
    target, region = scene(4, 375, 1242, far=70), kb_region((375, 1242), "frame")
    inner = target[..., 375 - 352 :, (1242 - 1216) // 2 : (1242 - 1216) // 2 + 1216]
    small = F.interpolate(inner, (88, 304), mode="bilinear")
    p, g, _ = get_protocol("kitti-garg").prepare(small, target, region=region)
    assert (p - g).abs().mean() < 0.5
    with pytest.raises(ValueError, match=r"say which by region"):
        get_protocol("kitti-garg").prepare(inner, target)
    with pytest.raises(ValueError, match=r"usual crop"):
        get_protocol("kitti-garg").prepare(inner, inner)
    with pytest.raises(ValueError, match=r"scores 375 x 1242 pixels, and the prediction covers 352 x 1216 of 375"):
        get_protocol("full").prepare(inner, target, region=region)
    with pytest.raises(ValueError, match=r"covers 352 x 1216 of 400 x 1242"):
        get_protocol("kitti-garg").prepare(inner, target, region=kb_region((400, 1242), "frame"))


def test_kitti_masks_beyond_80_m():
    target = torch.full((1, 1, 375, 1242), 100.0)
    target[..., 200, 100] = 79.0
    _, _, mask = get_protocol("kitti-garg").prepare(target, target)
    assert int(mask.sum()) == 1


# --- Make3D -----------------------------------------------------------------------------------------------------------


def test_make3d_c1_and_c2_differ_by_far_pixels():
    target = torch.full((1, 55, 305), 10.0)
    target[:, :5] = 80.0
    pred = torch.full((1, 460, 345), 10.0)
    near, far = Scored("make3d-c1"), Scored("make3d-c2")
    for metric in (near, far):
        metric.update(pred, target)
    assert near.compute()["rmse"].item() == pytest.approx(0, abs=1e-6)
    assert far.compute()["rmse"].item() == pytest.approx(math.sqrt(5 / 55) * 70)


def test_make3d_md2_crops_scales_and_caps():
    protocol = get_protocol("make3d-md2")
    image = torch.rand(1, 3, 2272, 1704)
    assert torch.equal(protocol.input.part(image), image[..., 710:1562, :])
    assert protocol.input.shape(2272, 1704) == (852, 1704)
    with pytest.raises(ValueError, match="2272 rows, got 100"):
        protocol.input.part(image[..., :100, :])
    target = scene(5, 55, 305, far=60)
    target[..., 20, 7] = 75.0
    rows = target[..., 17:38, :]
    pred = F.interpolate(rows, scale_factor=4, mode="nearest") / 30
    p, g, mask = protocol.prepare(pred, target)
    assert g.shape[-2:] == (21, 305)
    assert int((~mask).sum()) == 1
    ratio = np.median(g[mask]) / np.median(rows[mask] / 30)
    assert torch.allclose(p, (rows / 30 * float(ratio)).clamp(max=70), rtol=1e-6)
    assert torch.allclose(p[mask], g[mask], rtol=1e-5)
    assert p.max() == 70


def test_median_scaling_is_by_image_and_as_numpy_has_it():
    target = scene(6, 55, 305, batch=2, far=60)
    pred = scene(7, 55, 305, batch=2) * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1)
    p, g, _ = get_protocol("make3d-md2").prepare(pred[..., 17:38, :], target)
    for b in range(2):
        raw = pred[b, 0, 17:38].double().numpy()
        scaled = np.clip(raw * np.median(g[b].numpy()) / np.median(raw), 1e-3, 70)
        np.testing.assert_allclose(p[b, 0].numpy(), scaled, rtol=1e-5)


# --- all --------------------------------------------------------------------------------------------------------------


def test_full_scores_maps_of_any_size():
    target = scene(8, 61, 45)
    target[..., :3, :] = 0
    pred = scene(9, 61, 45).clamp(min=1e-3)
    metric = Scored("full")
    metric.update(pred, target)
    expected = depth_metrics(pred, target)
    result = metric.compute()
    assert {name: result[name].item() for name in METRICS} == pytest.approx(
        {name: expected[name].item() for name in METRICS}, rel=1e-12
    )
    metric.update(scene(10, 30, 20), target)


def test_full_resizes_by_pixels_centres_like_the_networks_input():
    target, pred = scene(12, 96, 128), scene(13, 24, 32)
    p, _, _ = get_protocol("full").prepare(pred, target)
    assert torch.equal(p, F.interpolate(pred, size=(96, 128), mode="bilinear", align_corners=False))
    assert get_protocol("full").version == 3


def test_the_flip_average_of_bts_is_said_to_be_that_of_others():
    assert "--no-flip" in get_protocol("bts").summary


def test_counts_and_masks_that_do_not_fit_are_refused():
    protocol = get_protocol("full")
    with pytest.raises(ValueError, match="2 predictions for 1 targets"):
        protocol.prepare(torch.ones(2, 4, 4), torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="mask"):
        protocol.prepare(torch.ones(1, 4, 4), torch.ones(1, 4, 4), torch.ones(1, 4, 5))
    with pytest.raises(ValueError, match=r"\[B, H, W\]"):
        protocol.prepare(torch.ones(4, 4), torch.ones(1, 4, 4))


def test_nan_prediction_shows_unless_the_protocol_says_otherwise():
    target = scene(11, 40, 50)
    pred = target.clone()
    pred[..., 10, 10] = math.nan
    metric = Scored("full")
    metric.update(pred, target)
    assert metric.compute()["rmse"].isnan()
