# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math
from dataclasses import replace

import pytest
import torch

from mlr.evaluation import METRICS, PROTOCOLS, DepthMetrics, Scores, predict
from mlr.evaluation.edges import EDGE_THRESHOLDS, edge_metrics
from mlr.evaluation.normals import normal_angle
from mlr.evaluation.scoring import STRUCTURE
from mlr.models.inference import network_input


def maps(count: int, height: int = 20, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    target = 0.5 + 9 * torch.rand(count, 1, height, width, generator=generator)
    spread = torch.linspace(0.05, 0.6, count).view(-1, 1, 1, 1)
    return target * (spread * torch.randn(target.shape, generator=generator)).exp(), target


def test_means_are_those_of_the_metric_on_maps_of_one_size():
    pred, target = maps(3)
    scores, metric = Scores("full"), DepthMetrics()
    for part in (slice(0, 2), slice(2, 3)):
        scores.add([str(i) for i in range(part.start, part.stop)], pred[part], target[part])
        metric.update(pred[part], target[part])
    result = metric.compute()
    assert scores.means() == pytest.approx({name: result[name].item() for name in METRICS}, rel=1e-12)


def test_structure_is_that_of_edges_and_normals():
    pred, target = maps(4)
    target[1] = 0
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    scores = Scores("full")
    for part in (slice(0, 3), slice(3, 4)):
        scores.add([str(i) for i in range(part.start, part.stop)], pred[part], target[part], mask[part])
    means = scores.structure_means()
    assert tuple(means) == STRUCTURE
    for threshold in EDGE_THRESHOLDS:
        for name, values in edge_metrics(pred, target, mask, threshold).items():
            expected = float(values.nanmean())
            assert means[f"edge{100 * threshold:.0f}_{name}"] == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert means["normal_angle"] == pytest.approx(float(normal_angle(pred, target, mask).nanmean()), rel=1e-6)
    low, high = scores.structure_intervals()["normal_angle"]
    assert low < means["normal_angle"] < high


def test_pooling_weights_images_by_their_pixels():
    target = torch.full((2, 1, 4, 4), 2.0)
    target[1, :, 1:] = 0  # four pixels of sixteen
    pred = torch.stack([target[0] + 1, target[1] + 3])
    protocol = replace(PROTOCOLS["full"], aggregation="pixels")
    scores = Scores(protocol)
    scores.add(["a", "b"], pred, target)
    assert scores.means()["rmse"] == pytest.approx(math.sqrt((16 * 1 + 4 * 9) / 20))
    assert scores.means()["abs_rel"] == pytest.approx((16 * 0.5 + 4 * 1.5) / 20)


def test_intervals_hold_the_mean_and_shrink_with_more_images():
    widths = []
    for count in (10, 160):
        scores = Scores("full")
        scores.add([str(i) for i in range(count)], *maps(count))
        means, intervals = scores.means(), scores.intervals()
        assert all(low < means[name] < high for name, (low, high) in intervals.items())
        assert intervals == scores.intervals()
        widths.append(intervals["rmse"][1] - intervals["rmse"][0])
    assert widths[1] < 0.5 * widths[0]
    # the bootstrap's spread of a mean is that of the normal approximation
    column = scores.table[:, METRICS.index("rmse")]
    assert widths[1] == pytest.approx(2 * 1.96 * float(column.std(correction=0)) / math.sqrt(160), rel=0.15)
    assert scores.intervals(level=0.5)["rmse"][1] < scores.intervals()["rmse"][1]
    with pytest.raises(ValueError, match="between 0 and 1"):
        scores.intervals(level=95)


def test_record_and_csv_name_what_was_scored(tmp_path):
    pred, target = maps(3)
    target[1] = 0
    scores = Scores("full")
    scores.add(["a/1", "a/2", "b,3"], pred, target)
    record = json.loads(json.dumps(scores.record()))
    assert record["images"] == 2
    assert record["excluded"] == ["a/2"]
    assert record["protocol"]["name"] == "full"
    assert (
        record["metrics"]["abs_rel"]["low"]
        <= record["metrics"]["abs_rel"]["mean"]
        <= record["metrics"]["abs_rel"]["high"]
    )
    scores.save_csv(tmp_path / "images.csv")
    with open(tmp_path / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a/1", "a/2", "b,3"]
    assert [row["pixels"] for row in rows] == ["600", "0", "600"]
    assert rows[1]["rmse"] == ""
    assert (float(rows[0]["rmse"]) + float(rows[2]["rmse"])) / 2 == pytest.approx(scores.means()["rmse"], rel=1e-12)


def test_nothing_scored_is_nan():
    scores = Scores("full")
    assert all(math.isnan(x) for x in scores.means().values())
    scores.add(["a"], torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    assert scores.excluded == ["a"]
    assert all(math.isnan(x) for x in scores.means().values())
    assert all(math.isnan(low) for low, _ in scores.intervals().values())


def test_refused_images_are_named():
    scores = Scores("paper")
    with pytest.raises(ValueError, match=r"img7: protocol 'paper' is defined on"):
        scores.add(["img7"], torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="2 ids for 1 predictions"):
        scores.add(["a", "b"], torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert scores.ids == []


def test_predict_follows_the_protocol():
    seen = []

    def model(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return image[:, :1] + torch.linspace(0, 1, image.shape[-1])

    image = torch.rand(1, 3, 480, 640)
    assert predict(model, image, "paper").shape == (1, 1, 288, 384)
    resized = torch.nn.functional.interpolate(image, size=(288, 384), mode="bicubic")
    assert torch.equal(seen[-1], resized)
    assert predict(model, image, "full", (96, 128)).shape == (1, 1, 480, 640)  # brought back to the image's size
    assert torch.equal(seen[-1], network_input(image, (96, 128)))
    both = predict(model, image, "bts")
    assert torch.equal(seen[-1], image.flip(-1))
    assert torch.allclose(both, image[:, :1] + 0.5, atol=1e-6)  # the ramp of the mirrored image cancels
    alone = predict(model, image, "bts", flip=False)
    assert torch.equal(alone, image[:, :1] + torch.linspace(0, 1, 640))


def test_metric_continues_outside_inference_mode():
    metric = DepthMetrics()
    pred, target = maps(2)
    with torch.inference_mode():
        metric.update(pred, target)
    metric.update(pred, target)
    assert metric.compute()["images"] == 4
