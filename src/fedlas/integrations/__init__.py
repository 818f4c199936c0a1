"""Integrations with other libraries, one module each; ``drop_in`` is for other training loops.

They hold trainers, callbacks, tasks and metrics of those libraries that work with criteria and calibrators of this one.
Import the module that you need.
"""
