"""Every Python process of the image loads this: if a package is missing, print one line instead of a traceback."""

import sys
from types import TracebackType


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Handle an uncaught error: if a module is missing, print how the image differs from requirements.lock."""
    if issubclass(kind, ModuleNotFoundError):
        from emsuite.common.errors import BadInput
        from emsuite.common.locked_packages import check_image_here

        try:
            check_image_here()
        except BadInput as difference:
            print(f"error: {difference}", file=sys.stderr)
            sys.exit(2)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = tell
