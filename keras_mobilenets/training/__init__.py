"""The recipe at work: optimizer, schedule, batch norm, averages, train."""

from keras_mobilenets.errors import UsageError as _UsageError
from keras_mobilenets.startup import other_backend as _other_backend

if _why := _other_backend():
    raise _UsageError(f"training {_why}")

from keras_mobilenets.training.averaging import averaged_weights as averaged_weights
from keras_mobilenets.training.checkpoint import (
    restore_checkpoint as restore_checkpoint,
)
from keras_mobilenets.training.checkpoint import save_checkpoint as save_checkpoint
from keras_mobilenets.training.compiling import compile as compile
from keras_mobilenets.training.fitting import Run as Run
from keras_mobilenets.training.fitting import train as train
from keras_mobilenets.training.optimizer import RMSprop as RMSprop
from keras_mobilenets.training.preflight import check_scale as check_scale
from keras_mobilenets.training.preflight import preflight as preflight
from keras_mobilenets.training.recalibration import recalibrate as recalibrate
from keras_mobilenets.training.strategies import make_strategy as make_strategy
