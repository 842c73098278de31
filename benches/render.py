"""How fast are pictures? The same as `my3dgen bench render`, whose options it takes.

python benches/render.py --json
"""

import sys

from my3dgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "render", *sys.argv[1:]]))
