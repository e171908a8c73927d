"""The plan as a Keras model."""

from keras_mobilenets.models.builder import build as build
from keras_mobilenets.models.weights import copy_weights as copy_weights
from keras_mobilenets.models.weights import load_weights as load_weights
