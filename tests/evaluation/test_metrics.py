# SPDX-License-Identifier: Apache-2.0
"""The nine metrics against hand-worked values, sums of another kind, and other libraries."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from ranks import leave_group

from mlr.evaluation import METRICS, DepthMetrics, depth_metrics

NAN = math.nan


def maps(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = 0.5 + 9 * torch.rand(shape, generator=generator)
    return target * (0.4 * torch.randn(shape, generator=generator)).exp(), target


def by_numpy(pred, target, valid):
    """Table 2 word for word, one image."""
    p, g = pred[valid].astype(np.float64), target[valid].astype(np.float64)
    d = np.log(p) - np.log(g)
    ratio = np.maximum(p / g, g / p)
    return {
        **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "abs_rel": np.mean(abs(p - g) / g),
        "log10": np.mean(abs(np.log10(p) - np.log10(g))),
        "rmse_log": np.sqrt(np.mean(d**2)),
        "silog": np.std(d),
        "sq_rel": np.mean((p - g) ** 2 / g),
    }


def test_hand_worked_image():
    # ratios 1, 2, 1.5 and 1.25 exactly; the unknown pixel counts nowhere
    target = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 0.0]]])
    pred = torch.tensor([[[1.0, 4.0, 2.0, 5.0, 7.0]]])
    scores = {name: value.item() for name, value in depth_metrics(pred, target).items()}
    logs = [0, math.log(2), math.log(2 / 3), math.log(1.25)]
    mean = sum(logs) / 4
    assert list(scores) == list(METRICS)
    assert scores == pytest.approx(
        {
            "delta1": 1 / 4,  # 1.25 is not below 1.25
            "delta2": 3 / 4,
            "delta3": 3 / 4,
            "rmse": math.sqrt((0 + 4 + 1 + 1) / 4),
            "abs_rel": (0 + 2 / 2 + 1 / 3 + 1 / 4) / 4,
            "log10": sum(abs(x) for x in logs) / 4 / math.log(10),
            "rmse_log": math.sqrt(sum(x * x for x in logs) / 4),
            "silog": math.sqrt(sum((x - mean) ** 2 for x in logs) / 4),
            "sq_rel": (0 + 4 / 2 + 1 / 3 + 1 / 4) / 4,
        },
        rel=1e-12,
    )
    assert depth_metrics(pred, target, inclusive=True)["delta1"].item() == 2 / 4


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_equals_table_2_word_for_word(seed, batch, height, width, channel):
    pred, target = maps(seed, batch, height, width)
    mask = torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed)) < 0.8
    mask[:, 0, 0] = True
    add = (lambda x: x[:, None]) if channel else (lambda x: x)
    scores = depth_metrics(add(pred), add(target), add(mask))
    for b in range(batch):
        for name, value in by_numpy(pred[b].numpy(), target[b].numpy(), mask[b].numpy()).items():
            assert scores[name][b].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_overlaps_with_torchmetrics():
    pred, target = maps(1, 1, 30, 40)
    scores = depth_metrics(pred, target)
    assert scores["rmse"].item() == pytest.approx(
        torchmetrics.functional.mean_squared_error(pred, target, squared=False).item(), rel=1e-6
    )
    assert scores["abs_rel"].item() == pytest.approx(
        torchmetrics.functional.mean_absolute_percentage_error(pred, target).item(), rel=1e-6
    )
    assert scores["rmse_log"].item() == pytest.approx(
        torchmetrics.functional.mean_squared_error(pred.log(), target.log(), squared=False).item(), rel=1e-6
    )


@given(st.floats(0.01, 100))
def test_scale_invariant_rmse_does_not_see_scale(factor):
    pred, target = maps(2, 1, 6, 7)
    assert depth_metrics(factor * pred, target)["silog"].item() == pytest.approx(
        depth_metrics(pred, target)["silog"].item(), rel=1e-5
    )


def test_exact_multiple_has_no_scale_invariant_error_and_no_nan():
    target = maps(3, 1, 50, 50)[1].half()
    assert depth_metrics(target * 2, target)["silog"].item() < 1e-12
    perfect = depth_metrics(target, target)
    assert all(perfect[name].item() == (1 if name.startswith("delta") else 0) for name in METRICS)


def test_image_without_valid_pixel_scores_nan_in_every_metric():
    pred, target = maps(4, 3, 4, 5)
    target[0] = 0
    target[1] = torch.tensor([NAN, math.inf, -math.inf, -1.0, 0.0])
    scores = depth_metrics(pred, target)
    for name in METRICS:
        assert scores[name][:2].isnan().all(), name
        assert scores[name][2].isfinite(), name


def test_pixels_outside_the_mask_never_count_whatever_they_hold():
    pred, target = maps(5, 1, 4, 6)
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[:, :2] = True
    clean = depth_metrics(pred[:, :2], target[:, :2])
    for poison in (NAN, math.inf, -math.inf, 0.0, -3.0):
        dirty_pred, dirty_target = pred.clone(), target.clone()
        dirty_pred[:, 2:], dirty_target[:, 2:] = poison, poison
        for name, value in depth_metrics(dirty_pred, dirty_target, mask).items():
            assert value.item() == pytest.approx(clean[name].item(), rel=1e-12), (poison, name)


def test_prediction_without_logarithm():
    target = torch.full((3, 1, 4), 2.0)
    pred = target.clone()
    pred[0, 0, 0], pred[1, 0, 0], pred[2, 0, 0] = -1.0, 0.0, NAN
    scores = depth_metrics(pred, target)
    assert scores["delta3"][:2].tolist() == [0.75, 0.75]
    assert scores["rmse"][:2].tolist() == [1.5, 1.0]
    for name in ("log10", "rmse_log", "silog"):
        assert scores[name][:2].isnan().all()
    assert all(scores[name][2].isnan() for name in METRICS)


@pytest.mark.parametrize(
    ("pred", "target", "mask"),
    [
        ((1, 4, 4), (1, 4, 5), None),
        ((4, 4), (4, 4), None),
        ((1, 3, 4, 4),) * 2 + (None,),
        ((1, 4, 4),) * 2 + ((1, 4, 3),),
    ],
)
def test_wrong_shapes_are_refused(pred, target, mask):
    with pytest.raises(ValueError, match=r"shape|must be"):
        depth_metrics(torch.ones(pred), torch.ones(target), None if mask is None else torch.ones(mask))


# --- DepthMetrics -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_every_image_counts_once_in_any_batching(seed, sizes):
    pred, target = maps(seed, sum(sizes), 3, 5)
    metric, start = DepthMetrics(), 0
    for size in sizes:
        metric.update(pred[start : start + size], target[start : start + size])
        start += size
    expected = depth_metrics(pred, target)
    result = metric.compute()
    assert result["images"] == sum(sizes)
    assert result["excluded"] == 0
    for name in METRICS:
        assert result[name].item() == pytest.approx(expected[name].mean().item(), rel=1e-12)


def test_images_without_valid_pixel_are_counted_and_left_out():
    pred, target = maps(6, 3, 4, 4)
    target[1] = 0
    metric = DepthMetrics()
    metric.update(pred, target)
    result = metric.compute()
    expected = depth_metrics(pred[[0, 2]], target[[0, 2]])
    assert (result["images"], result["excluded"]) == (2, 1)
    for name in METRICS:
        assert result[name].item() == pytest.approx(expected[name].mean().item(), rel=1e-12)


def test_nothing_scored_is_nan_not_perfect():
    metric = DepthMetrics()
    metric.update(torch.ones(2, 3, 3), torch.zeros(2, 3, 3))
    result = metric.compute()
    assert result["excluded"] == 2
    assert all(result[name].isnan() for name in METRICS)


def test_reset_and_half_precision_model_keep_wide_sums():
    metric = DepthMetrics().half()
    pred, target = maps(7, 2, 4, 4)
    metric.update(pred, target)
    assert metric.compute()["rmse"].dtype == torch.float64
    metric.reset()
    metric.update(target, target)
    assert metric.compute()["rmse"] == 0
    assert metric.images == 2


def rank(index, address, pred, target, out):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=index, world_size=2)
    metric = DepthMetrics()
    mine = slice(0, 3) if index == 0 else slice(3, 4)  # uneven, and one rank holds the image without depth
    metric.update(pred[mine], target[mine])
    out[index] = {name: value.item() for name, value in metric.compute().items()}
    leave_group()


def test_two_processes_equal_one(tmp_path):
    pred, target = maps(8, 4, 5, 5)
    target[2] = 0
    context = mp.get_context("spawn")
    with context.Manager() as manager:
        out = manager.dict()
        mp.spawn(rank, (f"file://{tmp_path}/gloo", pred, target, out), nprocs=2)
        results = dict(out)
    alone = DepthMetrics()
    alone.update(pred, target)
    expected = {name: value.item() for name, value in alone.compute().items()}
    assert results[0] == results[1]
    assert results[0] == pytest.approx(expected, rel=1e-12)
    assert results[0]["excluded"] == 1
