"""Searches over alpha and rho: the space, KerasTuner's oracles within it, results.

The space and the results need no TensorFlow, so nothing is imported here.
"""
