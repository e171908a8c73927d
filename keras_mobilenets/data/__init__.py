"""Data: sources (digits, TFDS, folders) to tf.data batches as the papers prepare."""

from keras_mobilenets.data.checkup import check_data as check_data
from keras_mobilenets.data.images import as_picture as as_picture
from keras_mobilenets.data.images import load_image as load_image
from keras_mobilenets.data.sources import load_data as load_data
from keras_mobilenets.data.splits import Splits as Splits
