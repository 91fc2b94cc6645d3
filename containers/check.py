#!/usr/bin/env python
"""Run in an image: says in one line what it lacks of this checkout's requirements.lock, and ends with code 2 then."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))


def main() -> None:
    """Needs no package: an image without any is told of, too."""
    from emsuite.errors import BadInput
    from emsuite.packages import check_packages

    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER") or sys.prefix
    try:
        check_packages(ROOT / "requirements.lock", image)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
