"""This library inside others: one module for each, named after it, and imported only by who uses both."""
