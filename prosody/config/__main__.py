"""``python -m prosody.config`` prints the README's option tables."""

from __future__ import annotations

import sys

from prosody.config.tables import sections

if __name__ == "__main__":
    sys.stdout.write("\n".join(sections()))
