"""From a trained model to a file that runs on a device, and that file run."""

from keras_mobilenets.deploy.classifier import Classifier as Classifier
from keras_mobilenets.deploy.conversion import KINDS as KINDS
from keras_mobilenets.deploy.exporting import export_model as export_model
from keras_mobilenets.deploy.folding import fuse as fuse
from keras_mobilenets.deploy.formats import check_new_file as check_new_file
from keras_mobilenets.deploy.formats import read_classifier as read_classifier
from keras_mobilenets.deploy.splitting import split as split
