"""`python -m tinyres`, and what torchrun starts."""

from tinyres.cli import main

if __name__ == "__main__":
    main()
