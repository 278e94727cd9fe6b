"""``python -m platform_core.cli``: the same as ``edp``."""

from platform_core.cli import main

main()
