"""The two papers as data: tables, plan, cost and published results.

Pure Python. Nothing in this package imports TensorFlow, so costs and
recommendations come back in microseconds.
"""

from keras_mobilenets.architecture.costing import Cost as Cost
from keras_mobilenets.architecture.costing import LayerCost as LayerCost
from keras_mobilenets.architecture.costing import cost as cost
from keras_mobilenets.architecture.costing import plan_cost as plan_cost
from keras_mobilenets.architecture.plan import Layer as Layer
from keras_mobilenets.architecture.plan import make_plan as make_plan
from keras_mobilenets.architecture.published import Published as Published
from keras_mobilenets.architecture.published import recommend as recommend
from keras_mobilenets.architecture.tables import NETWORKS as NETWORKS
