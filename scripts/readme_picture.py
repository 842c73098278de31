"""The README's picture from a finished demo: my3dgen demo && python scripts/readme_picture.py out/demo."""

import sys
from pathlib import Path

from PIL import Image

LIMIT = 300_000  # bytes: the picture is part of every clone
TARGET = Path(__file__).parent.parent / "docs" / "pictures" / "demo.jpg"


def main(demo: Path) -> None:
    """Held-out photos by every method, as small as the limit asks for."""
    with Image.open(demo / "pictures" / "heldout.png") as picture:
        page = picture.convert("RGB")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(92, 50, -4):
        page.save(TARGET, quality=quality, optimize=True)
        if TARGET.stat().st_size <= LIMIT:
            print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, quality {quality}")
            return
    sys.exit(f"{TARGET}: too large even at quality {quality}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo"))
