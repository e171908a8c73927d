"""Data given as objects, and what all forms of data have in common. No TensorFlow."""

from keras_mobilenets.given.examples import AGAIN as AGAIN
from keras_mobilenets.given.examples import FORMS as FORMS
from keras_mobilenets.given.examples import MEMORY_BUDGET as MEMORY_BUDGET
from keras_mobilenets.given.examples import PARTS as PARTS
from keras_mobilenets.given.examples import Given as Given
from keras_mobilenets.given.examples import is_table as is_table
from keras_mobilenets.given.examples import reference as reference
from keras_mobilenets.given.examples import take as take
from keras_mobilenets.given.labels import JOINT as JOINT
from keras_mobilenets.given.labels import Label as Label
from keras_mobilenets.given.labels import One as One
from keras_mobilenets.given.labels import check_class_weight as check_class_weight
from keras_mobilenets.given.labels import check_label_set as check_label_set
from keras_mobilenets.given.labels import label_text as label_text
from keras_mobilenets.given.labels import parts_of as parts_of
