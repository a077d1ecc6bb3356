"""``python -m jq_actors.cli`` is ``jq-actors``."""

import sys
from pathlib import Path

from . import main

# Dramatiq reloads (SIGHUP, --watch) by executing argv[0], which must be a program and not this file.
sys.argv[0] = str(Path(sys.executable).with_name("jq-actors"))
main()
