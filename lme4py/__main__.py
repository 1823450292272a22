"""``python -m lme4py`` does what the command ``lme4py`` does."""

from __future__ import annotations

import sys

from lme4py.cli import main

if __name__ == "__main__":
    sys.exit(main())
