"""Running artifacts without PyTorch: one file a backend, one Runner around it, and the Classifier on top."""

from tinyres.runtime.backends import BACKENDS, open_runner
from tinyres.runtime.classifier import Classifier, Prediction
from tinyres.runtime.runner import Backend, Precision, Runner

__all__ = ["BACKENDS", "Backend", "Classifier", "Precision", "Prediction", "Runner", "open_runner"]
