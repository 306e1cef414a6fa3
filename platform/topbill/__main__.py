"""`python -m topbill` is the command line."""

from topbill.cli import main

main()
