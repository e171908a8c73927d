"""Training recipes: every constant of every published run, with its source.

A `Recipe` is flat and frozen. `recipes["slim_v2"].sources["epsilon"]` says where a
value comes from, `recipes["slim_v2"].measured` what was run of it here. What a recipe
has, with the bounds of each field, is in record.py; the named ones are in named.py.

Pure Python: importing this package does not import TensorFlow.
"""

from keras_mobilenets.recipe.named import get_recipe as get_recipe
from keras_mobilenets.recipe.named import recipes as recipes
from keras_mobilenets.recipe.record import FIELDS as FIELDS
from keras_mobilenets.recipe.record import NEUTRAL as NEUTRAL
from keras_mobilenets.recipe.record import Recipe as Recipe
from keras_mobilenets.recipe.record import check_freeze as check_freeze
from keras_mobilenets.recipe.record import difference as difference
from keras_mobilenets.recipe.stored import recipe_from as recipe_from
