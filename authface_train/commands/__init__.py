"""Commands of the training half: parse, call, print.

Heavy modules are imported only when a command runs.
"""
