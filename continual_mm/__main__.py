"""``python -m continual_mm``."""

from continual_mm.cli.app import main

if __name__ == "__main__":
    main()
