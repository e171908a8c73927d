"""What is done with a trained network: evaluate, predict, export, benchmark.

On training, for it takes a finished run, and on deploy, for it takes a file.
"""

from keras_mobilenets.inference.benchmarking import benchmark as benchmark
from keras_mobilenets.inference.evaluation import evaluate as evaluate
from keras_mobilenets.inference.exporting import export as export
from keras_mobilenets.inference.prediction import predict as predict
from keras_mobilenets.inference.quantizing import (
    fine_tune_quantized as fine_tune_quantized,
)
