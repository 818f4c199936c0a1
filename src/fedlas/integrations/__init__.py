"""One module for each other library: Lightning, Hugging Face, timm, scikit-learn, skorch, torchmetrics.

In it: trainers, callbacks, tasks and metrics of those libraries around a criterion of this one. In: the user's model, a
criterion and the other library's own arguments. Out: an object of the other library. Import the module that you need.
"""
