"""``python -m jq_actors.cli`` does the same as ``jq-actors``."""

import sys
from pathlib import Path

from . import main

# To reload (SIGHUP, --watch), Dramatiq executes argv[0], so that must be the program rather than this file.
sys.argv[0] = str(Path(sys.executable).with_name("jq-actors"))
main()
