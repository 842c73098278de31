"""How fast is a person made? The same as `my3dgen bench personalize`, whose options it takes.

python benches/personalize.py --json
"""

import sys

from my3dgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "personalize", *sys.argv[1:]]))
