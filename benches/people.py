"""How fast are batches of many people? The same as `my3dgen bench people`, whose options it takes.

python benches/people.py --json
"""

import sys

from my3dgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "people", *sys.argv[1:]]))
