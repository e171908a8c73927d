"""Weights in: one module for each kind of source, one that checks and sets.

Every source gives the same: arrays by the names of the plan's layers, and what cannot
be seen in them (stored.py). `setting.py` compares that with the network and then sets
all of it, or nothing.
"""

from keras_mobilenets.models.weights.loading import load_weights as load_weights
from keras_mobilenets.models.weights.setting import Loaded as Loaded
from keras_mobilenets.models.weights.setting import copy_weights as copy_weights
