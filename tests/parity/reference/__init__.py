"""SemVQ's computations once more, in Python, from the formulas or by the peers.

The live checks of tests/parity and the fixtures of tests/golden are made with
these modules. They share no code with the C++ side.
"""
