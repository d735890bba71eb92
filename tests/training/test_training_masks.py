# SPDX-License-Identifier: Apache-2.0
"""Training on depth with holes: the losses leave unknown pixels and unknown images out."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import pytest
import torch
from data_files import frame, write_kitti
from torch import nn

from mlr.balancing import FixedWeights
from mlr.cli import train_command
from mlr.losses import LossSpace, MultiLoss
from mlr.training.module import DepthTraining
from mlr.training.watch import AbsentLosses, ImageMean, NonFiniteLosses

LITTLE = [
    "--backbone=test_resnet", "--decoder-channels=32", "--pretrained=false", "--device=cpu", "--workers=0",
    "--batch-size=1",
]  # fmt: skip
XTION = Path(__file__).parents[2] / "examples" / "xtion_bookshelf"


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss_epoch"]) for row in csv.DictReader(file) if row["train/loss_epoch"]]


@pytest.fixture
def kitti(tmp_path) -> Path:
    """KITTI's layout, 5 % of the pixels known, the training frame listed three times."""
    write_kitti(tmp_path / "kitti")
    lines = tmp_path / "kitti" / "eigen_train_files_with_gt.txt"
    lines.write_text(3 * lines.read_text())
    return tmp_path / "kitti"


def test_kitti_trains_on_the_depth_as_it_is(kitti, tmp_path, capsys):
    run = tmp_path / "run"
    sizes = ["--size=64x96", "--epochs=2"]
    arguments = ["--data=kitti", f"--root={kitti}", "--holes=mask", "--downsample=area", *sizes, *LITTLE]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train_command([*arguments, f"--out={run}"]) == 0
    assert not [w for w in caught if "position with known depth" in str(w.message)]
    assert len(losses(run)) == 2
    assert all(0 < loss < 100 for loss in losses(run))
    words = " ".join(capsys.readouterr().out.split())
    assert "5.0 % of the pixels have a known depth; the losses leave the others out (--holes mask)" in words


def test_sparse_depth_with_bicubic_is_told_of_area_once(kitti, tmp_path):
    sizes = ["--size=64x96", "--epochs=3"]
    with pytest.warns(
        UserWarning, match="no position with known depth in the first batches: --downsample area"
    ) as told:
        assert train_command(["--data=kitti", f"--root={kitti}", *sizes, *LITTLE, f"--out={tmp_path / 'run'}"]) == 0
    assert sum("position with known depth" in str(w.message) for w in told) == 1


def test_the_real_frame_trains_with_its_holes(tmp_path, capsys):
    arguments = ["--data=folder", f"--root={XTION}", "--size=64x96", "--epochs=2", *LITTLE]
    assert train_command([*arguments, f"--out={tmp_path / 'run'}"]) == 0
    assert all(0 < loss < 100 for loss in losses(tmp_path / "run"))
    assert "(--holes mask)" in capsys.readouterr().out


def test_built_in_scenes_are_dense_and_take_no_mask(tmp_path, monkeypatch, capsys):
    masks, forward = [], MultiLoss.forward
    monkeypatch.setattr(
        MultiLoss, "forward", lambda self, p, t, w=None, mask=None: masks.append(mask) or forward(self, p, t, w, mask)
    )
    rooms = ["--size=32x48", "--train-length=2", "--val-length=1", "--epochs=1"]
    assert train_command([*rooms, *LITTLE, f"--out={tmp_path / 'run'}"]) == 0
    assert masks == [None, None]
    assert "the depth of every pixel is known" in capsys.readouterr().out


