"""What the programs at the top of the repository are made of, for scripts to use as well.

A program parses its command line, calls a function of this package and prints what it says.
"""
