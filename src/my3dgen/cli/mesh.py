"""`my3dgen mesh`: a person's 3D shape as GLB and PLY."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.subject import load_subject, parse_weights
from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Mesh(Verb):
    """Export a coloured mesh (y up, face toward +z) and a picture of it.

    my3dgen mesh me.safetensors -o me.glb
    """

    person: Positional[Path | None] = None
    """A person file; without one, a face of the prior."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """File to write: .glb or .ply."""
    ply: bool = False
    """Write a PLY beside the GLB too."""
    resolution: int = 256
    """Voxels along each side of the box."""
    level: float | None = None
    """Raw density of the surface; found from the rendered pictures by default."""
    trim: float | None = None
    """Share of the box cut off on every side; 30/256 by default if the prior models a background."""
    smooth: float = 0.5
    """Width, in texels of the planes, of the filter that takes their ripples away; 0 for none."""
    preview: bool = True
    """Write a picture of the mesh beside it."""
    anchor: int | None = None
    """One photo's appearance, counted from 0; the mean of all by default."""
    alpha: tuple[str, ...] = ()
    """A mixture such as 0=0.5 3=0.5; weights are divided by their sum."""
    prior: str | None = None
    """Name or folder of the prior; a person's own by default, else mini."""
    seed: int = 0
    """Which face of the prior, if no person is given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def run(self) -> dict:
        """Write mesh and preview."""
        from my3dgen.apps.mesh import check_format, export_mesh, save_mesh
        from my3dgen.apps.preview import preview
        from my3dgen.apps.sheet import save_image

        check_format(self.out)
        prior, person = load_subject(self.person, self.prior, self.device, self.seed)
        mesh, report = export_mesh(
            prior,
            person,
            anchor=self.anchor,
            alpha=parse_weights(self.alpha),
            seed=self.seed,
            resolution=self.resolution,
            level=self.level,
            trim=self.trim,
            smooth=self.smooth,
        )
        result = {"mesh": str(save_mesh(mesh, self.out)), **asdict(report)}
        if self.ply and self.out.suffix.lower() != ".ply":
            result["ply"] = str(save_mesh(mesh, self.out.with_suffix(".ply")))
        if self.preview:
            result["preview"] = str(save_image(preview(mesh), self.out.with_suffix(".preview.png")))
        if not self.json:
            closed = "watertight" if report.watertight else "not watertight"
            print(f"{report.vertices:,} vertices, {report.faces:,} faces, {closed} -> {self.out}")
            if report.floaters:
                print(f"{report.floaters} floating pieces ({report.floating_share:.1%} of the faces) dropped")
        return result
