"""Lets ``python -m efvae`` stand for the command ``efvae``.

Own: own-run
"""

import sys

from efvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
