"""One module for each other library, with its name; ``drop_in`` is for loops of any other.

In it: trainers, callbacks, tasks and metrics of those libraries around a criterion of this one. In: the user's model, a
criterion and the other library's own arguments. Out: an object of the other library. Import the module that you need.
"""
