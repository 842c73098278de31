"""A way through a person's appearances: which mixture of anchors, and which camera, when.

A way has stops. Between two of them alpha moves on the straight line (EG3D spec 5.8) and cameras on the
sphere. A position counts stops: 1.5 lies halfway between the second and the third. A closed way is one
whose first stop comes once more at its end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import decode
from my3dgen.cameras import join_label, split_label

Ease = Literal["smooth", "ends", "linear"]
"""Where the motion rests: at every stop, at the first and the last, or nowhere."""


@dataclass(frozen=True, eq=False)
class Way:
    """Stops, at least two. Consecutive stops may be equal."""

    alphas: Float[Tensor, "stops anchors"]
    cameras: Float[Tensor, "stops 25"]

    @property
    def segments(self) -> int:
        return len(self.alphas) - 1

    def closed(self) -> "Way":
        """The way that also returns to its first stop."""
        return Way(*(torch.cat([x, x[:1]]) for x in (self.alphas, self.cameras)))

    def at(
        self, positions: Sequence[float]
    ) -> tuple[Float[Tensor, "steps anchors"], Float[Tensor, "steps 25"]]:
        """(alphas, cameras) at positions from 0 to `segments`."""
        segment = [min(int(position), self.segments - 1) for position in positions]
        t = torch.tensor([p - k for p, k in zip(positions, segment, strict=True)]).to(self.alphas)[:, None]
        first, last = self.alphas[segment], self.alphas[[k + 1 for k in segment]]
        cameras = torch.empty(len(positions), 25).to(self.cameras)
        for k in set(segment):
            rows = [row for row, one in enumerate(segment) if one == k]
            some = [positions[row] - k for row in rows]
            cameras[rows] = between_cameras(self.cameras[k], self.cameras[k + 1], some)
        return torch.lerp(first, last, t), cameras

    def lengths(self, anchors: Float[Tensor, "anchors num_ws w_dim"]) -> list[float]:
        """How long every segment is: its share of all distance between latents, plus its share of all
        turning of the camera."""
        moved = decode(self.alphas, anchors).diff(dim=0).flatten(1).norm(dim=1).cpu()
        turned = camera_turns(self.cameras).cpu()
        parts = [x / x.sum() for x in (moved.double(), turned.double()) if x.sum() > 1e-6]
        return torch.stack(parts).sum(0).tolist() if parts else [1.0] * self.segments


def times(steps: int, closed: bool) -> list[float]:
    """Moments of evenly timed pictures, 0 at the first. An open way has its end, 1, at the last picture;
    a closed one ends a picture later, so that nothing is shown twice when it repeats."""
    return [step / (steps if closed else max(1, steps - 1)) for step in range(steps)]


def eased(t: float) -> float:
    """Time from 0 to 1 as a motion whose speed rises from rest and falls to rest like a cosine."""
    return (1 - math.cos(math.pi * t)) / 2


def positions_at(moments: Sequence[float | int], lengths: Sequence[float], ease: Ease) -> list[float]:
    """Where on a way moments from 0 to 1 fall, if every segment takes time in proportion to its length.

    A segment of no length takes no time.
    """
    ends = np.cumsum([0.0, *lengths])
    ends = ends / ends[-1]
    positions = []
    for moment in moments:
        t = eased(moment) if ease == "ends" else moment
        k = min(int(np.searchsorted(ends, t, side="right")) - 1, len(lengths) - 1)
        within = (t - ends[k]) / (ends[k + 1] - ends[k]) if ends[k + 1] > ends[k] else 1.0
        within = min(max(float(within), 0.0), 1.0)
        positions.append(k + (eased(within) if ease == "smooth" else within))
    return positions


def evened(positions: Sequence[float | int], changes: Sequence[Sequence[float]]) -> list[float]:
    """Positions that share every segment by how much changes on it instead of by alpha.

    `changes` are, for each segment, what was measured on equal parts of it.
    """
    even = []
    for position in positions:
        k = min(int(position), len(changes) - 1)
        passed = np.cumsum([0.0, *changes[k]])
        parts = np.linspace(0, 1, len(passed))
        share = np.interp(position - k, passed / passed[-1], parts) if passed[-1] > 0 else position - k
        even.append(k + float(share))
    return even


def sweep_yaws(moments: Sequence[float], reach: float, closed: bool) -> list[float]:
    """Yaws at moments from 0 to 1: from -reach to reach, eased; or from the front to either side and back."""
    if closed:
        return [reach * math.sin(2 * math.pi * moment) for moment in moments]
    return [reach * (2 * eased(moment) - 1) for moment in moments]


def camera_turns(cameras: Float[Tensor, "stops 25"]) -> Float[Tensor, " segments"]:
    """Angles between consecutive cameras in radians."""
    axes = split_label(cameras.double())[0][:, :3, :3]
    chord = axes.diff(dim=0).flatten(1).norm(dim=1)  # unlike the trace, exactly 0 for equal cameras
    return 2 * (chord / 8**0.5).clamp_max(1).arcsin()


def between_cameras(
    first: Float[Tensor, "25"], last: Float[Tensor, "25"], positions: Sequence[float]
) -> Float[Tensor, "steps 25"]:
    """Cameras on the way: rotation and direction turn, distance and intrinsics change linearly."""
    from scipy.spatial.transform import Rotation, Slerp

    (pose_a, lens_a), (pose_b, lens_b) = (split_label(c[None].double().cpu()) for c in (first, last))
    turns = Slerp([0, 1], Rotation.from_matrix(torch.cat([pose_a, pose_b])[:, :3, :3].numpy()))(positions)
    from_, to = pose_a[0, :3, 3].numpy(), pose_b[0, :3, 3].numpy()
    arc = Rotation.align_vectors(to[None], from_[None])[0].as_rotvec()  # the shortest turn
    near, far = np.linalg.norm(from_), np.linalg.norm(to)
    poses, lenses = torch.eye(4).repeat(len(positions), 1, 1), []
    for index, t in enumerate(positions):
        direction = Rotation.from_rotvec(arc * t).apply(from_ / near)
        poses[index, :3, :3] = torch.from_numpy(turns[index].as_matrix())
        poses[index, :3, 3] = torch.from_numpy(direction * ((1 - t) * near + t * far))
        lenses.append((1 - t) * lens_a + t * lens_b)
    return join_label(poses, torch.cat(lenses).float()).to(first)
