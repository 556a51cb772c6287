"""The page of `keras-sphereface demo` as a Hugging Face Space."""

import keras_sphereface as ksf
from keras_sphereface import demo

demo.build(ksf.Recognizer()).launch()
