"""``python -m tests.simulation.durable 1234`` replays a seed; ``--from 0 --to 5000`` searches."""

from __future__ import annotations

import sys

from tests.simulation.__main__ import main
from tests.simulation.durable.run import simulate

if __name__ == "__main__":
    sys.exit(main(simulate, "python -m tests.simulation.durable"))
