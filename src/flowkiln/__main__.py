"""``python -m flowkiln`` is ``flowkiln``."""

from flowkiln.cli.main import main

if __name__ == "__main__":
    main()
