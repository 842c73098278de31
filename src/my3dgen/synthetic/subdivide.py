"""One Catmull-Clark step of a quad mesh as a sparse matrix, and neighbour averaging as another.

Topology never changes, so both are made once and then applied to any number of heads at a time.
"""

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor


def catmull_clark(quads: Int[np.ndarray, "quad 4"], count: int) -> tuple[Tensor, Int[np.ndarray, "fine 4"]]:
    """The operator (sparse `fine_vertex coarse_vertex`) and the fine quads of one step.

    Fine vertices are the moved coarse ones, then one per edge, then one per face. Boundary edges get
    the cubic B-spline rule. `count` is the number of coarse vertices; each must belong to a quad.
    """
    faces = len(quads)
    sides = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    edges, edge_of_side = np.unique(np.sort(sides, 1), axis=0, return_inverse=True)
    edge_of_side = edge_of_side.reshape(faces, 4)
    rim = np.bincount(edge_of_side.ravel(), minlength=len(edges)) == 1
    corners = np.repeat(np.arange(faces), 4)
    ends = np.repeat(np.arange(len(edges)), 2)
    of_vertex = _ones(quads.ravel(), corners, (count, faces))  # faces around a vertex
    spokes = _ones(edges.ravel(), ends, (count, len(edges)))  # edges at a vertex
    rim_spokes = spokes @ scipy.sparse.diags_array(rim.astype(float))

    face_points = (of_vertex.T / 4).tocsr()
    midpoints = (spokes.T / 2).tocsr()
    beside = _ones(edge_of_side.ravel(), corners, (len(edges), faces)) / 2  # the two faces at an edge
    edge_points = _rows(midpoints, np.where(rim, 1, 0.5)) + _rows(beside @ face_points, np.where(rim, 0, 0.5))

    # inside: (mean face point + 2 mean edge midpoint + (n - 3) vertex) / n; rim: 1/8, 3/4, 1/8
    identity = scipy.sparse.csr_array(scipy.sparse.eye_array(count))
    n_faces, n_edges = of_vertex.sum(1), spokes.sum(1)
    inside = _rows(of_vertex @ face_points, 1 / n_faces**2) + _rows(
        spokes @ midpoints, 2 / (n_faces * n_edges)
    )
    inside = inside + _rows(identity, 1 - 3 / n_faces)
    rim_edges = rim_spokes.sum(1)
    on_rim = _rows(identity, 1 - rim_edges / 4) + rim_spokes @ midpoints / 4
    vertex_points = _rows(inside, rim_edges == 0) + _rows(on_rim, rim_edges > 0)

    operator = scipy.sparse.coo_array(scipy.sparse.vstack([vertex_points, edge_points, face_points]))
    of_face = np.repeat(np.arange(faces)[:, None] + count + len(edges), 4, 1)
    fine = np.stack([quads, count + edge_of_side, of_face, count + np.roll(edge_of_side, 1, 1)], -1)
    return _to_torch(operator), fine.reshape(-1, 4)


def neighbour_mean(triangles_or_quads: Int[Tensor, "face corner"], count: int) -> Tensor:
    """Sparse `vertex vertex` operator that replaces each vertex by the mean of its neighbours."""
    faces = triangles_or_quads
    pairs = torch.stack([faces, faces.roll(-1, 1)], -1).reshape(-1, 2)
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1)]), dim=0)
    degree = torch.bincount(pairs[:, 0], minlength=count).clamp_min(1)
    values = 1 / degree[pairs[:, 0]].float()
    return torch.sparse_coo_tensor(pairs.T, values, (count, count), check_invariants=True).coalesce()


def apply(operator: Tensor, points: Float[Tensor, "scene n c"]) -> Float[Tensor, "scene m c"]:
    """A sparse `m n` operator on every scene at once."""
    scenes, n, channels = points.shape
    flat = points.permute(1, 0, 2).reshape(n, scenes * channels)
    return (operator @ flat).reshape(-1, scenes, channels).permute(1, 0, 2)


def triangulate(quads: Int[Tensor, "quad 4"]) -> Int[Tensor, "triangle 3"]:
    """Two triangles per quad, with its orientation."""
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _rows(matrix: scipy.sparse.csr_array, factors: np.ndarray) -> scipy.sparse.csr_array:
    """Each row times its factor."""
    return scipy.sparse.csr_array(scipy.sparse.diags_array(np.asarray(factors, float)) @ matrix)


def _to_torch(matrix: scipy.sparse.coo_array) -> Tensor:
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    indices = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    values = torch.from_numpy(matrix.data).float()
    return torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=True).coalesce()