class Line(nn.Module):
    """A network of one number, whose depth is that number times the image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scale * image[:, :1]


def task(selection: str = "depth+gradient") -> DepthTraining:
    space = LossSpace(selection)
    return DepthTraining(Line(), MultiLoss(space), FixedWeights(space.names), masked=True)


def batch(number: int, known: bool = True, holes: float = 7.0) -> dict:
    """An image; a third of its depth is unknown and holds the value ``holes``."""
    image, depth = frame(number, (48, 64))
    valid = torch.ones(1, 1, 48, 64, dtype=torch.bool)
    valid[..., 20:36] = False
    depth = torch.from_numpy(depth)[None, None]
    return {
        "image": torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
        "depth": depth.where(valid, holes),
        "valid": valid & known,
        "id": [f"frame {number}"],
    }


def joined(*batches: dict) -> dict:
    ids = [name for b in batches for name in b["id"]]
    return {key: torch.cat([b[key] for b in batches]) for key in ("image", "depth", "valid")} | {"id": ids}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
class TestTrainingStep:
    @pytest.mark.parametrize("holes", [0.0, -3.0, float("nan"), float("inf")])
    def test_what_stands_in_a_hole_changes_nothing(self, holes):
        results = []
        for value in (7.0, holes):
            training = task()
            total = training.training_step(batch(1, holes=value), 0)
            total.backward()
            results.append((total.detach(), training.model.scale.grad, training.balancer.state_dict()))
        (total, grad, state), (other, other_grad, other_state) = results
        assert torch.equal(total, other)
        assert torch.equal(grad, other_grad)
        assert str(state) == str(other_state)

    def test_an_image_without_depth_is_left_out_and_counted(self):
        alone, together = task(), task()
        expected = alone.training_step(batch(1), 0)
        total = together.training_step(joined(batch(1), batch(2, known=False)), 0)
        expected.backward()
        total.backward()
        assert total.item() == pytest.approx(expected.item(), rel=1e-6)
        assert together.model.scale.grad.item() == pytest.approx(alone.model.scale.grad.item(), rel=1e-6)
        for name in ("loss", "equal_loss"):
            assert getattr(together, name).compute() == pytest.approx(getattr(alone, name).compute())
        assert (alone.unknown.compute(), together.unknown.compute()) == (0, 1)

    def test_a_batch_without_depth_counts_nothing(self):
        training = task()
        training.training_step(batch(1), 0)
        before = training.loss.compute().clone()
        training.loss._computed = None
        total = training.training_step(batch(2, known=False), 1)
        assert total == 0
        assert torch.equal(training.loss.compute(), before)

    def test_a_loss_that_is_not_finite_is_named(self):
        training = task()
        training.training_step(batch(1), 0)
        spoilt = batch(2)
        spoilt["image"][0, 0, 3, 3] = float("nan")
        training.training_step(joined(batch(1), spoilt), 1)
        assert training.nonfinite.read() == "loss D/0 of image frame 2 is not finite in step 1"


class TestNonFiniteLosses:
    def test_the_first_of_a_period(self):
        watch = NonFiniteLosses(["a", "b", "c"])
        assert watch.read() is None
        for step, rows in enumerate(
            [[[1, 2, 3]], [[1, 1, 1], [1, float("inf"), float("nan")]], [[float("nan"), 0, 0]]]
        ):
            watch.observe(torch.tensor(rows), [f"{step}/{i}" for i in range(len(rows))], step)
        assert watch.read() == "loss b of image 1/1 is not finite in step 2"
        watch.reset()
        watch.observe(torch.ones(2, 3), ["x", "y"], 9)
        assert watch.read() is None


def test_absent_losses_are_counted_over_the_first_batches_alone():
    watch = AbsentLosses(batches=2)
    assert watch.observe(torch.tensor([[0, 0], [1, 0]])) is None
    assert watch.observe(torch.tensor([[0, 1]])) == pytest.approx((0.75 + 0.5) / 2)
    assert watch.observe(torch.tensor([[0, 0]])) is None


def test_the_mean_over_images_weighs_batches_by_their_images():
    mean = ImageMean()
    for value, images in ((2.0, 3), (float("nan"), 0), (6.0, 1)):
        mean.update(torch.tensor(value), torch.tensor(images))
    assert mean.compute() == 3
