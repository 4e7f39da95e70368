"""The commands that train and what follows: a module for each, which loads Keras only when the command runs."""
