"""How fast is a computer without a GPU? The same as `my3dgen bench cpu`, whose options it takes.

python benches/cpu.py --json
"""

import sys

from my3dgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "cpu", *sys.argv[1:]]))
