#!/usr/bin/env python
"""Run inside an image: print in one line how its packages differ from the suite's requirements.lock."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def main() -> None:
    """Check the packages of this image. This needs no package itself, so that it also works in an image without any."""
    from emsuite.common.errors import BadInput
    from emsuite.common.locked_packages import check_image_here

    try:
        check_image_here()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
