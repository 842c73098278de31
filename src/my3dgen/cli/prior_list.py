"""`my3dgen prior list`: the priors on this machine."""

from dataclasses import dataclass

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorList(Verb):
    """List the embedded priors and those in the user's folder."""

    def run(self) -> dict:
        """One entry a prior; a damaged one is listed with its problem."""
        from my3dgen.errors import FileFormatError
        from my3dgen.prior.store import CONFIG, EMBEDDED, WEIGHTS, prior_folders, read_config, read_sums

        priors = []
        for name, folder in prior_folders().items():
            entry = {"name": name, "folder": str(folder), "embedded": folder.parent == EMBEDDED}
            try:
                entry["sha256"] = read_sums(folder)[WEIGHTS]
                entry["img_resolution"] = read_config(folder / CONFIG).img_resolution
                entry["bytes"] = (folder / WEIGHTS).stat().st_size
            except (FileFormatError, FileNotFoundError) as error:
                entry["problem"] = str(error)
            priors.append(entry)
        if not self.json:
            for entry in priors:
                print(f"{entry['name']:<24} {about(entry)}")
        return {"priors": priors}


def about(entry: dict) -> str:
    """One line on a prior."""
    if "problem" in entry:
        return f"damaged: {entry['problem']}"
    place = "in the package" if entry["embedded"] else entry["folder"]
    return f"{entry['img_resolution']} px, {entry['bytes'] / 1e6:.1f} MB, {entry['sha256'][:12]}, {place}"
